package mafd

import (
	"context"
	"crypto/rand"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// health knows whether the store takes what is written to it: without that, no
// handshake can succeed.
type health struct {
	mu  sync.Mutex
	err error     // of the last write; guarded by mu
	at  time.Time // of the last write; guarded by mu
}

// stored notes how a write ended.
func (h *health) stored(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err, h.at = err, time.Now()
}

// writable returns nil, or why the last write failed.
func (h *health) writable() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

const (
	// checkEvery is how often the store is looked after.
	checkEvery = 5 * time.Second
	// restFor is how long a good store that nobody writes to is left alone: a
	// write wakes the disk.
	restFor = time.Minute
	// probeTimeout is how long a store may take for one key before it counts as
	// not writable.
	probeTimeout = 10 * time.Second
)

// due reports whether it is time to try: the last write failed, or was long ago.
func (h *health) due(now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	// A clock that was set back doesn't keep it from trying: times here are monotonic.
	return h.err != nil || now.Sub(h.at) >= restFor
}

// watchStore writes to the store when nobody else does, until ctx ends, and says
// in the log when it fails and when it works again.
func (d *Daemon) watchStore(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	wasGood := true
	for {
		if d.health.due(time.Now()) {
			d.probe(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		switch err := d.health.writable(); {
		case err != nil && wasGood:
			d.log.Error("the key store can't be written to; handshakes fail until it can", "error", err.Error())
			wasGood = false
		case err == nil && !wasGood:
			d.log.Info("the key store can be written to again")
			wasGood = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// probe stores a key that has expired and is nobody's, the way every handshake
// stores one: whatever would make that fail makes this fail. It is purged as all
// expired keys are, and it opens nothing, since its box holds nothing.
func (d *Daemon) probe(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	fqdn := d.config.FQDNs[0]
	key := store.Key{
		ID:       onem2m.KcID{FQDN: fqdn},
		KmID:     onem2m.KmID{Relative: "mafd-probe", FQDN: fqdn},
		IdB:      onem2m.CSEID{SP: fqdn, ID: "mafd-probe"},
		Expires:  time.Now().Add(-time.Second),
		SealedKc: []byte{0},
	}
	rand.Read(key.ID.Relative[:]) // never fails
	d.health.stored(d.db.Keys().Commit(ctx, key))
}
