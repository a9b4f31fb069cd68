package sqlstore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/onem2m-maf/maf/internal/store"
)

// The log keeps the newest lines, and tells a reader who is too far behind.
func TestRevocationsAreDropped(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "maf.db")
	db := open(t, path, Options{CommitInterval: -1})
	db.Close()
	const before = 1000
	mustExec(t, raw(t, path), fmt.Sprintf(`
		WITH RECURSIVE n(seq) AS (SELECT 1 UNION ALL SELECT seq + 1 FROM n WHERE seq < %d)
		INSERT INTO revocation SELECT seq, '//sp.example.com/in-cse', 'a@maf.example.com', '' FROM n`, before+store.KeepRevocations))
	db = open(t, path, Options{CommitInterval: -1})
	k := benchKey(1)
	if err := db.Keys().Commit(ctx, k); err != nil {
		t.Fatal(err)
	}
	if err := db.Keys().Revoke(ctx, k.ID); err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{0, before, before + store.KeepRevocations + 2} {
		if _, err := db.Keys().Revocations(ctx, after, 10); !errors.Is(err, store.ErrGone) {
			t.Errorf("after %d: %v", after, err)
		}
	}
	page, err := db.Keys().Revocations(ctx, before+1, 1)
	if err != nil || len(page) != 1 || page[0].Seq != before+2 {
		t.Errorf("the oldest: %v, %v", page, err)
	}
	page, err = db.Keys().Revocations(ctx, before+store.KeepRevocations, 0)
	if err != nil || len(page) != 1 || page[0].KcID != k.ID {
		t.Errorf("the newest: %v, %v", page, err)
	}
}

// A store of the first schema becomes one of this schema, with all that it held.
func TestMigration(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "maf.db")
	db := open(t, path, Options{})
	k := benchKey(1)
	if err := db.Keys().Commit(ctx, k); err != nil {
		t.Fatal(err)
	}
	db.Close()
	old := raw(t, path)
	mustExec(t, old, "DROP TABLE revocation")
	mustExec(t, old, "PRAGMA user_version = 1")
	old.Close()

	db = open(t, path, Options{})
	if _, err := db.Keys().Get(ctx, k.ID); err != nil {
		t.Error(err)
	}
	if err := db.Keys().Revoke(ctx, k.ID); err != nil {
		t.Error(err)
	}
	if last, err := db.Keys().LastRevocation(ctx); err != nil || last != 1 {
		t.Errorf("%d, %v", last, err)
	}
}
