package storetest

import (
	"context"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// wantLog compares the whole log, whose Seq count from 1.
func (p *place) wantLog(when string, want ...store.Revocation) {
	p.t.Helper()
	got, err := p.Keys().Revocations(context.Background(), 0, 0)
	must(p.t, err)
	if len(got) != len(want) {
		p.t.Fatalf("%s: the log is %v, want %v", when, got, want)
	}
	for i := range want {
		want[i].Seq = int64(i + 1)
		if got[i] != want[i] {
			p.t.Errorf("%s: line %d is %+v, want %+v", when, i, got[i], want[i])
		}
	}
	last, err := p.Keys().LastRevocation(context.Background())
	must(p.t, err)
	if last != int64(len(want)) {
		p.t.Errorf("%s: the last is %d, want %d", when, last, len(want))
	}
}

// Which changes are logged: those after which an Entity B that goes on with what
// it has been told does wrong.
func testRevocationOfClient(t *testing.T, p *place) {
	ctx := context.Background()
	c := client(1)
	must(t, p.Clients().Add(ctx, c))
	p.wantLog("after Add")
	var want []store.Revocation
	update := func(name string, logged bool, edit func(*store.Client)) {
		t.Helper()
		before := c.IdB
		edit(&c)
		must(t, p.Clients().Update(ctx, c))
		c.Version++
		if logged {
			want = append(want, store.Revocation{IdB: before, KmID: c.KmID})
		}
		p.wantLog(name, want...)
	}
	update("another lifetime", false, func(c *store.Client) { c.Lifetime *= 2 })
	update("another box", false, func(c *store.Client) { c.SealedKm = []byte("box") })
	update("another AE-ID", true, func(c *store.Client) { c.AEID.Stem = "C2" })
	update("no AE-ID", true, func(c *store.Client) { c.AEID = onem2m.AEID{} })
	update("a CSE-ID", true, func(c *store.Client) { c.CSEID = onem2m.CSEID{SP: "sp.example.com", ID: "mn"} })
	update("another Entity B", true, func(c *store.Client) { c.IdB.ID = "in-cse-2" })
	update("disabled", true, func(c *store.Client) { c.Disabled = true })
	update("another Entity B while disabled", false, func(c *store.Client) { c.IdB.ID = "in-cse-3" })
	update("enabled", false, func(c *store.Client) { c.Disabled = false })
	update("disabled and another Entity B", true, func(c *store.Client) { c.Disabled, c.IdB.ID = true, "in-cse-4" })

	stale := c
	stale.Version--
	stale.Disabled = false
	wantError(t, "a stale Update", p.Clients().Update(ctx, stale), store.ErrConflict)
	wantError(t, "Update of nobody", p.Clients().Update(ctx, client(2)), store.ErrNotFound)
	wantError(t, "Remove of another", p.Clients().Remove(ctx, c.KmID, c.UID+1), store.ErrConflict)
	p.wantLog("after what was refused", want...)

	must(t, p.Clients().Remove(ctx, c.KmID, c.UID))
	want = append(want, store.Revocation{IdB: c.IdB, KmID: c.KmID})
	p.nowAndReopened(func(when string) { p.wantLog(when, want...) })
}

func testRevocationOfKey(t *testing.T, p *place) {
	ctx := context.Background()
	for n := range 3 {
		must(t, p.Keys().Commit(ctx, key(n)))
	}
	wantError(t, "Revoke of nothing", p.Keys().Revoke(ctx, kcID(9)), store.ErrNotFound)
	elsewhere := kcID(1)
	elsewhere.FQDN = "other.example.com"
	wantError(t, "Revoke of another MAF's", p.Keys().Revoke(ctx, elsewhere), store.ErrNotFound)
	must(t, p.Keys().Revoke(ctx, kcID(1)))
	wantError(t, "Revoke again", p.Keys().Revoke(ctx, kcID(1)), store.ErrNotFound)
	p.nowAndReopened(func(when string) {
		p.wantKey(when, key(0))
		p.wantNoKey(when, kcID(1))
		p.wantKey(when, key(2))
		p.wantLog(when, store.Revocation{IdB: key(1).IdB, KmID: key(1).KmID, KcID: kcID(1)})
	})
	must(t, p.Keys().Commit(ctx, key(1))) // the identifier is free again
	p.wantKey("committed anew", key(1))
}

// One of several who revoke the same key does so, and the log says it once.
func testRevocationRace(t *testing.T, p *place) {
	ctx := context.Background()
	const n = 20
	for i := range n {
		must(t, p.Keys().Commit(ctx, key(i)))
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range n {
				if err := p.Keys().Revoke(ctx, kcID(i)); err != nil {
					wantError(t, "Revoke", err, store.ErrNotFound)
				}
			}
		})
	}
	all.Wait()
	p.nowAndReopened(func(when string) {
		got, err := p.Keys().Revocations(ctx, 0, 0)
		must(t, err)
		seen := make(map[onem2m.KcID]bool)
		for i, r := range got {
			if r.Seq != int64(i+1) || seen[r.KcID] {
				t.Errorf("%s: line %d is %+v", when, i, r)
			}
			seen[r.KcID] = true
		}
		if len(got) != n {
			t.Errorf("%s: %d lines", when, len(got))
		}
	})
}

func testRevocationPages(t *testing.T, p *place) {
	ctx := context.Background()
	for n := range 5 {
		must(t, p.Keys().Commit(ctx, key(n)))
		must(t, p.Keys().Revoke(ctx, kcID(n)))
	}
	for _, c := range []struct {
		after    int64
		limit    int
		from, to int64
	}{{0, 0, 1, 5}, {0, 2, 1, 2}, {2, 2, 3, 4}, {4, 2, 5, 5}, {5, 2, 6, 5}, {0, 1 << 30, 1, 5}} {
		got, err := p.Keys().Revocations(ctx, c.after, c.limit)
		must(t, err)
		if len(got) != int(c.to-c.from+1) {
			t.Errorf("%+v: %v", c, got)
			continue
		}
		for i, r := range got {
			if r.Seq != c.from+int64(i) {
				t.Errorf("%+v: %v", c, got)
			}
		}
	}
	_, err := p.Keys().Revocations(ctx, 6, 0)
	wantError(t, "from a place that isn't there yet", err, store.ErrGone)
}

// Who follows the log while it grows sees every line once, in order.
func testRevocationFollow(t *testing.T, p *place) {
	ctx := context.Background()
	const writers, each = 4, 25
	for i := range writers * each {
		must(t, p.Keys().Commit(ctx, key(i)))
	}
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				if err := p.Keys().Revoke(ctx, kcID(w*each+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for after := int64(0); after < writers*each && !t.Failed(); {
		last, err := p.Keys().LastRevocation(ctx)
		must(t, err)
		page, err := p.Keys().Revocations(ctx, after, 7)
		must(t, err)
		if len(page) < min(7, int(last-after)) {
			t.Errorf("%d lines after %d, with %d there before", len(page), after, last)
		}
		for _, r := range page {
			if after++; r.Seq != after {
				t.Fatalf("line %d follows %d", r.Seq, after-1)
			}
		}
	}
	all.Wait()
}
