package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Released is Kc and what the MAF tells Entity B with it.
type Released struct {
	KcID    onem2m.KcID
	Kc      secret.Key
	Expires time.Time // in whole seconds
	// Lifetime is what is left until Expires by the authority's clock, above zero.
	Lifetime time.Duration
	KmID     onem2m.KmID
	// AEID or CSEID is the client's own, absolute, when the MAF knows it.
	AEID  onem2m.AEID
	CSEID onem2m.CSEID
}

// Release returns the Kc to idB, the authenticated CSE-ID of the asker. Its
// octets are the caller's, to be wiped.
//
// An error under ErrNotFound has the true reason in its text, which belongs into
// the log and not into the answer.
func (a *Authority) Release(ctx context.Context, idB onem2m.CSEID, id onem2m.KcID) (Released, error) {
	no := func(format string, args ...any) (Released, error) {
		return Released{}, fmt.Errorf("%w: %v for %v: "+format, append([]any{ErrNotFound, id, idB}, args...)...)
	}
	if !a.fqdns[id.FQDN] {
		return no("its FQDN is not served here")
	}
	key, err := a.keys.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return no("unknown")
	} else if err != nil {
		return Released{}, err
	}
	if key.IdB != idB {
		return no("it was issued for %v", key.IdB)
	}
	left := key.Expires.Sub(a.now())
	if left <= 0 {
		return no("expired at %v", key.Expires)
	}
	row, err := a.clients.Get(ctx, key.KmID)
	if errors.Is(err, store.ErrNotFound) {
		return no("its client %v was removed", key.KmID)
	} else if err != nil {
		return Released{}, err
	}
	if row.UID != key.UID {
		return no("its client %v was registered anew", key.KmID)
	}
	if row.Disabled {
		return no("its client %v is disabled", key.KmID)
	}
	if row.IdB != idB {
		return no("its client %v now reaches %v", key.KmID, row.IdB)
	}
	// The rows decided; the boxes show that they are genuine.
	km, err := a.openKm(&row)
	if err != nil {
		return Released{}, err
	}
	km.Wipe()
	kc, err := a.openKc(&key)
	if err != nil {
		return Released{}, err
	}
	return Released{
		KcID: key.ID, Kc: kc, Expires: key.Expires, Lifetime: left,
		KmID: key.KmID, AEID: row.AEID, CSEID: row.CSEID,
	}, nil
}

// Purge removes expired keys in small bites until it has been through the store
// once, and returns how many it removed. Call it from time to time; it makes
// room and decides nothing, since Release looks at the clock itself.
func (a *Authority) Purge(ctx context.Context) (removed int, err error) {
	now := a.now()
	for {
		n, done, err := a.keys.Purge(ctx, now)
		removed += n
		if done || err != nil {
			return removed, err
		}
	}
}
