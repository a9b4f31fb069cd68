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
//   - Who was told is told to forget: what ends a key or gives its device another
//     identity is in the log of revocations in the same step, and Revocations
//     passes it on to the Entity B that it concerns.
//   - Rows can't be swapped: the box around Km is bound to the client's whole
//     configuration, and the one around Kc to the KcId, the client, the Entity B
//     and the expiry. Somebody who can write to the database can destroy, and
//     can put back what once was, but can't redirect a key.
package authority

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
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

	// MinLifetime leaves a Kc with a whole second to be released in: lifetimes are
	// told in whole seconds, and the one in which it was made counts as gone.
	MinLifetime     = 2 * time.Second
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

	// ErrCollision: the RelativeKcId that a handshake derived is taken. It is
	// 128 bits from both sides' randoms, so nobody will see this twice; the
	// handshake fails, the stored key stays, and the client tries again.
	ErrCollision = errors.New("the derived RelativeKcId is taken")

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
	// Revoked, when not nil, has a token when another MAF on the same store may have
	// revoked something; without it that is seen a little later.
	Revoked <-chan struct{}

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
	decoy   atomic.Pointer[[]byte] // see openDecoy
	feed    *feed
}

// New checks the configuration, and with some of the clients that the sealer
// fits the store, and returns the authority. The store and the sealer stay the
// caller's to close.
func New(ctx context.Context, c Config) (*Authority, error) {
	if len(c.FQDNs) == 0 || c.Clients == nil || c.Keys == nil || c.Sealer == nil {
		return nil, errors.New("authority: a name, both stores and a sealer are needed")
	}
	a := &Authority{
		fqdns:   make(map[onem2m.FQDN]bool),
		clients: c.Clients,
		keys:    c.Keys,
		sealer:  c.Sealer,
		now:     c.Now,
		rand:    c.Rand,
		feed:    newFeed(c.Keys, c.Revoked),
	}
	for _, name := range c.FQDNs {
		if _, err := onem2m.ParseFQDN(name.String()); err != nil {
			return nil, fmt.Errorf("authority: %w", err)
		}
		a.fqdns[name] = true
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.rand == nil {
		a.rand = rand.Reader
	}
	if err := a.makeDecoy(); err != nil {
		return nil, err
	}
	return a, a.checkSealer(ctx)
}

// checkSealer tries the sealer on some clients. The wrong keyset would otherwise
// start well and then fail every handshake. It fits if any of them opens: one
// damaged row must not keep the MAF from starting, not even one that can't be read.
func (a *Authority) checkSealer(ctx context.Context) error {
	some, err := a.clients.List(ctx, onem2m.KmID{}, 16)
	for i := range some {
		var km secret.Key
		if km, err = a.openKm(&some[i]); err == nil {
			km.Wipe()
			break
		}
	}
	return err
}

// refusal makes one of the reasons under ErrRefused.
func refusal(text string) error { return &refusedError{text} }

type refusedError struct{ text string }

func (e *refusedError) Error() string { return e.text }
func (e *refusedError) Unwrap() error { return ErrRefused }
