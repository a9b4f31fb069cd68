package saef

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// Bounds of a keyring.
const (
	// maxKeys is far more devices than one Entity B serves. Only keys that a MAF
	// vouched for count.
	maxKeys = 1 << 20
	// maxAbsent and absentFor are for KcIds that a MAF doesn't know. They are
	// few and short-lived because a MAF stores Kc before the device has it: a
	// KcId that isn't there will not come to be, but its device may be enabled
	// again.
	maxAbsent = 4096
	absentFor = 10 * time.Second
	// downFor is how long a MAF that could not be asked is left alone, so that
	// handshakes that need it fail at once and not after a timeout each.
	downFor = time.Second
	// evictionSample is how many entries are looked at to find one to drop.
	evictionSample = 8
	// maxSources is how many sources are remembered for what they asked.
	maxSources = 4096
)

// Defaults of what one source may ask, see EntityB.MaxUnknown.
const (
	defaultMaxUnknown       = 256
	defaultUnknownPerSecond = 32
)

// A keySource fetches keys from MAFs: *keyclient.Client.
type keySource interface {
	Knows(maf onem2m.FQDN) bool
	// Get's errors wrap keyclient.ErrNotFound, ErrUnknownMAF or ErrUnavailable.
	Get(ctx context.Context, id onem2m.KcID) (*keyapi.Key, error)
}

// A keyring finds the Kc that a device names: kept ones, until they expire, and
// others at the MAF.
type keyring struct {
	source  keySource
	fetches flights[question, *keyEntry]
	// asked bounds the questions to the MAF that one source of handshakes causes:
	// those under way, or answered with "no such key". A question that finds a key
	// is given back: a fleet of devices behind one address must get in, while
	// someone who makes up KcIds must not turn Entity B into a flood upon the MAF.
	asked admission.Buckets[netip.Prefix]
	log   *slog.Logger

	mu      sync.Mutex
	keys    map[onem2m.KcID]*keyEntry // guarded by mu
	absent  map[onem2m.KcID]time.Time // KcIds that a MAF doesn't have, until when; guarded by mu
	down    map[onem2m.FQDN]outage    // MAFs that did not answer; guarded by mu
	heard   map[onem2m.FQDN]time.Time // when each MAF last answered about a key; guarded by mu
	devices map[onem2m.KmID]*device   // those with a key or a use; guarded by mu
	revoked recent                    // guarded by mu
}

// A question is a KcId and the source that named it. Sources don't share the
// answers to theirs: a device must not suffer from a stranger's who names the
// same KcId and has asked too much.
type question struct {
	id   onem2m.KcID
	from netip.Prefix
}

// A keyEntry is immutable.
type keyEntry struct {
	kc          secret.Key
	association Association
}

func (e *keyEntry) expired(now time.Time) bool { return !now.Before(e.association.Expires) }

// An outage is why, and until when, a MAF is not asked.
type outage struct {
	since, until time.Time
	err          error
}

func newKeyring(source keySource) *keyring {
	return &keyring{
		source: source,
		asked: admission.Buckets[netip.Prefix]{
			Rate: admission.Rate{Burst: defaultMaxUnknown, PerSecond: defaultUnknownPerSecond},
			Max:  maxSources,
		},
		log:     slog.New(slog.DiscardHandler),
		keys:    make(map[onem2m.KcID]*keyEntry),
		absent:  make(map[onem2m.KcID]time.Time),
		down:    make(map[onem2m.FQDN]outage),
		heard:   make(map[onem2m.FQDN]time.Time),
		devices: make(map[onem2m.KmID]*device),
	}
}

// lookUp finds the key for a psk_identity. An error that wraps
// tlspsk.ErrUnknownIdentity means that there is none; the handshake must then
// fail as for a wrong key. Any other error means that we can't tell now, which
// the device must not take for a refusal of its key: it would go and make
// itself a new one, and the MAF has trouble enough.
func (k *keyring) lookUp(ctx context.Context, identity []byte, from netip.Prefix) (*keyEntry, error) {
	// B recognises the MAF by what follows the @ (10.3.5). Anything else that
	// devices may send isn't for us, and never reaches a MAF.
	id, err := onem2m.ParseKcID(string(identity))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tlspsk.ErrUnknownIdentity, err)
	}
	if !k.source.Knows(id.FQDN) {
		return nil, fmt.Errorf("%w: %w: %s", tlspsk.ErrUnknownIdentity, keyclient.ErrUnknownMAF, id.FQDN)
	}
	if e, err := k.kept(id, time.Now()); e != nil || err != nil {
		return e, err
	}
	q := question{id, from}
	return k.fetches.do(ctx, q, func(ctx context.Context) (*keyEntry, error) {
		return k.fetch(ctx, q)
	})
}

// kept returns what is known of a key without asking: the key, an error, or
// neither.
func (k *keyring) kept(id onem2m.KcID, now time.Time) (*keyEntry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.keys[id]; e != nil {
		if e.expired(now) {
			k.drop(e)
			k.setAbsent(id, now)
			return nil, errExpired(e)
		}
		return e, nil
	}
	if now.Before(k.absent[id]) {
		return nil, fmt.Errorf("%w: %w", tlspsk.ErrUnknownIdentity, keyclient.ErrNotFound)
	}
	if o, down := k.down[id.FQDN]; down {
		if now.Before(o.until) {
			return nil, o.err
		}
		// This one finds out whether the MAF is back. Nobody else shall wait for
		// a timeout meanwhile.
		o.until = now.Add(downFor)
		k.down[id.FQDN] = o
	}
	return nil, nil
}

