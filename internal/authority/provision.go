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

// ErrDiffers: ImportClient found the client, but with another key or another
// configuration.
var ErrDiffers = errors.New("the client is there and differs")

// Import is one client of many, from a file that may be imported again and again.
type Import struct {
	// Client as it shall be. Lifetime zero stands for the one that a client has
	// already, and DefaultLifetime for a new one.
	Client          Client
	DefaultLifetime time.Duration
	// Km, the caller's to be wiped. Empty stands for the one that the client has;
	// a new client needs one: nobody would see the one that the authority drew.
	Km secret.Key

	Update bool // change what differs, instead of ErrDiffers
	DryRun bool // change nothing, and say what would be done
}

// Outcome is what ImportClient has done.
type Outcome uint8

// The outcomes.
const (
	Added   Outcome = iota + 1
	Same            // it was there, just so
	Updated         // it was there and differed
)

// ImportClient makes sure that a client is there with this key and this
// configuration. It may be repeated: what it has done once, it finds done.
//
// A caller who may import learns from ErrDiffers whether a key that it has is
// the client's. That is no more than it could learn, or destroy, otherwise: it
// may give the client another key.
//
// Kcs that were made under a Km that is replaced stay good for their lifetime, as
// with any change of a client; revoke them when the old Km is in wrong hands.
//
// Errors: ErrDiffers, ErrInvalid, ErrBusy, or the store's, after which it may or
// may not have been done.
func (a *Authority) ImportClient(ctx context.Context, in Import) (Outcome, error) {
	for range attempts {
		outcome, err := a.importOnce(ctx, in)
		if err != errChanged {
			return outcome, err
		}
	}
	return 0, fmt.Errorf("%w: %v", ErrBusy, in.Client.KmID)
}

// errChanged: somebody changed the client in between.
var errChanged = errors.New("changed in between")

func (a *Authority) importOnce(ctx context.Context, in Import) (Outcome, error) {
	c := in.Client
	if c.Lifetime == 0 {
		c.Lifetime = in.DefaultLifetime
	}
	if err := a.complete(&c); err != nil {
		return 0, err
	}
	if err := checkKm(in.Km); err != nil && !in.Km.IsZero() {
		return 0, err
	}
	// Adding comes first, since nearly all of a first import is new: its answer
	// tells what a lookup would.
	if !in.Km.IsZero() && !in.DryRun {
		if _, _, err := a.AddClient(ctx, c, in.Km); !errors.Is(err, ErrExists) {
			return Added, err
		}
	}
	row, err := a.row(ctx, c.KmID)
	switch {
	case errors.Is(err, ErrUnknownClient) && in.Km.IsZero():
		return 0, fmt.Errorf("%w: it has no master key, and there is no such client to keep its own", ErrInvalid)
	case errors.Is(err, ErrUnknownClient) && in.DryRun:
		return Added, nil
	case errors.Is(err, ErrUnknownClient):
		return 0, errChanged
	case err != nil:
		return 0, err
	}
	if in.Client.Lifetime == 0 {
		c.Lifetime = row.Lifetime
	}
	return a.importOver(ctx, in, &row, c)
}

// importOver compares the client that is there with the one that shall be, c,
// and makes it so when it may.
func (a *Authority) importOver(ctx context.Context, in Import, row *store.Client, c Client) (Outcome, error) {
	// Opening the box also shows that the row is as this authority left it.
	km, err := a.openKm(row)
	if err != nil {
		return 0, err
	}
	defer km.Wipe()
	c.Created, c.Updated, c.Version = row.Created, row.Updated, row.Version
	sameConfig := c == fromRow(row)
	sameKm := in.Km.IsZero() || km.Equal(in.Km)
	switch {
	case sameConfig && sameKm:
		return Same, nil
	case !in.Update && !sameKm:
		return 0, fmt.Errorf("%w: it has another master key", ErrDiffers)
	case !in.Update:
		return 0, fmt.Errorf("%w: it is configured otherwise", ErrDiffers)
	case in.DryRun:
		return Updated, nil
	}
	if !sameKm {
		km = in.Km
	}
	next, err := a.seal(row, c, km)
	if err != nil {
		return 0, err
	}
	err = a.clients.Update(ctx, next)
	a.feed.nudge()
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return 0, errChanged
	}
	return Updated, err
}

// ListMasterKeys is ListClients with each client's Km, in the same order. The
// keys are the caller's, to be wiped. Nobody but an exporter of keys needs it.
func (a *Authority) ListMasterKeys(ctx context.Context, after onem2m.KmID, limit int) (_ []Client, _ []secret.Key, err error) {
	rows, err := a.clients.List(ctx, after, limit)
	if err != nil {
		return nil, nil, err
	}
	clients, kms := make([]Client, len(rows)), make([]secret.Key, 0, len(rows))
	for i := range rows {
		km, err := a.openKm(&rows[i])
		if err != nil {
			for _, km := range kms {
				km.Wipe()
			}
			return nil, nil, err
		}
		clients[i], kms = fromRow(&rows[i]), append(kms, km)
	}
	return clients, kms, nil
}
