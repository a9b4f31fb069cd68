package sqlstore

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store/storetest"
)

func TestContracts(t *testing.T) {
	for name, o := range map[string]Options{
		"Default":    {},
		"TinyCache":  {ClientCache: 2, CommitInterval: -1},
		"SlowCommit": {CommitInterval: 30 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) func() (storetest.Store, error) {
				path := filepath.Join(t.TempDir(), "maf.db")
				return func() (storetest.Store, error) { return Open(context.Background(), path, o) }
			})
		})
	}
}
