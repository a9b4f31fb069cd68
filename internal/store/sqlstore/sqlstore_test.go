package sqlstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContracts(t *testing.T) {
	for name, o := range map[string]Options{
		"Default":   {},
		"TinyCache": {ClientCache: 2, CommitInterval: -1},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && name != "Default" {
				t.Skip("-short: one set of options is enough")
			}
			storetest.Run(t, func(t *testing.T) func() (storetest.Store, error) {
				path := filepath.Join(t.TempDir(), "maf.db")
				return func() (storetest.Store, error) { return Open(context.Background(), path, o) }
			})
		})
	}
}

// raw opens the file past the store.
func raw(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func mustExec(t *testing.T, db interface {
	Exec(string, ...any) (sql.Result, error)
}, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "maf.db")
	db := open(t, path, Options{})
	for range 2 { // a refused Open must not take the lock away
		if _, err := Open(context.Background(), path, Options{}); !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), path) {
			t.Errorf("second Open: %v", err)
		}
	}
	db.Close()
	open(t, path, Options{})
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "maf.db")
	db := open(t, path, Options{})
	if err := db.Keys().Commit(context.Background(), benchKey(1)); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 { // the database, its log, the log's index, the lock
		t.Errorf("the folder holds %v (%v)", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s has mode %v (%v)", e.Name(), info.Mode(), err)
		}
	}
	db.Close()
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(context.Background(), path, Options{}); !errors.Is(err, ErrPermissions) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, path, Options{})
}

func TestOpenRefuses(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]struct {
		prepare func(t *testing.T, path string)
		want    error
	}{
		"a newer schema": {func(t *testing.T, path string) {
			open(t, path, Options{}).Close()
			mustExec(t, raw(t, path), "PRAGMA user_version = 1000")
		}, ErrNewer},
		"another program's database": {func(t *testing.T, path string) {
			mustExec(t, raw(t, path), "CREATE TABLE recipes (name TEXT)")
		}, ErrForeign},
		"another program's mark": {func(t *testing.T, path string) {
			mustExec(t, raw(t, path), "PRAGMA application_id = 77")
		}, ErrForeign},
		"a text file": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database\n"), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"a folder": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil},
		"a row that is no key": {func(t *testing.T, path string) {
			open(t, path, Options{}).Close()
			mustExec(t, raw(t, path), "INSERT INTO kc VALUES (1, x'00', '', 0, '', 0, x'')")
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "maf.db")
			test.prepare(t, path)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			for range 2 { // the second time it fails for the same reason, not for a lock left behind
				db, err := Open(ctx, path, Options{})
				if err == nil {
					db.Close()
					t.Fatal("it was opened")
				}
				if test.want != nil && !errors.Is(err, test.want) || errors.Is(err, ErrLocked) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	if _, err := Open(ctx, filepath.Join(t.TempDir(), "none", "maf.db"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no folder: %v", err)
	}
}

// A path is a path, also where it looks like a piece of a URI.
func TestOddPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a ?b#c%41&mode=memory.db")
	key := benchKey(1)
	db := open(t, path, Options{})
	if err := db.Keys().Commit(context.Background(), key); err != nil {
		t.Fatal(err)
	}
	db.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, path, Options{}).Keys().Get(context.Background(), key.ID); err != nil {
		t.Error(err)
	}
}

// together makes so many Commits at once and returns their errors.
func together(db *DB, keys []store.Key) []error {
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() { errs[i] = db.Keys().Commit(context.Background(), k) })
	}
	wg.Wait()
	return errs
}

func benchKeys(n int) []store.Key {
	keys := make([]store.Key, n)
	for i := range keys {
		keys[i] = benchKey(i)
	}
	return keys
}