// errExpired is for a key whose lifetime is over. 8.2.2.3 has Entity B fail the
// handshake, which tells the device to do a fresh MAF Handshake.
func errExpired(e *keyEntry) error {
	return fmt.Errorf("%w: Kc expired at %s", tlspsk.ErrUnknownIdentity, e.association.Expires.Format(time.RFC3339))
}

// fetch asks the MAF.
func (k *keyring) fetch(ctx context.Context, q question) (*keyEntry, error) {
	if !k.asked.Take(q.from) {
		return nil, ErrTooManyUnknown
	}
	for range attempts {
		asked, position := time.Now(), k.position()
		key, err := k.source.Get(ctx, q.id)
		if err != nil {
			return nil, k.failed(q, asked, err)
		}
		e := entryFor(key, asked)
		if k.keep(e, position) {
			k.asked.GiveBack(q.from)
			return e, nil
		}
		// Revoked while the answer was on its way, which may be from before.
	}
	k.asked.GiveBack(q.from)
	return nil, ErrRevoked
}

// failed notes that a question was not answered with a key. asked is when it was put.
func (k *keyring) failed(q question, asked time.Time, err error) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if errors.Is(err, keyclient.ErrNotFound) {
		k.answered(q.id.FQDN, now)
		k.setAbsent(q.id, now)
		return fmt.Errorf("%w: %w", tlspsk.ErrUnknownIdentity, err)
	}
	k.asked.GiveBack(q.from) // not the source's fault
	if k.heard[q.id.FQDN].After(asked) {
		// It has answered others meanwhile, so it is busy and not away. If nobody
		// could ask because of this one, hardly anybody ever could.
		return err
	}
	o, down := k.down[q.id.FQDN]
	if !down {
		o.since = now
		k.log.Warn("the MAF does not answer; only devices whose Kc is known here get in", "MAF", q.id.FQDN, "error", err)
	}
	o.until, o.err = now.Add(downFor), err
	k.down[q.id.FQDN] = o // bounded by the MAFs that are configured
	return err
}

// answered notes that the MAF has answered about a key. k.mu is held.
func (k *keyring) answered(maf onem2m.FQDN, now time.Time) {
	k.heard[maf] = now // bounded by the MAFs that are configured
	k.reached(maf, now)
}

// reached notes that the MAF has answered. k.mu is held.
func (k *keyring) reached(maf onem2m.FQDN, now time.Time) {
	if o, down := k.down[maf]; down {
		delete(k.down, maf)
		k.log.Info("the MAF answers again", "MAF", maf, "after", now.Sub(o.since).Round(time.Second).String())
	}
}

// entryFor counts the lifetime from when we asked: it was measured later, so
// that the key never lives longer here than at the MAF.
func entryFor(key *keyapi.Key, asked time.Time) *keyEntry {
	return &keyEntry{key.Kc, Association{
		KcID:    key.KcID,
		Expires: asked.Add(key.Lifetime),
		KmID:    key.KmID,
		AEID:    key.AEID,
		CSEID:   key.CSEID,
	}}
}

// setAbsent notes that there is no such key. k.mu is held.
func (k *keyring) setAbsent(id onem2m.KcID, now time.Time) {
	makeRoom(k.absent, maxAbsent, func(until time.Time) bool { return !now.Before(until) })
	k.absent[id] = now.Add(absentFor)
}

// keep stores a key that was asked for at a position among the revocations,
// unless it was revoked since.
func (k *keyring) keep(e *keyEntry, position uint64) bool {
	now := time.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answered(e.association.KcID.FQDN, now)
	if k.revoked.since(position, e.association) {
		return false
	}
	for _, old := range makeRoom(k.keys, maxKeys, func(e *keyEntry) bool { return e.expired(now) }) {
		k.drop(old)
	}
	if old := k.keys[e.association.KcID]; old != nil {
		k.drop(old)
	}
	k.keys[e.association.KcID] = e
	d := k.device(e.association.KmID)
	d.keys = append(d.keys, e)
	return true
}

// drop forgets a key. k.mu is held.
func (k *keyring) drop(e *keyEntry) {
	if k.keys[e.association.KcID] == e {
		delete(k.keys, e.association.KcID)
	}
	if d := k.devices[e.association.KmID]; d != nil {
		d.keys = slices.DeleteFunc(d.keys, func(other *keyEntry) bool { return other == e })
		k.tidy(e.association.KmID, d)
	}
}

// forget drops all keys.
func (k *keyring) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.keys {
		k.drop(e)
	}
}

// makeRoom looks at a few entries of m, in random order, and drops those that
// are over, so that each addition pays for the dropping of several and what is
// over never makes up much of m. When m has max entries, one of them goes in any
// case. It returns what it dropped.
func makeRoom[K comparable, V any](m map[K]V, max int, over func(V) bool) (dropped []V) {
	looked := 0
	for key, value := range m {
		if over(value) || len(m) >= max {
			delete(m, key)
			dropped = append(dropped, value)
		}
		if looked++; looked == evictionSample {
			break
		}
	}
	return dropped
}
