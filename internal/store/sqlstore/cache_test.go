package sqlstore

import (
	"testing"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

func cached(n int) store.Client {
	return store.Client{KmID: benchID(n), Version: 1, SealedKm: []byte("box")}
}

// A query that began before a change must not put what it read into the cache
// after the change: the old row would stay there for good.
func TestCacheRefusesOldRows(t *testing.T) {
	c := newClientCache(10)
	early := c.ticket()
	c.forget(benchID(1)) // the change, between the query and its put
	c.put(early, cached(1))
	if _, ok := c.get(benchID(1)); ok {
		t.Error("an old row was revived")
	}
	c.put(c.ticket(), cached(1))
	if _, ok := c.get(benchID(1)); !ok {
		t.Error("a new row is not kept")
	}
	c.forget(benchID(1))
	if _, ok := c.get(benchID(1)); ok {
		t.Error("forget left the row")
	}
}

func TestCacheIsBounded(t *testing.T) {
	const limit = 100
	c := newClientCache(limit)
	for i := range 10 * limit {
		c.put(c.ticket(), cached(i))
		if _, ok := c.get(benchID(i)); !ok {
			t.Fatalf("client %d is not kept", i)
		}
		if n := len(c.clients); n > limit || n < min(i+1, limit) {
			t.Fatalf("%d clients are kept after %d", n, i+1)
		}
	}
	for range 10 {
		c.put(c.ticket(), cached(10*limit-1))
	}
	if n := len(c.clients); n != limit {
		t.Errorf("putting one client again and again leaves %d", n)
	}
	if _, ok := c.get(onem2m.KmID{}); ok {
		t.Error("the cache has a client that nobody put there")
	}
}
