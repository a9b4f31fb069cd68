package sqlstore

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// TestCounts: the store tells how much it holds, and of each of its writes.
func TestCounts(t *testing.T) {
	var told, changes atomic.Int64
	db, err := Open(t.Context(), filepath.Join(t.TempDir(), "maf.db"), Options{
		OnTransaction: func(n int, took time.Duration, err error) {
			if took < 0 || err != nil {
				t.Errorf("a transaction of %v ended with %v", took, err)
			}
			told.Add(1)
			changes.Add(int64(n))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	id := onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"}
	cse := onem2m.CSEID{SP: "city.example", ID: "in-cse"}
	if err := db.Clients().Add(t.Context(), store.Client{KmID: id, UID: 1, IdB: cse, SealedKm: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		key := store.Key{ID: onem2m.KcID{FQDN: id.FQDN}, KmID: id, UID: 1, IdB: cse, Expires: time.Now().Add(time.Hour), SealedKc: []byte{1}}
		key.ID.Relative[0] = byte(i)
		if err := db.Keys().Commit(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if clients, keys, err := db.Counts(t.Context()); clients != 1 || keys != 3 || err != nil {
		t.Errorf("%d clients and %d keys, %v; want 1 and 3", clients, keys, err)
	}
	if told.Load() != 4 || changes.Load() != 4 {
		t.Errorf("told of %d transactions with %d changes, want 4 and 4", told.Load(), changes.Load())
	}
}
