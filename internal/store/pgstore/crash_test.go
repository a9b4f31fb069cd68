package pgstore

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/pgtest"
	"github.com/onem2m-maf/maf/onem2m"
)

// TestKilled kills PostgreSQL under load, again and again, and then finds all that
// was acknowledged. The store that was open all the time goes on by itself, and
// while it can't read it never says that there is nothing.
func TestKilled(t *testing.T) {
	kills := 5
	if testing.Short() {
		kills = 2
	}
	server := pgtest.Start(t)
	log := &records{}
	db := openTest(t, Options{
		URL: server.NewDatabase(t), PasswordFile: server.PasswordFile(), CommitInterval: time.Millisecond,
		Log: slog.New(log),
	})
	l := &load{t: t, db: db}
	steady := testClient(0)
	if err := db.Clients().Add(t.Context(), steady); err != nil {
		t.Fatal(err)
	}
	for i := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { l.commits(ctx) })
		}
		wg.Go(func() { l.updates(ctx, steady.KmID) })
		l.await(len(l.acknowledged()) + 200)
		end := server.Kill
		if i%2 == 1 {
			end = server.Stop
		}
		end()
		l.wantFailure(steady)
		server.Run(t)
		l.await(len(l.acknowledged()) + 200) // by itself
		cancel()
		wg.Wait()
		l.verify()
	}
	if l.failures.Load() == 0 {
		t.Error("no commit failed: there was no load when PostgreSQL was killed")
	}
	select {
	case <-db.Revoked():
	case <-time.After(time.Minute):
		t.Error("followers of the log are not told to look")
	}
	log.want(t, "the connection to PostgreSQL is lost; what needs the store fails until it is back")
	log.want(t, "the connection to PostgreSQL is back")
}

// A load is changes, and a record of those that were acknowledged.
type load struct {
	t        *testing.T
	db       *DB
	failures atomic.Int64

	mu      sync.Mutex
	keys    []store.Key // guarded by mu
	version int64       // of the client that is updated; guarded by mu
}

// commits commits keys until ctx ends.
func (l *load) commits(ctx context.Context) {
	for ctx.Err() == nil {
		k := testKey()
		if err := l.db.Keys().Commit(context.Background(), k); err != nil {
			l.failed(err)
			continue
		}
		l.mu.Lock()
		l.keys = append(l.keys, k)
		l.mu.Unlock()
	}
}

// failed counts a failure, which must be one: to a caller, errors of package store
// are answers.
func (l *load) failed(err error) {
	l.failures.Add(1)
	for _, answer := range []error{store.ErrExists, store.ErrNotFound, store.ErrConflict, store.ErrGone} {
		if errors.Is(err, answer) {
			l.t.Errorf("a failure that looks like an answer: %v", err)
		}
	}
	time.Sleep(time.Millisecond)
}

// updates changes one client until ctx ends. Whether an update that failed was made
// is seen in the next read.
func (l *load) updates(ctx context.Context, id onem2m.KmID) {
	for ctx.Err() == nil {
		c, err := l.db.Clients().Get(context.Background(), id)
		if err != nil {
			l.failed(err)
			continue
		}
		l.mu.Lock()
		if c.Version < l.version {
			l.t.Errorf("version %d of the client is there, and %d was acknowledged", c.Version, l.version)
		}
		l.mu.Unlock()
		c.Disabled = !c.Disabled
		if err := l.db.Clients().Update(context.Background(), c); err != nil {
			l.failed(err)
			continue
		}
		l.mu.Lock()
		l.version = c.Version + 1
		l.mu.Unlock()
	}
}

func (l *load) acknowledged() []store.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.keys[:len(l.keys):len(l.keys)]
}

// await waits for so many acknowledged keys.
func (l *load) await(n int) {
	l.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); len(l.acknowledged()) < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("%d keys were committed, want %d; %d failures", len(l.acknowledged()), n, l.failures.Load())
		}
	}
}

// wantFailure asks for what is there, of a server that is not.
func (l *load) wantFailure(c store.Client) {
	l.t.Helper()
	ctx := context.Background()
	one := l.acknowledged()[0]
	_, getClient := l.db.Clients().Get(ctx, c.KmID)
	_, getKey := l.db.Keys().Get(ctx, one.ID)
	_, list := l.db.Clients().List(ctx, c.KmID, 1)
	_, log := l.db.Keys().Revocations(ctx, 0, 1)
	_, last := l.db.Keys().LastRevocation(ctx)
	_, done, purge := l.db.Keys().Purge(ctx, time.Now())
	_, remove := l.db.Keys().RemoveByClient(ctx, c.KmID, c.UID)
	for what, err := range map[string]error{
		"Get": getClient, "Keys.Get": getKey, "List": list, "Revocations": log, "LastRevocation": last, "Purge": purge,
		"RemoveByClient": remove, "Revoke": l.db.Keys().Revoke(ctx, one.ID), "Commit": l.db.Keys().Commit(ctx, one),
		"Add": l.db.Clients().Add(ctx, c), "Update": l.db.Clients().Update(ctx, c), "Remove": l.db.Clients().Remove(ctx, c.KmID, c.UID),
	} {
		if err == nil {
			l.t.Errorf("%s works without a server", what)
			continue
		}
		l.failed(err)
	}
	if done {
		l.t.Error("Purge ended a round without a server")
	}
}

// verify finds all that was acknowledged.
func (l *load) verify() {
	l.t.Helper()
	for _, want := range l.acknowledged() {
		got, err := l.db.Keys().Get(l.t.Context(), want.ID)
		if err != nil || !reflect.DeepEqual(got, want) {
			l.t.Fatalf("an acknowledged key: %+v, %v", got, err)
		}
	}
}

// records is a log that remembers what was said.
type records struct {
	mu   sync.Mutex
	said map[string]int // guarded by mu
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(_ context.Context, one slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.said == nil {
		r.said = make(map[string]int)
	}
	r.said[one.Message]++
	return nil
}

// want waits until a line is there.
func (r *records) want(t *testing.T, message string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		n := r.said[message]
		r.mu.Unlock()
		if n > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the log does not say %q: %v", message, r.said)
		}
	}
}
