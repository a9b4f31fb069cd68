package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// RunShared runs the contracts of a store that several processes share: each test
// has it open twice. create is as for Run.
func RunShared(t *testing.T, create func(t *testing.T) (open func() (Store, error))) {
	for name, test := range map[string]func(*testing.T, nodes){
		"ReadNewest":     testSharedReadNewest,
		"Change":         testSharedChange,
		"ClientAddRace":  testSharedAddRace,
		"KeyCommitRace":  testSharedCommitRace,
		"RevocationRace": testSharedRevocationRace,
		"Follow":         testSharedFollow,
		"Removal":        testSharedRemoval,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			open := create(t)
			var n nodes
			for i := range n {
				n[i] = &place{t: t, open: open}
				t.Cleanup(n[i].close)
			}
			// They start at the same time, also for the first time.
			var wg sync.WaitGroup
			for _, p := range n {
				wg.Go(func() {
					s, err := open()
					if err != nil {
						t.Errorf("opening: %v", err)
						return
					}
					p.Store = s
				})
			}
			wg.Wait()
			if t.Failed() {
				return
			}
			test(t, n)
		})
	}
}

// nodes have the same place.
type nodes [2]*place

// What one node did, the other one's next call sees, whatever it saw before.
func testSharedReadNewest(t *testing.T, n nodes) {
	ctx := context.Background()
	c := client(1)
	must(t, n[0].Clients().Add(ctx, c))
	for i := range 40 {
		writer, reader := n[i%2], n[(i+1)%2]
		reader.wantClient("before", c)
		c.Disabled = !c.Disabled
		must(t, writer.Clients().Update(ctx, c))
		c.Version++
		reader.wantClient("changed elsewhere", c)

		must(t, writer.Keys().Commit(ctx, key(i)))
		reader.wantKey("committed elsewhere", key(i))
		must(t, writer.Keys().Revoke(ctx, kcID(i)))
		reader.wantNoKey("revoked elsewhere", kcID(i))
	}
	must(t, n[0].Clients().Remove(ctx, c.KmID, c.UID))
	n[1].wantNoClient("removed elsewhere", c.KmID)
	c.UID, c.Version = 4711, 1
	must(t, n[1].Clients().Add(ctx, c))
	n[0].wantClient("added anew elsewhere", c)
}

