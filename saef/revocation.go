package saef

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/onem2m"
)

// A device is what there is of one KmID. It is guarded by the keyring's mu.
type device struct {
	keys []*keyEntry       // in keyring.keys
	uses map[*use]struct{} // nil as long as there were none
}

// A use is a handshake that goes by a key, or the association that came of it.
type use struct {
	entry   *keyEntry
	end     func() // ends the handshake or association; guarded by the keyring's mu
	revoked atomic.Bool
}

// device returns that of a KmID. k.mu is held.
func (k *keyring) device(id onem2m.KmID) *device {
	d := k.devices[id]
	if d == nil {
		d = &device{}
		k.devices[id] = d
	}
	return d
}

// tidy forgets a device of which nothing is left. k.mu is held.
func (k *keyring) tidy(id onem2m.KmID, d *device) {
	if len(d.keys) == 0 && len(d.uses) == 0 {
		delete(k.devices, id)
	}
}

// attempts is how often a key is looked up that is revoked as soon as it is here.
const attempts = 3

// begin is lookUp for a handshake, which end ends when the key is revoked. What
// it returns must be ended.
func (k *keyring) begin(ctx context.Context, identity []byte, from netip.Prefix, end func()) (*use, error) {
	for range attempts {
		e, err := k.lookUp(ctx, identity, from)
		if err != nil {
			return nil, err
		}
		if u := k.enter(e, end); u != nil {
			return u, nil
		}
	}
	return nil, ErrRevoked
}

// enter begins a use of a key, unless the key has been dropped already.
func (k *keyring) enter(e *keyEntry, end func()) *use {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys[e.association.KcID] != e {
		return nil
	}
	u := &use{entry: e, end: end}
	d := k.device(e.association.KmID)
	if d.uses == nil {
		d.uses = make(map[*use]struct{})
	}
	d.uses[u] = struct{}{}
	return u
}

// change gives the use another end, or reports that it is over.
func (k *keyring) change(u *use, end func()) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	u.end = end
	return !u.revoked.Load()
}

// end ends a use. It may be nil.
func (k *keyring) end(u *use) {
	if u == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	id := u.entry.association.KmID
	if d := k.devices[id]; d != nil {
		delete(d.uses, u)
		k.tidy(id, d)
	}
}

// concerns reports whether a revocation is about a key.
func concerns(r keyapi.Revocation, a Association) bool {
	return r.KmID == a.KmID && (r.KcID.IsZero() || r.KcID == a.KcID)
}

// revoke drops the keys that revocations are about, and ends all that goes by
// them. It returns when everybody has been told to end.
func (k *keyring) revoke(list []keyapi.Revocation) {
	var ended sync.WaitGroup
	for _, r := range list {
		dropped, uses := k.revokeOne(r, &ended)
		if dropped+uses > 0 {
			k.log.Info("revoked", "KmID", r.KmID, "KcID", r.KcID, "keys", dropped, "ended", uses)
		}
	}
	ended.Wait()
}

func (k *keyring) revokeOne(r keyapi.Revocation, ended *sync.WaitGroup) (dropped, uses int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked.add(r)
	d := k.devices[r.KmID]
	if d == nil {
		return 0, 0
	}
	for _, e := range slices.Clone(d.keys) {
		if concerns(r, e.association) {
			k.drop(e)
			dropped++
		}
	}
	for u := range d.uses {
		if concerns(r, u.entry.association) {
			u.revoked.Store(true)
			delete(d.uses, u)
			ended.Go(u.end) // a peer that does not read can hold it up for a while
			uses++
		}
	}
	k.tidy(r.KmID, d)
	return dropped, uses
}

// A recent remembers the last revocations for the sake of answers that are on
// their way: an answer may be older than a revocation that overtook it.
type recent struct {
	list [256]keyapi.Revocation
	n    uint64 // how many there ever were
}

func (r *recent) add(one keyapi.Revocation) {
	r.list[r.n%uint64(len(r.list))] = one
	r.n++
}

// since reports whether one after the position concerns the key, or may do so.
func (r *recent) since(position uint64, a Association) bool {
	if r.n-position > uint64(len(r.list)) {
		return true
	}
	for ; position < r.n; position++ {
		if concerns(r.list[position%uint64(len(r.list))], a) {
			return true
		}
	}
	return false
}

// position is where we are among the revocations.
func (k *keyring) position() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.revoked.n
}

// missed notes that there may have been any revocations.
func (k *keyring) missed() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.revoked.n += uint64(len(k.revoked.list)) + 1
}

// held returns the keys of one MAF that are kept or in use, and good for some
// time yet: the MAF can't say of one that has expired whether it was revoked, and
// an association outlives its Kc.
func (k *keyring) held(maf onem2m.FQDN) []*keyEntry {
	soon := time.Now().Add(10 * time.Second)
	k.mu.Lock()
	defer k.mu.Unlock()
	found := make(map[onem2m.KcID]*keyEntry)
	add := func(e *keyEntry) {
		if e.association.KcID.FQDN == maf && !e.expired(soon) {
			found[e.association.KcID] = e
		}
	}
	for _, d := range k.devices {
		for _, e := range d.keys {
			add(e)
		}
		for u := range d.uses {
			add(u.entry)
		}
	}
	return slices.Collect(maps.Values(found))
}

// askers is how many keys are asked for at the same time when all are.
const askers = 8

// askAgain asks the MAF for keys that are held, and revokes what is not as it was.
// It returns false when it could not end.
func (k *keyring) askAgain(ctx context.Context, held []*keyEntry) bool {
	entries := make(chan *keyEntry)
	var all sync.WaitGroup
	for range askers {
		all.Go(func() {
			for e := range entries {
				for wait := retryMin; !k.confirm(ctx, e); wait = min(2*wait, retryMax) {
					if !pause(ctx, wait) {
						return
					}
				}
			}
		})
	}
	for _, e := range held {
		select {
		case entries <- e:
		case <-ctx.Done():
		}
	}
	close(entries)
	all.Wait()
	return ctx.Err() == nil
}

// confirm asks for a key again. It returns false when the MAF did not answer.
func (k *keyring) confirm(ctx context.Context, e *keyEntry) bool {
	is := e.association
	key, err := k.source.Get(ctx, is.KcID)
	if err == nil {
		key.Kc.Wipe()
	}
	switch {
	case errors.Is(err, keyclient.ErrNotFound):
	case err != nil:
		return false
	case key.KmID == is.KmID && key.AEID == is.AEID && key.CSEID == is.CSEID:
		return true
	}
	k.revoke([]keyapi.Revocation{{KmID: is.KmID, KcID: is.KcID}})
	return true
}
