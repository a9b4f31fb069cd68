package authority

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Client is a device as an administrator sees it: everything but its key.
type Client struct {
	KmID onem2m.KmID
	// IdB is the one Entity B that the client may reach; absolute.
	IdB onem2m.CSEID
	// AEID or CSEID is the client's own identity, which Entity B will associate
	// the security context with. At most one is set; with neither, Entity B goes
	// by the Credential-ID. Both are kept in the absolute form; what is missing
	// in a value given is taken from IdB.
	AEID  onem2m.AEID
	CSEID onem2m.CSEID
	// Lifetime of each Kc, in whole seconds; zero means DefaultLifetime.
	Lifetime time.Duration
	Disabled bool

	// These are the authority's; what a caller puts there is ignored.
	Created time.Time
	Updated time.Time
	Version int64 // 1, and one more with each update
}

func fromRow(c *store.Client) Client {
	return Client{
		KmID: c.KmID, IdB: c.IdB, AEID: c.AEID, CSEID: c.CSEID,
		Lifetime: c.Lifetime, Disabled: c.Disabled,
		Created: c.Created, Updated: c.Updated, Version: c.Version,
	}
}

// AddClient registers a client and returns it with its master key, which is
// never shown again. km may be empty: then the authority draws NewKm octets. The
// key is the caller's, to be wiped.
//
// Errors: ErrExists, ErrInvalid (with the reason), or the store's, after which
// the client may or may not be registered.
func (a *Authority) AddClient(ctx context.Context, c Client, km secret.Key) (_ Client, _ secret.Key, err error) {
	if err := a.complete(&c); err != nil {
		return Client{}, secret.Key{}, err
	}
	if km.IsZero() {
		fresh := make([]byte, NewKm)
		if _, err := io.ReadFull(a.rand, fresh); err != nil {
			return Client{}, secret.Key{}, fmt.Errorf("authority: drawing a master key: %w", err)
		}
		km = secret.Own(fresh)
		defer func() {
			if err != nil {
				clear(fresh)
			}
		}()
	}
	if err := checkKm(km); err != nil {
		return Client{}, secret.Key{}, err
	}
	uid, err := a.newUID()
	if err != nil {
		return Client{}, secret.Key{}, err
	}
	now := a.now().Truncate(time.Second)
	row := store.Client{
		KmID: c.KmID, UID: uid, Version: 1, IdB: c.IdB, AEID: c.AEID, CSEID: c.CSEID,
		Lifetime: c.Lifetime, Disabled: c.Disabled, Created: now, Updated: now,
	}
	if row.SealedKm, err = a.sealer.Seal(km.Bytes(), kmBinding(&row)); err != nil {
		return Client{}, secret.Key{}, err
	}
	switch err := a.clients.Add(ctx, row); {
	case errors.Is(err, store.ErrExists):
		return Client{}, secret.Key{}, fmt.Errorf("%w: %v", ErrExists, c.KmID)
	case err != nil:
		return Client{}, secret.Key{}, err
	}
	return fromRow(&row), km, nil
}

func checkKm(km secret.Key) error {
	if n := km.Len(); n < MinKm || n > MaxKm {
		return fmt.Errorf("%w: the master key has %d octets, not %d to %d", ErrInvalid, n, MinKm, MaxKm)
	}
	return nil
}

func (a *Authority) newUID() (store.UID, error) {
	var b [8]byte
	if _, err := io.ReadFull(a.rand, b[:]); err != nil {
		return 0, fmt.Errorf("authority: %w", err)
	}
	return store.UID(binary.BigEndian.Uint64(b[:])), nil
}

// complete brings what an administrator gave into the form that is kept, or says
// what is wrong with it.
func (a *Authority) complete(c *Client) error {
	invalid := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
	}
	// The types don't keep anybody from building a value without its parser.
	if id, err := onem2m.ParseKmID(c.KmID.String()); err != nil {
		return invalid("%w", err)
	} else if id != c.KmID {
		return invalid("KmId %v is not in its canonical form", c.KmID)
	}
	if !a.fqdns[c.KmID.FQDN] {
		return invalid("%v is not served here, only %s", c.KmID.FQDN, a.served())
	}
	if id, err := onem2m.ParseCSEID(c.IdB.String()); err != nil {
		return invalid("the Entity B: %w", err)
	} else if id != c.IdB || !c.IdB.IsAbsolute() {
		return invalid("the Entity B %v must be an absolute CSE-ID, such as //sp.example.com/in-cse", c.IdB)
	}
	if !c.AEID.IsZero() && !c.CSEID.IsZero() {
		return invalid("a client has an AE-ID or a CSE-ID, not both")
	}
	if !c.AEID.IsZero() {
		c.AEID = c.AEID.Absolute(c.IdB)
		if id, err := onem2m.ParseAEID(c.AEID.String()); err != nil {
			return invalid("the AE-ID: %w", err)
		} else if id != c.AEID {
			return invalid("AE-ID %v is not in its canonical form", c.AEID)
		}
	}
	if !c.CSEID.IsZero() {
		c.CSEID = c.CSEID.Absolute(c.IdB.SP)
		if id, err := onem2m.ParseCSEID(c.CSEID.String()); err != nil {
			return invalid("the CSE-ID: %w", err)
		} else if id != c.CSEID {
			return invalid("CSE-ID %v is not in its canonical form", c.CSEID)
		}
	}
	if c.Lifetime == 0 {
		c.Lifetime = DefaultLifetime
	}
	if c.Lifetime < MinLifetime || c.Lifetime > MaxLifetime || c.Lifetime%time.Second != 0 {
		return invalid("the lifetime %v is not a whole number of seconds from %v to %v", c.Lifetime, MinLifetime, MaxLifetime)
	}
	return nil
}