// A change that rests on what the other node has replaced is refused.
func testSharedChange(t *testing.T, n nodes) {
	ctx := context.Background()
	c := client(1)
	must(t, n[0].Clients().Add(ctx, c))
	wantError(t, "Add elsewhere", n[1].Clients().Add(ctx, client(1)), store.ErrExists)
	next := c
	next.Lifetime = time.Minute
	must(t, n[1].Clients().Update(ctx, next))
	wantError(t, "Update of the old", n[0].Clients().Update(ctx, c), store.ErrConflict)
	var done atomic.Int64
	var wg sync.WaitGroup
	for _, p := range n {
		wg.Go(func() {
			for range 40 {
				c, err := p.Clients().Get(ctx, kmID(1))
				if err != nil {
					t.Error(err)
					return
				}
				c.Lifetime += time.Second
				switch err := p.Clients().Update(ctx, c); {
				case err == nil:
					done.Add(1)
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	next.Version = 2 + done.Load()
	next.Lifetime += time.Duration(done.Load()) * time.Second
	for _, p := range n {
		p.wantClient("at last", next)
	}
	if done.Load() < 40 {
		t.Errorf("only %d updates succeeded", done.Load())
	}
}

// one runs f on both nodes at the same time, several times on each, and demands
// that one call succeeds and the others get the error.
func (n nodes) one(what string, want error, f func(p *place) error) {
	n[0].t.Helper()
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			switch err := f(n[i%2]); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, want):
				n[0].t.Errorf("%s: %v", what, err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		n[0].t.Errorf("%s: %d succeeded", what, won.Load())
	}
}

func testSharedAddRace(t *testing.T, n nodes) {
	for i := range 10 {
		n.one("Add", store.ErrExists, func(p *place) error { return p.Clients().Add(context.Background(), client(i)) })
		n[i%2].wantClient("after the race", client(i))
	}
}

// Also of keys that come in the company of others, which are not to suffer.
func testSharedCommitRace(t *testing.T, n nodes) {
	const rounds, others = 10, 4
	var wg sync.WaitGroup
	for i, p := range n {
		for o := range others {
			wg.Go(func() {
				for round := range 5 * rounds {
					k := key(1000 + 1000*i + 100*o + round)
					if err := p.Keys().Commit(context.Background(), k); err != nil {
						t.Errorf("an innocent key: %v", err)
					}
				}
			})
		}
	}
	for round := range rounds {
		n.one("Commit", store.ErrExists, func(p *place) error { return p.Keys().Commit(context.Background(), key(round)) })
		n[round%2].wantKey("after the race", key(round))
	}
	wg.Wait()
}

func testSharedRevocationRace(t *testing.T, n nodes) {
	const count = 20
	for i := range count {
		must(t, n[0].Keys().Commit(context.Background(), key(i)))
	}
	for i := range count {
		n.one("Revoke", store.ErrNotFound, func(p *place) error { return p.Keys().Revoke(context.Background(), kcID(i)) })
	}
	for _, p := range n {
		log, err := p.Keys().Revocations(context.Background(), 0, 0)
		must(t, err)
		if len(log) != count {
			t.Errorf("%d lines, want %d", len(log), count)
		}
	}
}

// Both nodes write to the log at once; who follows it on either sees every line
// once, in order, and each as soon as its writer had the answer.
func testSharedFollow(t *testing.T, n nodes) {
	ctx := context.Background()
	const each = 40
	for i := range 2 * each {
		must(t, n[0].Keys().Commit(ctx, key(i)))
	}
	var written atomic.Int64
	var writers, readers sync.WaitGroup
	for w, p := range n {
		writers.Go(func() {
			for i := range each {
				if err := p.Keys().Revoke(ctx, kcID(w*each+i)); err != nil {
					t.Error(err)
				}
				written.Add(1)
			}
		})
	}
	for _, p := range n {
		readers.Go(func() {
			seen := make(map[onem2m.KcID]bool)
			for after := int64(0); after < 2*each && !t.Failed(); {
				atLeast := written.Load()
				page, err := p.Keys().Revocations(ctx, after, 0)
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range page {
					if after++; r.Seq != after || seen[r.KcID] {
						t.Errorf("line %d follows %d: %v", r.Seq, after-1, r.KcID)
					}
					seen[r.KcID] = true
				}
				if after < atLeast {
					t.Errorf("only %d of %d lines are seen", after, atLeast)
				}
			}
		})
	}
	writers.Wait()
	readers.Wait()
}

// Both nodes purge, and remove the same client's keys, at the same time.
func testSharedRemoval(t *testing.T, n nodes) {
	const count = 2600 // key i expires at epoch + i seconds, and is of client i mod 3
	commitAll(t, n[0], 0, count)
	var removed atomic.Int64
	var wg sync.WaitGroup
	for _, p := range n {
		wg.Go(func() {
			got, err := p.Keys().RemoveByClient(context.Background(), kmID(1), 1)
			if err != nil {
				t.Error(err)
			}
			removed.Add(int64(got))
		})
		wg.Go(func() {
			for {
				got, done, err := p.Keys().Purge(context.Background(), epoch.Add(1999*time.Second))
				removed.Add(int64(got))
				if err != nil {
					t.Error(err)
				}
				if done || err != nil {
					break
				}
			}
			// This node's round is over.
			for i := 0; i < 2000; i += 97 {
				p.wantNoKey("purged", kcID(i))
			}
		})
	}
	wg.Wait()
	left := 0
	for i := range count {
		if i < 2000 || i%3 == 1 {
			n[i%2].wantNoKey(fmt.Sprint("key ", i), kcID(i))
			continue
		}
		n[i%2].wantKey(fmt.Sprint("key ", i), key(i))
		left++
	}
	if got := removed.Load(); got != int64(count-left) {
		t.Errorf("%d keys are said to be removed, of %d that were", got, count-left)
	}
}