// When a transaction fails, everybody in it is told, nothing of it is seen, and
// the store goes on as soon as it can.
func TestFailedTransaction(t *testing.T) {
	ctx := context.Background()
	for name, test := range map[string]func(t *testing.T, db *DB, path string) (repair func()){
		"disk full": func(t *testing.T, db *DB, _ string) func() {
			var pages int
			if err := db.writer.conn.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages); err != nil {
				t.Fatal(err)
			}
			limit := func(n int) {
				if _, err := db.writer.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", n)); err != nil {
					t.Fatal(err)
				}
			}
			limit(pages)
			return func() { limit(1 << 30) }
		},
		"database locked": func(t *testing.T, db *DB, path string) func() {
			if _, err := db.writer.conn.ExecContext(ctx, "PRAGMA busy_timeout = 1"); err != nil {
				t.Fatal(err)
			}
			other, err := raw(t, path).Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
				t.Fatal(err)
			}
			return func() {
				if _, err := other.ExecContext(ctx, "ROLLBACK"); err != nil {
					t.Error(err)
				}
				other.Close()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "maf.db")
			db := open(t, path, Options{})
			before, failed, after := benchKeys(10), benchKeys(300), benchKeys(10)
			if err := errors.Join(together(db, before)...); err != nil {
				t.Fatal(err)
			}
			repair := test(t, db, path)
			var again []store.Key
			for i, err := range together(db, failed) {
				if err == nil {
					// It may have been in a group that still fitted.
					before = append(before, failed[i])
					continue
				}
				again = append(again, failed[i])
				if errors.Is(err, store.ErrExists) {
					t.Errorf("a failure looks like a contract's answer: %v", err)
				}
				if _, err := db.Keys().Get(ctx, failed[i].ID); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("a key whose transaction failed: %v", err)
				}
			}
			if len(again) < 200 {
				t.Errorf("only %d of %d Commits failed", len(again), len(failed))
			}
			repair()
			after = append(after, again...) // whose identifiers must be free
			if err := errors.Join(together(db, after)...); err != nil {
				t.Errorf("after the repair: %v", err)
			}
			for range 2 {
				for _, k := range append(before, after...) {
					if _, err := db.Keys().Get(ctx, k.ID); err != nil {
						t.Errorf("an acknowledged key: %v", err)
					}
				}
				db.Close()
				db = open(t, path, Options{})
			}
		})
	}
}

