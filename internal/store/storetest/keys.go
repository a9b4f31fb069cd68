package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
)

func testKeyCommit(t *testing.T, p *place) {
	ctx := context.Background()
	given := key(2)
	given.Expires = given.Expires.Add(999 * time.Millisecond).In(time.FixedZone("elsewhere", 3600))
	must(t, p.Keys().Commit(ctx, key(1)))
	must(t, p.Keys().Commit(ctx, given))
	elsewhere := kcID(1)
	elsewhere.FQDN = "other.example.com"
	p.nowAndReopened(func(when string) {
		p.wantKey(when, key(1))
		p.wantKey(when, key(2))
		p.wantNoKey(when, kcID(3))
		p.wantNoKey(when, elsewhere)
	})
	astray := key(4)
	astray.KmID.FQDN = "other.example.com"
	if err := p.Keys().Commit(ctx, astray); err == nil {
		t.Error("a key of another MAF than its client's was stored")
	}
	p.wantNoKey("refused", astray.ID)
}

func testKeyExists(t *testing.T, p *place) {
	ctx := context.Background()
	first := key(1)
	must(t, p.Keys().Commit(ctx, first))
	same, elsewhere := key(2), key(2)
	same.ID, elsewhere.ID = first.ID, first.ID
	elsewhere.ID.FQDN, elsewhere.KmID.FQDN = "other.example.com", "other.example.com"
	p.nowAndReopened(func(when string) {
		wantError(t, when+": the same ID", p.Keys().Commit(ctx, same), store.ErrExists)
		wantError(t, when+": the same relative ID", p.Keys().Commit(ctx, elsewhere), store.ErrExists)
		p.wantKey(when, first)
		p.wantNoKey(when, elsewhere.ID)
	})
}

func testKeyCommitRace(t *testing.T, p *place) {
	for round := range 5 {
		var won atomic.Int32
		var winner store.Key
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				k := key(i)
				k.ID = kcID(1000 + round)
				switch err := p.Keys().Commit(context.Background(), k); {
				case err == nil:
					won.Add(1)
					winner = k
				case !errors.Is(err, store.ErrExists):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d Commits of one ID succeeded", won.Load())
		}
		p.nowAndReopened(func(when string) { p.wantKey(when, winner) })
	}
}

// Numbers of keys that fill no round number of whatever the store groups by.
func testKeyManyCommits(t *testing.T, p *place) {
	const n = 1301
	commitAll(t, p, 0, n)
	p.nowAndReopened(func(when string) {
		for i := range n {
			p.wantKey(when, key(i))
		}
	})
	commitAll(t, p, n, n+10) // the store goes on after those it found
	p.nowAndReopened(func(when string) {
		for i := range n + 10 {
			p.wantKey(when, key(i))
		}
	})
}

// commitAll commits keys from..to-1, many at a time, and reads each back as soon
// as its Commit returned.
func commitAll(t *testing.T, p *place, from, to int) {
	t.Helper()
	var next atomic.Int64
	next.Store(int64(from))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < to; i = int(next.Add(1)) - 1 {
				if err := p.Keys().Commit(context.Background(), key(i)); err != nil {
					t.Errorf("Commit: %v", err)
					return
				}
				p.wantKey("after its Commit", key(i))
			}
		})
	}
	wg.Wait()
}

// purge goes one round.
func (p *place) purge(now time.Time) (removed int) {
	p.t.Helper()
	for range 100_000 {
		n, done, err := p.Keys().Purge(context.Background(), now)
		must(p.t, err)
		removed += n
		if done {
			return removed
		}
	}
	p.t.Fatal("the round does not end")
	return 0
}

func testKeyPurge(t *testing.T, p *place) {
	if n := p.purge(epoch); n != 0 {
		t.Errorf("purged %d keys from an empty store", n)
	}
	const n = 1300
	commitAll(t, p, 0, n) // key i expires at epoch + i seconds
	check := func(gone int) {
		t.Helper()
		p.nowAndReopened(func(when string) {
			for i := range n {
				if i < gone {
					p.wantNoKey(when, kcID(i))
				} else {
					p.wantKey(when, key(i))
				}
			}
		})
	}
	for _, step := range []struct{ second, removed int }{
		{-1, 0}, {0, 1}, {0, 0}, {1099, 1099}, {1100, 1},
	} {
		if got := p.purge(epoch.Add(time.Duration(step.second) * time.Second)); got != step.removed {
			t.Errorf("second %d: purged %d keys, want %d", step.second, got, step.removed)
		}
	}
	check(1101)
	must(t, p.Keys().Commit(context.Background(), key(7))) // its ID is free again
	p.wantKey("committed again", key(7))
	if got := p.purge(epoch.Add(7 * time.Second)); got != 1 {
		t.Errorf("purged %d keys, want the one that came back", got)
	}
	check(1101)
	if got := p.purge(epoch.Add(24 * time.Hour)); got != n-1101 {
		t.Errorf("purged %d keys, want all %d", got, n-1101)
	}
	check(n)
}

// Purging takes no key that lives, and keeps none that was dead before it began,
// while others commit.
func testKeyPurgeUnderLoad(t *testing.T, p *place) {
	commitAll(t, p, 0, 1100)
	now := epoch.Add(1099 * time.Second)
	var wg sync.WaitGroup
	wg.Go(func() { commitAll(t, p, 1100, 2500) })
	removed := p.purge(now)
	wg.Wait()
	if removed != 1100 {
		t.Errorf("purged %d keys, want 1100", removed)
	}
	p.nowAndReopened(func(when string) {
		for i := range 2500 {
			if i < 1100 {
				p.wantNoKey(when, kcID(i))
			} else {
				p.wantKey(when, key(i))
			}
		}
	})
}

func testKeyRemoveByClient(t *testing.T, p *place) {
	ctx := context.Background()
	const n = 1260
	commitAll(t, p, 0, n) // key i is of client i mod 3
	old := key(n + 1)
	old.KmID, old.UID = kmID(1), 99 // an earlier registration of client 1
	must(t, p.Keys().Commit(ctx, old))
	for _, step := range []struct {
		client  int
		uid     store.UID
		removed int
	}{{1, 1, n / 3}, {1, 1, 0}, {1, 2, 0}, {5, 1, 0}} {
		got, err := p.Keys().RemoveByClient(ctx, kmID(step.client), step.uid)
		must(t, err)
		if got != step.removed {
			t.Errorf("client %d, UID %d: removed %d keys, want %d", step.client, step.uid, got, step.removed)
		}
	}
	p.nowAndReopened(func(when string) {
		for i := range n {
			if i%3 == 1 {
				p.wantNoKey(when, kcID(i))
			} else {
				p.wantKey(when, key(i))
			}
		}
		p.wantKey(when, old)
	})
	// What was removed is not missed by the purge.
	if got := p.purge(epoch.Add(24 * time.Hour)); got != n-n/3+1 {
		t.Errorf("purged %d keys, want %d", got, n-n/3+1)
	}
}
