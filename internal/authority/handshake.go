package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Master is a client in the middle of its MAF Handshake.
type Master struct {
	Client Client
	Km     secret.Key

	uid store.UID // of the registration that Km belongs to
}

// MasterKey looks up the client that the psk_identity and the SNI ("" when
// there was none) of a handshake name.
//
// An error under ErrRefused says why this client gets nothing. Any other error
// is a failure of the MAF.
func (a *Authority) MasterKey(ctx context.Context, identity []byte, sni string) (*Master, error) {
	id, err := a.identify(identity, sni)
	if err != nil {
		return nil, err
	}
	row, err := a.row(ctx, id)
	if err != nil {
		a.openDecoy()
		return nil, err
	}
	km, err := a.openKm(&row)
	if err != nil {
		return nil, err
	}
	if row.Disabled {
		km.Wipe()
		return nil, fmt.Errorf("%w: %v", ErrDisabled, id)
	}
	return &Master{Client: fromRow(&row), Km: km, uid: row.UID}, nil
}

// identify reads the names of a handshake, which must agree with each other and
// with what is served here. (What it refuses is not a secret, so it needn't take
// as long as a lookup.)
func (a *Authority) identify(identity []byte, sni string) (onem2m.KmID, error) {
	id, err := onem2m.ParseKmID(string(identity))
	if err != nil {
		return onem2m.KmID{}, fmt.Errorf("%w: %w", ErrMalformedIdentity, err)
	}
	if !a.fqdns[id.FQDN] {
		return onem2m.KmID{}, fmt.Errorf("%w: %v", ErrWrongFQDN, id)
	}
	if !sameName(sni, id.FQDN) {
		return onem2m.KmID{}, fmt.Errorf("%w: %v came to %q", ErrSNIMismatch, id, sni)
	}
	return id, nil
}

// sameName reports whether the SNI agrees with name: it is absent, the same or
// the same in capitals.
func sameName(sni string, name onem2m.FQDN) bool {
	if sni == "" || sni == string(name) {
		return true
	}
	folded, err := onem2m.ParseFQDN(sni)
	return err == nil && folded == name
}

// Exporter is the RFC 5705 exporter of a session whose client has proved its
// master key: ConnectionState.ExportKeyingMaterial of package tlspsk. A nil
// context means none.
type Exporter func(label string, context []byte, length int) ([]byte, error)

// Issued is what Establish tells about a new Kc.
type Issued struct {
	KcID    onem2m.KcID
	KmID    onem2m.KmID
	IdB     onem2m.CSEID
	Expires time.Time // in whole seconds
}

// Establish derives Kc from the client's session and commits it for the client's
// Entity B. Call it after the client's Finished has been verified; send ours
// only when it returned nil.
//
// An error under ErrRefused says that the client lost its right during the
// handshake. After any error, the key may nevertheless have been stored; nobody
// will ask for it, and it will expire.
func (a *Authority) Establish(ctx context.Context, m *Master, export Exporter) (Issued, error) {
	// 1. Handshakes can be slow, and administrators quick: look again.
	row, err := a.stillWelcome(ctx, m)
	if err != nil {
		return Issued{}, err
	}
	// 2. Derive.
	exported, err := export(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
	if err != nil {
		return Issued{}, fmt.Errorf("authority: exporting keying material: %w", err)
	}
	defer clear(exported)
	relative, kc, err := kdf.Connection(exported)
	if err != nil {
		return Issued{}, err
	}
	defer kc.Wipe()
	// 3. Commit. Everything that Release will go by is fixed here.
	key := store.Key{
		ID:      onem2m.KcID{Relative: relative, FQDN: row.KmID.FQDN},
		KmID:    row.KmID,
		UID:     row.UID,
		IdB:     row.IdB,
		Expires: a.now().Truncate(time.Second).Add(row.Lifetime),
	}
	if key.SealedKc, err = a.sealer.Seal(kc.Bytes(), kcBinding(&key)); err != nil {
		return Issued{}, err
	}
	switch err := a.keys.Commit(ctx, key); {
	case errors.Is(err, store.ErrExists):
		return Issued{}, fmt.Errorf("%w: %v", ErrCollision, key.ID)
	case err != nil:
		return Issued{}, err
	}
	return Issued{KcID: key.ID, KmID: key.KmID, IdB: key.IdB, Expires: key.Expires}, nil
}

// stillWelcome returns the client as it is now, provided that it is the one that
// proved its key and still enabled. What else was changed in between counts from
// now on.
func (a *Authority) stillWelcome(ctx context.Context, m *Master) (store.Client, error) {
	row, err := a.row(ctx, m.Client.KmID)
	if err != nil {
		return store.Client{}, err
	}
	if row.UID != m.uid {
		return store.Client{}, fmt.Errorf("%w: %v was registered anew during the handshake", ErrUnknownClient, row.KmID)
	}
	if row.Version != m.Client.Version {
		// Not the row that MasterKey opened, so not known yet to be genuine.
		km, err := a.openKm(&row)
		if err != nil {
			return store.Client{}, err
		}
		km.Wipe()
	}
	if row.Disabled {
		return store.Client{}, fmt.Errorf("%w: %v", ErrDisabled, row.KmID)
	}
	return row, nil
}