// A power cut, as far as it can be had without one: the files are copied at
// moments when nothing that was acknowledged can still be on its way, in the
// middle of a transaction. A log may also end in a piece of a transaction, or in
// whatever the disk held there.
func TestPowerCut(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	path := filepath.Join(dir, "maf.db")
	db := open(t, path, Options{CommitInterval: time.Millisecond})
	var (
		mu    sync.Mutex
		acked []store.Key // guarded by mu
		wg    sync.WaitGroup
	)
	stop := make(chan struct{})
	for range 50 {
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				k := benchKey(n)
				if err := db.Keys().Commit(ctx, k); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acked = append(acked, k)
				mu.Unlock()
			}
		})
	}
	type cut struct {
		path  string
		acked []store.Key
	}
	var cuts []cut
	for range 8 {
		time.Sleep(20 * time.Millisecond)
		c := cut{path: filepath.Join(t.TempDir(), "maf.db")}
		err := db.writer.change(ctx, &change{do: func(context.Context, *sql.Conn) error {
			// In the writer's goroutine: the keys of this group are inserted, and
			// not committed.
			mu.Lock()
			c.acked = acked[:len(acked):len(acked)]
			mu.Unlock()
			return errors.Join(copyFile(path, c.path), copyFile(path+"-wal", c.path+"-wal"))
		}})
		if err != nil {
			t.Fatal(err)
		}
		cuts = append(cuts, c)
	}
	close(stop)
	wg.Wait()
	if n := len(cuts[len(cuts)-1].acked); n < 100 {
		t.Fatalf("only %d keys were committed before the last cut: the test shows nothing", n)
	}
	for i, c := range cuts {
		tear(t, c.path+"-wal", i)
		db := open(t, c.path, Options{})
		for _, k := range c.acked {
			got, err := db.Keys().Get(ctx, k.ID)
			if k.Expires = k.Expires.Truncate(time.Second).UTC(); err != nil || !reflect.DeepEqual(got, k) {
				t.Fatalf("cut %d: of %d acknowledged keys, %v: %v", i, len(c.acked), k.ID, err)
			}
		}
		if err := db.Keys().Commit(ctx, benchKey(0)); err != nil {
			t.Errorf("cut %d: the restarted store does not go on: %v", i, err)
		}
	}
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// tear gives the log one of several ends.
func tear(t *testing.T, wal string, variant int) {
	t.Helper()
	data, err := os.ReadFile(wal)
	if err != nil {
		t.Fatal(err)
	}
	const frame = 24 + 4096
	switch tail := make([]byte, frame*3/2); variant % 4 {
	case 0: // as it was
		return
	case 1: // new sectors, never written
		data = append(data, tail...)
	case 2: // garbage
		rand.Read(tail)
		data = append(data, tail...)
	case 3: // an old frame once more, and half of another
		data = append(data, data[32:min(len(data), 32+len(tail))]...)
	}
	if err := os.WriteFile(wal, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A row that makes no sense hurts nobody but its own client.
func TestDamagedClient(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "maf.db")
	fillClients(t, path, 10)
	damage := raw(t, path)
	mustExec(t, damage, "UPDATE client SET id_b = 'no CSE-ID' WHERE km_id = ?", benchID(4).String())
	damage.Close()
	db := open(t, path, Options{})
	var wg sync.WaitGroup
	for range 10 {
		for n := range 10 {
			wg.Go(func() {
				_, err := db.Clients().Get(ctx, benchID(n))
				if n == 4 && (err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), benchID(4).String())) {
					t.Errorf("the damaged row: %v", err)
				} else if n != 4 && err != nil {
					t.Errorf("another row: %v", err)
				}
			})
		}
	}
	wg.Wait()
	if _, err := db.Clients().List(ctx, benchID(4), 5); err != nil {
		t.Errorf("the page behind it: %v", err)
	}
	if page, err := db.Clients().List(ctx, store.Client{}.KmID, 0); len(page) != 9 || err == nil {
		t.Errorf("the page with it: %d clients, %v", len(page), err)
	}
}

func TestClosed(t *testing.T) {
	ctx := context.Background()
	db := open(t, filepath.Join(t.TempDir(), "maf.db"), Options{})
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Keys().Commit(ctx, benchKey(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := db.Clients().Get(ctx, benchID(0)); !errors.Is(err, ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if _, err := db.Clients().List(ctx, benchID(0), 1); err == nil {
		t.Error("List of a closed store works")
	}
}

// Close does what it found waiting: who was not refused finds its key again.
func TestCloseFinishesCommits(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "maf.db")
	db := open(t, path, Options{CommitInterval: time.Hour})
	keys := benchKeys(200)
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i, k := range keys {
		wg.Go(func() { errs[i] = db.Keys().Commit(ctx, k) })
	}
	db.Close()
	wg.Wait()
	db = open(t, path, Options{})
	for i, k := range keys {
		_, err := db.Keys().Get(ctx, k.ID)
		if errs[i] == nil && err != nil {
			t.Errorf("an acknowledged key: %v", err)
		} else if errs[i] != nil && (!errors.Is(errs[i], ErrClosed) || !errors.Is(err, store.ErrNotFound)) {
			t.Errorf("Commit: %v; Get: %v", errs[i], err)
		}
	}
}

// After Close, everything stands in the one file: it can be copied as it is.
func TestCloseLeavesOneFile(t *testing.T) {
	dir := t.TempDir()
	db := open(t, filepath.Join(dir, "maf.db"), Options{})
	if err := errors.Join(together(db, benchKeys(100))...); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != "maf.db" || entries[1].Name() != "maf.db.lock" {
		t.Errorf("the folder holds %v (%v)", entries, err)
	}
}
