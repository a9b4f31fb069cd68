package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

func testClientAdd(t *testing.T, p *place) {
	ctx := context.Background()
	full, bare, given := client(1), client(2), client(3)
	full.Disabled = true
	bare.AEID, bare.CSEID = onem2m.AEID{}, onem2m.CSEID{SP: "sp.example.com", ID: "mn-cse"}
	given.AEID = onem2m.AEID{}
	stored := given
	// What comes in may be finer than what is kept, and its Version is ignored.
	given.Version = 77
	given.Lifetime += 999 * time.Millisecond
	given.Created = given.Created.Add(999 * time.Millisecond)
	given.Updated = given.Updated.In(time.FixedZone("elsewhere", 3600))
	for _, c := range []store.Client{full, bare, given} {
		must(t, p.Clients().Add(ctx, c))
	}
	other := client(1)
	other.IdB.ID, other.UID = "other-cse", 4711
	wantError(t, "second Add", p.Clients().Add(ctx, other), store.ErrExists)
	p.nowAndReopened(func(when string) {
		p.wantClient(when, full)
		p.wantClient(when, bare)
		p.wantClient(when, stored)
		p.wantNoClient(when, kmID(4))
		p.wantNoClient(when, onem2m.KmID{Relative: kmID(1).Relative, FQDN: "other.example.com"})
	})
}

func testClientUpdate(t *testing.T, p *place) {
	ctx := context.Background()
	before := client(1)
	must(t, p.Clients().Add(ctx, before))
	must(t, p.Clients().Add(ctx, client(2)))
	p.wantClient("before", before) // also puts it into whatever cache there is

	next := before
	next.IdB.ID, next.AEID, next.CSEID = "other-cse", onem2m.AEID{}, onem2m.CSEID{SP: "sp.example.com", ID: "mn"}
	next.Disabled, next.Lifetime, next.Updated = true, time.Minute, epoch.Add(time.Hour)
	next.SealedKm = []byte("another box")
	given := next
	given.Created = epoch.Add(-time.Hour) // must not count
	must(t, p.Clients().Update(ctx, given))
	next.Version = 2

	stale, foreign, none := next, next, next
	stale.Version, stale.Disabled = 1, false
	foreign.UID++
	none.KmID = kmID(3)
	wantError(t, "stale version", p.Clients().Update(ctx, stale), store.ErrConflict)
	wantError(t, "another registration", p.Clients().Update(ctx, foreign), store.ErrConflict)
	wantError(t, "no such client", p.Clients().Update(ctx, none), store.ErrNotFound)
	p.nowAndReopened(func(when string) {
		p.wantClient(when, next)
		p.wantClient(when, client(2))
		p.wantNoClient(when, kmID(3))
	})
}

func testClientRemove(t *testing.T, p *place) {
	ctx := context.Background()
	c := client(1)
	must(t, p.Clients().Add(ctx, c))
	must(t, p.Clients().Add(ctx, client(2)))
	p.wantClient("before", c)
	wantError(t, "another registration", p.Clients().Remove(ctx, c.KmID, c.UID+1), store.ErrConflict)
	wantError(t, "no such client", p.Clients().Remove(ctx, kmID(3), c.UID), store.ErrNotFound)
	p.wantClient("refused", c)
	must(t, p.Clients().Remove(ctx, c.KmID, c.UID))
	wantError(t, "again", p.Clients().Remove(ctx, c.KmID, c.UID), store.ErrNotFound)
	p.nowAndReopened(func(when string) {
		p.wantNoClient(when, c.KmID)
		p.wantClient(when, client(2))
	})
	// The same KmID registered anew is a new client.
	again := c
	again.UID = 4711
	must(t, p.Clients().Add(ctx, again))
	wantError(t, "Update of the old", p.Clients().Update(ctx, c), store.ErrConflict)
	p.nowAndReopened(func(when string) { p.wantClient(when, again) })
}

