package pgstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/pgtest"
	"github.com/onem2m-maf/maf/internal/store/storetest"
	"github.com/onem2m-maf/maf/onem2m"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContracts(t *testing.T) {
	s := pgtest.Start(t)
	create := func(t *testing.T) func() (storetest.Store, error) {
		o := Options{URL: s.NewDatabase(t), PasswordFile: s.PasswordFile()}
		return func() (storetest.Store, error) { return Open(context.Background(), o) }
	}
	// Groups of their own: their tests run in parallel, and the server is stopped
	// when this test ends.
	t.Run("one", func(t *testing.T) { storetest.Run(t, create) })
	t.Run("shared", func(t *testing.T) { storetest.RunShared(t, create) })
}

func openTest(tb testing.TB, o Options) *DB {
	tb.Helper()
	return openSteps(tb, o, migrations)
}

func openSteps(tb testing.TB, o Options, steps []migration) *DB {
	tb.Helper()
	db, err := open(context.Background(), o, steps)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

func testKey() store.Key {
	k := store.Key{
		ID:       onem2m.KcID{FQDN: "maf.example.com"},
		KmID:     testClient(0).KmID,
		IdB:      testClient(0).IdB,
		Expires:  time.Now().Add(24 * time.Hour).Truncate(time.Second).UTC(),
		SealedKc: make([]byte, 77),
	}
	rand.Read(k.ID.Relative[:])
	rand.Read(k.SealedKc)
	return k
}

func testClient(n int) store.Client {
	return store.Client{
		KmID:     onem2m.KmID{Relative: fmt.Sprintf("meter-%07d", n), FQDN: "maf.example.com"},
		Version:  1,
		IdB:      onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"},
		SealedKm: []byte("box"),
	}
}

// The server's tests share one server; each has a database.
func TestServer(t *testing.T) {
	s := pgtest.Start(t)
	for name, test := range map[string]func(t *testing.T, s *pgtest.Server, o Options){
		"Upgrade":     testUpgrade,
		"TooNew":      testTooNew,
		"Starts":      testStarts,
		"Foreign":     testForeign,
		"FewRights":   testFewRights,
		"Unsafe":      testUnsafe,
		"Password":    testPassword,
		"Damaged":     testDamaged,
		"Dropped":     testDropped,
		"Notified":    testNotified,
		"Mark":        testMark,
		"Counts":      testCounts,
		"Closed":      testClosed,
		"CloseCommit": testCloseFinishesCommits,
	} {
		t.Run(name, func(t *testing.T) {
			test(t, s, Options{URL: s.NewDatabase(t), PasswordFile: s.PasswordFile()})
		})
	}
}

// nextStep is what a coming version might do.
var nextStep = migration{oldest: 1, sql: `
	ALTER TABLE maf.client ADD COLUMN label text NOT NULL DEFAULT '';
	ALTER TABLE maf.kc ADD COLUMN issued_by text;
	CREATE TABLE maf.label (name text PRIMARY KEY);`}

// A program goes on while a newer one changes the schema under it, and can be
// started again.
func testUpgrade(t *testing.T, _ *pgtest.Server, o Options) {
	ctx := context.Background()
	old := openTest(t, o)
	newer := slices.Concat(migrations, []migration{nextStep})
	work := func(when string, db *DB, n int) {
		t.Helper()
		c, k := testClient(n), testKey()
		if err := errors.Join(db.Clients().Add(ctx, c), db.Keys().Commit(ctx, k), db.Clients().Update(ctx, c), db.Keys().Revoke(ctx, k.ID)); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		if got, err := db.Clients().Get(ctx, c.KmID); err != nil || got.Version != 2 {
			t.Errorf("%s: %+v, %v", when, got, err)
		}
	}
	work("before", old, 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			for {
				if err := old.Keys().Commit(ctx, testKey()); err != nil {
					t.Errorf("under way: %v", err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	upgraded := openSteps(t, o, newer)
	close(stop)
	wg.Wait()
	work("the new one", upgraded, 2)
	work("the old one beside it", old, 3)
	old.pool.Reset() // new connections look at the version again
	work("the old one with new connections", old, 4)
	work("the old one started again", openTest(t, o), 5)
	page, err := upgraded.Clients().List(ctx, onem2m.KmID{}, 0)
	if err != nil || len(page) != 5 {
		t.Errorf("%d clients, %v", len(page), err)
	}
}

// A program that a schema has become too new for says so, when it starts and when
// it connects anew.
func testTooNew(t *testing.T, s *pgtest.Server, o Options) {
	old := openTest(t, o)
	newer := slices.Concat(migrations, []migration{nextStep, {oldest: 2, sql: "ALTER TABLE maf.client DROP COLUMN lifetime"}})
	openSteps(t, o, newer)
	if db, err := Open(context.Background(), o); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v, %v", db, err)
	}
	old.pool.Reset()
	if _, err := old.Clients().Get(context.Background(), testClient(1).KmID); !errors.Is(err, ErrNewer) {
		t.Errorf("a new connection: %v", err)
	}
	// A step must leave the version before a time to be replaced in.
	hasty := Options{URL: s.NewDatabase(t), PasswordFile: o.PasswordFile}
	openTest(t, hasty)
	if db, err := open(context.Background(), hasty, slices.Concat(migrations, []migration{{oldest: 2}})); err == nil {
		db.Close()
		t.Error("a step that cuts off the version before it was taken")
	}
}

// Nodes that start at the same time for the first time don't collide.
func testStarts(t *testing.T, _ *pgtest.Server, o Options) {
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			db, err := Open(context.Background(), o)
			if err != nil {
				t.Error(err)
				return
			}
			if err := db.Keys().Commit(context.Background(), testKey()); err != nil {
				t.Error(err)
			}
			db.Close()
		})
	}
	wg.Wait()
}

func testForeign(t *testing.T, s *pgtest.Server, o Options) {
	s.Exec(t, o.URL, "CREATE SCHEMA maf; CREATE TABLE maf.recipes (name text)")
	if db, err := Open(context.Background(), o); !errors.Is(err, ErrForeign) {
		t.Errorf("%v, %v", db, err)
	}
	s.Exec(t, o.URL, "DROP TABLE maf.recipes") // an empty schema may have been made for us
	openTest(t, o)
}

// When the schema is up to date, a role that may not change it is enough.
func testFewRights(t *testing.T, s *pgtest.Server, o Options) {
	openTest(t, o)
	s.Exec(t, o.URL, `CREATE ROLE weak LOGIN PASSWORD 'weak';
		GRANT USAGE ON SCHEMA maf TO weak;
		GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA maf TO weak`)
	o.URL = strings.Replace(o.URL, "user=mafd", "user=weak", 1)
	o.PasswordFile = filepath.Join(t.TempDir(), "weak")
	if err := os.WriteFile(o.PasswordFile, []byte("weak\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db := openTest(t, o)
	ctx, c, k := context.Background(), testClient(1), testKey()
	_, _, purge := db.Keys().Purge(ctx, time.Now())
	if err := errors.Join(db.Clients().Add(ctx, c), db.Keys().Commit(ctx, k), db.Keys().Revoke(ctx, k.ID),
		db.Clients().Remove(ctx, c.KmID, c.UID), purge); err != nil {
		t.Error(err)
	}
}

// A setting that loses confirmed changes is overruled where that is possible.
func testUnsafe(t *testing.T, s *pgtest.Server, o Options) {
	name := o.URL[strings.Index(o.URL, "///")+3 : strings.Index(o.URL, "?")]
	s.Exec(t, o.URL, "ALTER DATABASE "+name+" SET synchronous_commit = off; ALTER ROLE mafd SET synchronous_commit = off")
	defer s.Exec(t, o.URL, "ALTER ROLE mafd RESET synchronous_commit")
	openTest(t, o)

	lax := pgtest.Start(t, "fsync=off")
	o = Options{URL: lax.NewDatabase(t), PasswordFile: lax.PasswordFile()}
	if db, err := Open(context.Background(), o); !errors.Is(err, ErrUnsafe) || !strings.Contains(err.Error(), "fsync=off") {
		t.Errorf("%v, %v", db, err)
	}
}

// A wrong password, or one that others may read, is said to be that; and no error
// says what it is.
func testPassword(t *testing.T, _ *pgtest.Server, o Options) {
	const secret = "correct-horse"
	wrong := filepath.Join(t.TempDir(), "wrong")
	if err := os.WriteFile(wrong, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(context.Background(), Options{URL: o.URL, PasswordFile: wrong})
	if err == nil || !strings.Contains(err.Error(), "password authentication failed") || strings.Contains(err.Error(), secret) {
		t.Errorf("a wrong password: %v", err)
	}
	if err := os.Chmod(wrong, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), Options{URL: o.URL, PasswordFile: wrong})
	if !errors.Is(err, ErrPassword) || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("an open file: %v", err)
	}
	for _, address := range []string{
		"postgres://mafd:" + secret + "@localhost/maf",
		"postgres:///maf?password=" + secret,
		"postgres://mafd:" + secret + "@local host/maf",
		"host=localhost password=" + secret,
		"mysql://mafd:" + secret + "@localhost/maf",
	} {
		if _, err := Open(context.Background(), Options{URL: address}); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// A row that makes no sense hurts nobody but its own client.
func testDamaged(t *testing.T, s *pgtest.Server, o Options) {
	ctx := context.Background()
	db := openTest(t, o)
	for n := range 10 {
		if err := db.Clients().Add(ctx, testClient(n)); err != nil {
			t.Fatal(err)
		}
	}
	s.Exec(t, o.URL, "UPDATE maf.client SET id_b = 'no CSE-ID' WHERE km_id = '"+testClient(4).KmID.String()+"'")
	var wg sync.WaitGroup
	for n := range 10 {
		wg.Go(func() {
			_, err := db.Clients().Get(ctx, testClient(n).KmID)
			if n == 4 && (err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), testClient(4).KmID.String())) {
				t.Errorf("the damaged row: %v", err)
			} else if n != 4 && err != nil {
				t.Errorf("another row: %v", err)
			}
		})
	}
	wg.Wait()
	if page, err := db.Clients().List(ctx, store.Client{}.KmID, 0); len(page) != 9 || err == nil {
		t.Errorf("the page with it: %d clients, %v", len(page), err)
	}
	if err := db.Clients().Remove(ctx, testClient(4).KmID, 0); err != nil {
		t.Errorf("it can't be removed: %v", err)
	}
}

// The log keeps the newest lines, and tells a reader who is too far behind.
func testDropped(t *testing.T, s *pgtest.Server, o Options) {
	ctx := context.Background()
	db := openTest(t, o)
	const before = 1000
	const last = before + store.KeepRevocations
	s.Exec(t, o.URL, fmt.Sprintf(`UPDATE maf.position SET last = %d;
		INSERT INTO maf.revocation SELECT n, '//sp.example.com/in-cse', 'a@maf.example.com', '' FROM generate_series(%d, %d) AS n`, last, before, last))
	k := testKey()
	if err := errors.Join(db.Keys().Commit(ctx, k), db.Keys().Revoke(ctx, k.ID)); err != nil {
		t.Fatal(err)
	}
	for _, after := range []int64{0, before, last + 2} {
		if _, err := db.Keys().Revocations(ctx, after, 10); !errors.Is(err, store.ErrGone) {
			t.Errorf("after %d: %v", after, err)
		}
	}
	if page, err := db.Keys().Revocations(ctx, before+1, 1); err != nil || len(page) != 1 || page[0].Seq != before+2 {
		t.Errorf("the oldest: %v, %v", page, err)
	}
	if page, err := db.Keys().Revocations(ctx, last, 0); err != nil || len(page) != 1 || page[0].KcID != k.ID {
		t.Errorf("the newest: %v, %v", page, err)
	}
	s.Exec(t, o.URL, "DELETE FROM maf.revocation") // nobody does; the position stays all the same
	if page, err := db.Keys().Revocations(ctx, last+1, 0); err != nil || len(page) != 0 {
		t.Errorf("from the end of an emptied log: %v, %v", page, err)
	}
	if _, err := db.Keys().Revocations(ctx, 0, 0); !errors.Is(err, store.ErrGone) {
		t.Errorf("from the begin of an emptied log: %v", err)
	}
}

// What one node revokes, the others are told without asking.
func testNotified(t *testing.T, _ *pgtest.Server, o Options) {
	ctx := context.Background()
	writer := openTest(t, o)
	reader := openTest(t, o)
	await := func(what string) {
		t.Helper()
		select {
		case <-reader.Revoked():
		case <-time.After(time.Minute):
			t.Fatalf("%s: nobody was told", what)
		}
	}
	await("at first")
	for n := range int64(5) {
		k := testKey()
		if err := errors.Join(writer.Keys().Commit(ctx, k), writer.Keys().Revoke(ctx, k.ID)); err != nil {
			t.Fatal(err)
		}
		await("revoked")
		if last, err := reader.Keys().LastRevocation(ctx); err != nil || last != n+1 {
			t.Errorf("who was told finds %d, want %d (%v)", last, n+1, err)
		}
	}
}

func testMark(t *testing.T, _ *pgtest.Server, o Options) {
	ctx := context.Background()
	db := openTest(t, o)
	if box, err := db.KeysetMark(ctx); err != nil || box != nil {
		t.Errorf("at first: %q, %v", box, err)
	}
	for _, c := range []struct{ old, box, want string }{
		{"", "first", "first"}, {"", "late", "first"}, {"first", "second", "second"}, {"first", "late", "second"},
	} {
		var old []byte
		if c.old != "" {
			old = []byte(c.old)
		}
		if got, err := db.MarkKeyset(ctx, old, []byte(c.box)); err != nil || string(got) != c.want {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
	if box, err := db.KeysetMark(ctx); err != nil || string(box) != "second" {
		t.Errorf("then: %q, %v", box, err)
	}
}

// The store tells how much it holds, and of each of its writes.
func testCounts(t *testing.T, _ *pgtest.Server, o Options) {
	ctx := context.Background()
	var told atomic.Int64
	o.OnTransaction = func(changes int, took time.Duration, err error) {
		if changes != 1 || took < 0 || err != nil {
			t.Errorf("a transaction of %d changes in %v ended with %v", changes, took, err)
		}
		told.Add(1)
	}
	db := openTest(t, o)
	for range 3 {
		if err := db.Keys().Commit(ctx, testKey()); err != nil {
			t.Fatal(err)
		}
	}
	c := testClient(1)
	if err := errors.Join(db.Clients().Add(ctx, c), db.Clients().Update(ctx, c)); err != nil {
		t.Fatal(err)
	}
	if err := db.Clients().Update(ctx, c); !errors.Is(err, store.ErrConflict) {
		t.Error(err)
	}
	if clients, keys, err := db.Counts(ctx); clients != 1 || keys != 3 || err != nil {
		t.Errorf("%d clients and %d keys, %v; want 1 and 3", clients, keys, err)
	}
	if told.Load() != 5 {
		t.Errorf("told of %d transactions, want 5", told.Load())
	}
}

func testClosed(t *testing.T, _ *pgtest.Server, o Options) {
	ctx := context.Background()
	db := openTest(t, o)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := db.Keys().Commit(ctx, testKey()); !errors.Is(err, ErrClosed) {
		t.Errorf("Commit: %v", err)
	}
	if _, err := db.Clients().Get(ctx, testClient(0).KmID); !errors.Is(err, ErrClosed) {
		t.Errorf("Get: %v", err)
	}
	if _, err := db.Keys().LastRevocation(ctx); err == nil {
		t.Error("LastRevocation of a closed store works")
	}
}

// Close does what it found waiting: who was not refused finds its key again.
func testCloseFinishesCommits(t *testing.T, _ *pgtest.Server, o Options) {
	o.CommitInterval = time.Hour
	db := openTest(t, o)
	keys := make([]store.Key, 200)
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	for i := range keys {
		keys[i] = testKey()
		wg.Go(func() { errs[i] = db.Keys().Commit(context.Background(), keys[i]) })
	}
	db.Close()
	wg.Wait()
	db = openTest(t, o)
	for i, k := range keys {
		_, err := db.Keys().Get(context.Background(), k.ID)
		if errs[i] == nil && err != nil {
			t.Errorf("an acknowledged key: %v", err)
		} else if errs[i] != nil && (!errors.Is(errs[i], ErrClosed) || !errors.Is(err, store.ErrNotFound)) {
			t.Errorf("Commit: %v; Get: %v", errs[i], err)
		}
	}
}

// Who may be in between decides whether TLS is asked for.
func TestCheckURL(t *testing.T) {
	t.Setenv("PGSSLMODE", "")
	t.Setenv("PGHOST", "")
	for address, want := range map[string]string{
		"postgres://mafd@db.example.com/maf":                        "postgres://mafd@db.example.com/maf?pool_max_conns=8&sslmode=verify-full",
		"postgresql://a.example:1,b.example:2/maf?pool_max_conns=3": "postgresql://a.example:1,b.example:2/maf?pool_max_conns=3&sslmode=verify-full",
		"postgres://mafd@db.example.com/maf?sslmode=require":        "postgres://mafd@db.example.com/maf?pool_max_conns=8&sslmode=require",
		"postgres://127.0.0.1:5432/maf":                             "postgres://127.0.0.1:5432/maf?pool_max_conns=8",
		"postgres://[::1]/maf":                                      "postgres://[::1]/maf?pool_max_conns=8",
		"postgres:///maf":                                           "postgres:///maf?pool_max_conns=8",
		"postgres:///maf?host=/run/postgresql":                      "postgres:///maf?host=%2Frun%2Fpostgresql&pool_max_conns=8",
		"postgres:///maf?host=db.example.com":                       "postgres:///maf?host=db.example.com&pool_max_conns=8&sslmode=verify-full",
	} {
		if got, err := complete(address); err != nil || got != want {
			t.Errorf("%s: got  %s (%v)\nwant %s", address, got, err, want)
		}
	}
}
