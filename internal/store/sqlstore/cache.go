package sqlstore

import (
	"sync"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// clientCache keeps clients as they are in the database, their keys sealed. A
// client that isn't there is not remembered: nobody should fill the memory with
// identities that don't exist.
type clientCache struct {
	limit int

	mu      sync.RWMutex
	clients map[onem2m.KmID]store.Client // guarded by mu
	// changes counts the calls of forget; guarded by mu.
	changes uint64
}

func newClientCache(limit int) *clientCache {
	return &clientCache{limit: limit, clients: map[onem2m.KmID]store.Client{}}
}

func (c *clientCache) get(id onem2m.KmID) (store.Client, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	client, ok := c.clients[id]
	return client, ok
}

// ticket is for a query that is about to begin; put takes it with the results.
func (c *clientCache) ticket() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changes
}

// put keeps a client that a query found, unless any client was changed since the
// ticket was drawn: then the query may have read the old row, and putting it
// here after forget would revive it for good.
func (c *clientCache) put(ticket uint64, client store.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != ticket {
		return
	}
	if _, ok := c.clients[client.KmID]; !ok && len(c.clients) >= c.limit {
		c.dropOne()
	}
	c.clients[client.KmID] = client
}

// dropOne makes room by dropping any client: a map is ranged over from a random
// place. Nothing better is known of devices that come once a day each, and
// nobody can steer it.
func (c *clientCache) dropOne() {
	for id := range c.clients {
		delete(c.clients, id)
		return
	}
}

// forget is called after a change of the client was committed and before anybody
// is told, so that no later get returns the old row.
func (c *clientCache) forget(id onem2m.KmID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes++
	delete(c.clients, id)
}