func testClientList(t *testing.T, p *place) {
	ctx := context.Background()
	if page, err := p.Clients().List(ctx, onem2m.KmID{}, 0); err != nil || len(page) != 0 {
		t.Errorf("empty store: %v, %v", page, err)
	}
	// Octet order: '-' < '.' < digits < '@' < '_' < letters.
	var want []string
	for _, name := range []string{"a-b", "a.b", "a0", "a", "a_b", "aa", "b"} {
		want = append(want, name+"@maf.example.com")
	}
	want = slices.Insert(want, 4, "a@maf2.example.com")
	for _, i := range []int{3, 1, 7, 0, 5, 2, 6, 4} {
		c := client(i)
		must(t, c.KmID.UnmarshalText([]byte(want[i])))
		must(t, p.Clients().Add(ctx, c))
	}
	if !slices.IsSorted(want) {
		t.Fatal("the test's own order is wrong")
	}
	p.nowAndReopened(func(when string) {
		for _, size := range []int{1, 2, 3, 7, 8, 9, 0, -1, store.MaxPage + 1} {
			var got []string
			for _, c := range p.listAll(size) {
				got = append(got, c.KmID.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, pages of %d: got %v, want %v", when, size, got, want)
			}
		}
	})
	page, err := p.Clients().List(ctx, page0(t, want[2]), 2)
	must(t, err)
	whole, err := p.Clients().Get(ctx, page[0].KmID)
	must(t, err)
	if !reflect.DeepEqual(page[0], whole) {
		t.Errorf("List and Get differ:\n%+v\n%+v", page[0], whole)
	}
}

func page0(t *testing.T, s string) onem2m.KmID {
	id, err := onem2m.ParseKmID(s)
	must(t, err)
	return id
}

// listAll reads page after page, and fails when one is larger than asked for.
func (p *place) listAll(size int) (all []store.Client) {
	p.t.Helper()
	limit := size
	if limit <= 0 || limit > store.MaxPage {
		limit = store.MaxPage
	}
	for after := (onem2m.KmID{}); ; {
		page, err := p.Clients().List(context.Background(), after, size)
		must(p.t, err)
		if len(page) > limit {
			p.t.Fatalf("a page of %d, want at most %d", len(page), limit)
		}
		all = append(all, page...)
		if len(page) < limit {
			return all
		}
		after = page[len(page)-1].KmID
	}
}

// Clients that are there all the time are listed once, whatever comes and goes
// between the pages.
func testClientListStable(t *testing.T, p *place) {
	ctx := context.Background()
	for i := range 60 {
		must(t, p.Clients().Add(ctx, client(i)))
	}
	seen := map[onem2m.KmID]int{}
	for after, n := (onem2m.KmID{}), 0; ; n++ {
		page, err := p.Clients().List(ctx, after, 7)
		must(t, err)
		for _, c := range page {
			seen[c.KmID]++
		}
		if len(page) < 7 {
			break
		}
		after = page[6].KmID
		// Every third client goes; others come before and behind.
		gone := client(n*3 + 2)
		must(t, p.Clients().Remove(ctx, gone.KmID, gone.UID))
		must(t, p.Clients().Add(ctx, client(1000+n)))
		early := client(2000 + n)
		early.KmID.Relative = fmt.Sprintf("a-%d", n)
		must(t, p.Clients().Add(ctx, early))
	}
	for i := range 60 {
		if i%3 != 2 && seen[kmID(i)] != 1 {
			t.Errorf("%v was listed %d times", kmID(i), seen[kmID(i)])
		}
	}
}

func testClientAddRace(t *testing.T, p *place) {
	const rivals = 16
	var won atomic.Int32
	var winner store.Client
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() {
			c := client(1)
			c.UID = store.UID(i)
			switch err := p.Clients().Add(context.Background(), c); {
			case err == nil:
				won.Add(1)
				winner = c
			case !errors.Is(err, store.ErrExists):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Fatalf("%d of %d Adds of one KmID succeeded", won.Load(), rivals)
	}
	p.nowAndReopened(func(when string) { p.wantClient(when, winner) })
}

// No update is lost: as many are in the record as were reported to be.
func testClientUpdateRace(t *testing.T, p *place) {
	ctx := context.Background()
	must(t, p.Clients().Add(ctx, client(1)))
	var done atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
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
	if done.Load() < 20 { // the first of each round of rivals succeeds
		t.Errorf("only %d updates succeeded", done.Load())
	}
	want := client(1)
	want.Version += done.Load()
	want.Lifetime += time.Duration(done.Load()) * time.Second
	p.nowAndReopened(func(when string) { p.wantClient(when, want) })
}

// Once Update has returned, nobody reads the old record, however hard others
// read at the same time (and fill a cache with what they read).
func testClientReadNewest(t *testing.T, p *place) {
	ctx := context.Background()
	must(t, p.Clients().Add(ctx, client(1)))
	var returned atomic.Int64 // the latest version whose Update returned
	returned.Store(1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				atLeast := returned.Load()
				c, err := p.Clients().Get(ctx, kmID(1))
				if err != nil || c.Version < atLeast {
					t.Errorf("read version %d after the Update to %d had returned (%v)", c.Version, atLeast, err)
					return
				}
			}
		})
	}
	for range 60 {
		c, err := p.Clients().Get(ctx, kmID(1))
		must(t, err)
		must(t, p.Clients().Update(ctx, c))
		returned.Store(c.Version + 1)
	}
	close(stop)
	wg.Wait()
}
