package pgstore

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/store/pgtest"
	"github.com/onem2m-maf/maf/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContracts(t *testing.T) {
	s := pgtest.Start(t)
	create := func(t *testing.T) func() (storetest.Store, error) {
		o := Options{URL: s.NewDatabase(t), PasswordFile: s.PasswordFile()}
		return func() (storetest.Store, error) { return Open(context.Background(), o) }
	}
	// A group of its own: its tests run in parallel, and the server is stopped when
	// this test ends.
	t.Run("one", func(t *testing.T) { storetest.Run(t, create) })
	t.Run("shared", func(t *testing.T) { storetest.RunShared(t, create) })
}
