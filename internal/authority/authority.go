// Package authority is the core of the M2M Authentication Function: it keeps
// master keys and what each client may do, derives and commits Kc when a client
// has proved its master key, and releases Kc to the one Entity B that it was
// issued for (TS-0003 8.2.2.3).
//
// It knows neither HTTP nor SQL nor sockets, and leaves TLS to its callers: the
// handshake hands it a psk_identity, an SNI and an RFC 5705 exporter.
//
// # Rules
//
//   - No Finished before durable: Establish returns only after Kc is on stable
//     storage, so what a device was told is true even when the power fails next.
//   - Kc goes only to the Entity B that it was issued for, and only while the
//     client is registered, enabled and still associated with that Entity B.
//     Everybody else gets what an asker for a key that never was gets.
//   - Rows can't be swapped: the box around Km is bound to the client's whole
//     configuration, and the one around Kc to the KcId, the client, the Entity B
//     and the expiry. Somebody who can write to the database can destroy, and
//     can put back what once was, but can't redirect a key.
package authority

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Bounds of what a client may be given.
const (
	MinKm = 16 // octets
	MaxKm = 64 // octets
	NewKm = 32 // octets, when the authority draws it

	MinLifetime     = time.Second
	MaxLifetime     = 366 * 24 * time.Hour
	DefaultLifetime = 24 * time.Hour
)

// Errors that callers tell apart, with errors.Is. Their text is for the log of
// the MAF; what a peer learns is written beside each.
var (
	// ErrRefused is under every reason why MasterKey and Establish refuse a
	// client. To the peer, all of them are one thing: what a wrong key is.
	ErrRefused = errors.New("refused")

	ErrMalformedIdentity = refusal("psk_identity is not a KmId")
	ErrWrongFQDN         = refusal("the KmId's FQDN is not served here")
	ErrSNIMismatch       = refusal("the SNI names another MAF than the KmId")
	ErrUnknownClient     = refusal("unknown client")
	ErrDisabled          = refusal("the client is disabled")

	// ErrNotFound is all that Release's caller may tell its peer, whether the
	// Kc never was, expired, is another Entity B's or its client is gone.
	ErrNotFound = errors.New("no such key for this Entity B")

	// ErrExists: AddClient found the KmId taken.
	ErrExists = errors.New("the KmId is registered already")
	// ErrInvalid is under every complaint about what an administrator gave.
	ErrInvalid = errors.New("invalid client")
	// ErrBusy: UpdateClient lost against other updates again and again.
	ErrBusy = errors.New("the client is being changed by others; try again")
)

// Sealer closes keys into boxes that only open again with the same associated
// data. *seal.Keyset is one.
type Sealer interface {
	Seal(plaintext, associatedData []byte) ([]byte, error)
	Open(box, associatedData []byte) ([]byte, error)
}

// Config is what an Authority is made of.
type Config struct {
	// FQDNs are the names that this MAF serves, at least one.
	FQDNs   []onem2m.FQDN
	Clients store.ClientStore
	Keys    store.KeyStore
	Sealer  Sealer

	Now  func() time.Time // nil: time.Now
	Rand io.Reader        // nil: crypto/rand
}

// Authority is the MAF's core. Its methods may be called from any goroutine.
type Authority struct {
	fqdns   map[onem2m.FQDN]bool
	clients store.ClientStore
	keys    store.KeyStore
	sealer  Sealer
	now     func() time.Time
	rand    io.Reader
}

// New checks the configuration, and with one of the clients that the sealer
// fits the store, and returns the authority. The store and the sealer stay the
// caller's to close.
func New(ctx context.Context, c Config) (*Authority, error) { panic("not yet") }

// Client is a device as an administrator sees it: everything but its key.
type Client struct {
	KmID onem2m.KmID
	// IdB is the one Entity B that the client may reach; absolute.
	IdB onem2m.CSEID
	// AEID or CSEID is the client's own identity, which Entity B will associate
	// the security context with. At most one is set; with neither, Entity B goes
	// by the Credential-ID. Both are absolute; what is missing in the values
	// given is taken from IdB.
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

// AddClient registers a client and returns it with its master key, which is
// never shown again. km may be empty: then the authority draws NewKm octets.
//
// Errors: ErrExists, ErrInvalid (with the reason), or the store's.
func (a *Authority) AddClient(ctx context.Context, c Client, km secret.Key) (Client, secret.Key, error) {
	panic("not yet")
}

// Client returns one client, or ErrUnknownClient.
func (a *Authority) Client(ctx context.Context, id onem2m.KmID) (Client, error) { panic("not yet") }

// ListClients returns up to limit clients after the given KmId, in ascending
// order; see store.ClientStore.List.
func (a *Authority) ListClients(ctx context.Context, after onem2m.KmID, limit int) ([]Client, error) {
	panic("not yet")
}

// UpdateClient applies change to the client as it is now and stores the result
// in one step. When somebody else updates the client in between, change is
// called again with the newer state. An error of change ends the update and is
// returned as it is. KmID can't be changed; the Km stays.
//
// Errors: ErrUnknownClient, ErrInvalid, ErrBusy, change's or the store's.
func (a *Authority) UpdateClient(ctx context.Context, id onem2m.KmID, change func(*Client) error) (Client, error) {
	panic("not yet")
}

// RemoveClient removes the client and then the keys that were issued to it.
// From the moment it returns nil, and usually earlier, none of them is released;
// nor ever again, even when the same KmId is added anew.
//
// Errors: ErrUnknownClient or the store's.
func (a *Authority) RemoveClient(ctx context.Context, id onem2m.KmID) error { panic("not yet") }

// Exporter is the RFC 5705 exporter of a session whose client has proved its
// master key: ConnectionState.ExportKeyingMaterial of package tlspsk.
type Exporter func(label string, context []byte, length int) ([]byte, error)

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
	panic("not yet")
}

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
	panic("not yet")
}

// Released is Kc and what the MAF tells Entity B with it.
type Released struct {
	KcID    onem2m.KcID
	Kc      secret.Key
	Expires time.Time // in whole seconds
	// Lifetime is what is left until Expires by the authority's clock.
	Lifetime time.Duration
	KmID     onem2m.KmID
	// AEID or CSEID is the client's own, when the MAF knows it.
	AEID  onem2m.AEID
	CSEID onem2m.CSEID
}

// Release returns the Kc to idB, the authenticated CSE-ID of the asker.
//
// An error under ErrNotFound has the true reason in its text, which belongs into
// the log and not into the answer.
func (a *Authority) Release(ctx context.Context, idB onem2m.CSEID, id onem2m.KcID) (Released, error) {
	panic("not yet")
}

// Purge removes expired keys in small bites until it has been through the store
// once, and returns how many it removed. Call it from time to time.
func (a *Authority) Purge(ctx context.Context) (removed int, err error) { panic("not yet") }

// refusal makes one of the reasons under ErrRefused.
func refusal(text string) error { return &refusedError{text} }

type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }
func (e *refusedError) Unwrap() error { return ErrRefused }