// served lists the MAF-FQDNs for people.
func (a *Authority) served() string {
	var names []string
	for fqdn := range a.fqdns {
		names = append(names, fqdn.String())
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// Client returns one client, or ErrUnknownClient.
func (a *Authority) Client(ctx context.Context, id onem2m.KmID) (Client, error) {
	row, err := a.row(ctx, id)
	if err != nil {
		return Client{}, err
	}
	return fromRow(&row), nil
}

// row reads a client, or returns ErrUnknownClient.
func (a *Authority) row(ctx context.Context, id onem2m.KmID) (store.Client, error) {
	row, err := a.clients.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return store.Client{}, fmt.Errorf("%w: %v", ErrUnknownClient, id)
	}
	return row, err
}

// ListClients returns up to limit clients after the given KmId, in ascending
// order; see store.ClientStore.List.
func (a *Authority) ListClients(ctx context.Context, after onem2m.KmID, limit int) ([]Client, error) {
	rows, err := a.clients.List(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	page := make([]Client, len(rows))
	for i := range rows {
		page[i] = fromRow(&rows[i])
	}
	return page, nil
}

// attempts is how often a compare-and-swap is tried against rivals.
const attempts = 16

// UpdateClient applies change to the client as it is now and stores the result
// in one step. When somebody else updates the client in between, change is
// called again with the newer state. An error of change ends the update and is
// returned as it is. KmID can't be changed; the Km stays. A change that changes
// nothing is not stored.
//
// Errors: ErrUnknownClient, ErrInvalid, ErrBusy, change's or the store's, after
// which the update may or may not have been made.
func (a *Authority) UpdateClient(ctx context.Context, id onem2m.KmID, change func(*Client) error) (Client, error) {
	for range attempts {
		row, err := a.row(ctx, id)
		if err != nil {
			return Client{}, err
		}
		c, err := a.changed(&row, change)
		if err != nil || c == fromRow(&row) {
			return c, err
		}
		next, err := a.reseal(&row, c)
		if err != nil {
			return Client{}, err
		}
		err = a.clients.Update(ctx, next)
		a.feed.nudge()
		switch {
		case errors.Is(err, store.ErrConflict):
			continue
		case errors.Is(err, store.ErrNotFound):
			return Client{}, fmt.Errorf("%w: %v", ErrUnknownClient, id)
		case err != nil:
			return Client{}, err
		}
		next.Version++
		return fromRow(&next), nil
	}
	return Client{}, fmt.Errorf("%w: %v", ErrBusy, id)
}

// changed returns what change makes of the client.
func (a *Authority) changed(row *store.Client, change func(*Client) error) (Client, error) {
	c := fromRow(row)
	if err := change(&c); err != nil {
		return Client{}, err
	}
	if c.KmID != row.KmID {
		return Client{}, fmt.Errorf("%w: a client's KmId can't be changed", ErrInvalid)
	}
	if err := a.complete(&c); err != nil {
		return Client{}, err
	}
	c.Created, c.Updated, c.Version = row.Created, row.Updated, row.Version
	return c, nil
}

// reseal returns the row with c's configuration and Km bound to it. Opening Km
// first shows that the row was as this authority left it: otherwise an update
// would bless what somebody wrote into the database.
func (a *Authority) reseal(row *store.Client, c Client) (store.Client, error) {
	km, err := a.openKm(row)
	if err != nil {
		return store.Client{}, err
	}
	defer km.Wipe()
	return a.seal(row, c, km)
}

// seal returns the row with c's configuration and the given Km, bound to each
// other.
func (a *Authority) seal(row *store.Client, c Client, km secret.Key) (_ store.Client, err error) {
	next := *row
	next.IdB, next.AEID, next.CSEID = c.IdB, c.AEID, c.CSEID
	next.Lifetime, next.Disabled = c.Lifetime, c.Disabled
	next.Updated = a.now().Truncate(time.Second)
	next.SealedKm, err = a.sealer.Seal(km.Bytes(), kmBinding(&next))
	return next, err
}

// RemoveClient removes the client and then the keys that were issued to it.
// From the moment it returns nil none of them is released, nor ever again, even
// when the same KmId is added anew.
//
// Errors: ErrUnknownClient, ErrBusy or the store's. An error that says so means
// that the client is gone and only rows of dead keys are left, until they expire.
func (a *Authority) RemoveClient(ctx context.Context, id onem2m.KmID) error {
	for range attempts {
		row, err := a.row(ctx, id)
		if err != nil {
			return err
		}
		// 1. The client. Without it, its keys are dead: Release asks for the
		//    registration that they were issued to.
		err = a.clients.Remove(ctx, id, row.UID)
		a.feed.nudge()
		switch {
		case errors.Is(err, store.ErrConflict):
			continue // somebody removed it and added it anew
		case errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("%w: %v", ErrUnknownClient, id)
		case err != nil:
			return err
		}
		// 2. The keys' rows. If this fails, Purge will come to them.
		if _, err := a.keys.RemoveByClient(ctx, id, row.UID); err != nil {
			return fmt.Errorf("client %v is removed, but not the rows of its keys, which are dead: %w", id, err)
		}
		return nil
	}
	return fmt.Errorf("%w: %v", ErrBusy, id)
}
