package saef

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// Device is Entity A: it shares a master key with a MAF and opens associations
// with the Entity B that the MAF has configured for it.
//
// Fill in the first fields, and don't change them after the first use. A Device
// may be used by any number of goroutines, and must not be copied.
type Device struct {
	// MAF is the address of the MAF's handshake endpoint, "host:port".
	MAF string
	// KmID and Km are the device's master key, as registered with the MAF.
	KmID onem2m.KmID
	Km   Secret

	// MAFNetwork is "tcp" (TLS, the default) or "udp" (DTLS) for the MAF
	// Handshake. It need not be what associations use.
	MAFNetwork string
	// Lifetime, when not 0, is for how long a Kc is used before the device makes
	// itself a new one unasked. Without it a Kc is used until Entity B refuses
	// it, which costs the first Dial after that one round more; the MAF does not
	// tell the device how long its keys live (8.2.2.3).
	Lifetime time.Duration
	// Cache, when not nil, keeps the Kc between runs of the program.
	Cache Cache
	// Config, when not nil, has cipher suites, timeouts and so on for all
	// handshakes. Identity, Key and ServerName are filled in.
	Config *tlspsk.Config
	// Log, when not nil, is told when a Kc is established, refused by Entity B,
	// or can't be read from or written to Cache.
	Log *slog.Logger

	mu      sync.Mutex
	started bool // Cache has been asked; guarded by mu
	key     Key  // the current one, or zero; guarded by mu

	renewals flights[struct{}, Key]
}

// What an error of Device is about: with whom it failed.
var (
	// ErrMAF is wrapped when the MAF Handshake failed: the MAF was not reached,
	// or refused the master key.
	ErrMAF = errors.New("saef: MAF Handshake")
	// ErrEntityB is wrapped when the association failed: Entity B was not
	// reached, or refused a Kc that the MAF had just made.
	ErrEntityB = errors.New("saef: association")
)

// Cache keeps the current Kc of one device.
type Cache interface {
	// Load returns what was last stored for the master key, or the zero Key
	// when there is nothing.
	Load(onem2m.KmID) (Key, error)
	// Store keeps a key in the place of any earlier one.
	Store(onem2m.KmID, Key) error
}

// Dial opens an association with the Entity B at addr. The network is "tcp" or
// "udp" (or one of their variants in package net) for TLS or DTLS.
//
// When there is no Kc, Dial does a MAF Handshake first. When Entity B refuses
// the Kc that there was, because it has expired or was revoked, Dial does one
// and tries once more. Goroutines that need a Kc at the same time share one MAF
// Handshake.
//
// An error wraps ErrMAF or ErrEntityB, whoever was the other side; one that this
// side sent wraps a *tlspsk.AlertError.
func (d *Device) Dial(ctx context.Context, network, addr string) (*tlspsk.Conn, error) {
	key, fresh, err := d.currentKey(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := d.open(ctx, network, addr, key)
	if err == nil || fresh || !refusesKey(err) {
		return conn, err
	}
	d.log().Info("Entity B refused Kc", "KcID", key.KcID, "addr", addr, "error", err)
	if key, err = d.renew(ctx, key.KcID); err != nil {
		return nil, err
	}
	return d.open(ctx, network, addr, key)
}

// Handshake does a MAF Handshake, whatever Kc there is already, and returns the
// new key, which Dial will use from then on.
func (d *Device) Handshake(ctx context.Context) (Key, error) {
	d.mu.Lock()
	current := d.load().KcID
	d.mu.Unlock()
	return d.renew(ctx, current)
}

// currentKey returns a key to try. fresh says that it was established just now,
// so that another one would fare no better.
func (d *Device) currentKey(ctx context.Context) (key Key, fresh bool, err error) {
	d.mu.Lock()
	key = d.load()
	d.mu.Unlock()
	if d.usable(key) {
		return key, false, nil
	}
	key, err = d.renew(ctx, key.KcID)
	return key, true, err
}

// load returns the current key, from the cache if need be. d.mu is held.
func (d *Device) load() Key {
	if d.started {
		return d.key
	}
	d.started = true
	if d.Cache == nil {
		return d.key
	}
	key, err := d.Cache.Load(d.KmID)
	if err != nil {
		// A cache that can't be read is an empty one: the next key heals it.
		d.log().Warn("cannot read the cached Kc", "error", err)
		return d.key
	}
	d.key = key
	return d.key
}

func (d *Device) usable(k Key) bool {
	return !k.IsZero() && (d.Lifetime <= 0 || time.Since(k.Established) < d.Lifetime)
}

// renew replaces the key named old, unless somebody else has done so already.
func (d *Device) renew(ctx context.Context, old onem2m.KcID) (Key, error) {
	key, err := d.renewals.do(ctx, struct{}{}, func(ctx context.Context) (Key, error) {
		d.mu.Lock()
		current := d.key
		d.mu.Unlock()
		if current.KcID != old && d.usable(current) {
			return current, nil
		}
		key, err := d.mafHandshake(ctx)
		if err != nil {
			return Key{}, err
		}
		d.log().Info("established Kc", "KcID", key.KcID, "MAF", d.MAF)
		d.mu.Lock()
		d.key = key
		d.mu.Unlock()
		if d.Cache != nil {
			if err := d.Cache.Store(d.KmID, key); err != nil {
				d.log().Warn("cannot cache Kc", "error", err)
			}
		}
		return key, nil
	})
	if err != nil {
		return Key{}, fmt.Errorf("%w with %s: %w", ErrMAF, d.MAF, err)
	}
	return key, nil
}

// mafHandshake proves the master key to the MAF and derives Kc from the session
// (8.2.2.3, 10.3.1). The MAF completes the handshake only when Kc is in its
// store, so Entity B will find it.
func (d *Device) mafHandshake(ctx context.Context) (Key, error) {
	if d.KmID.IsZero() || d.Km.IsZero() {
		return Key{}, errors.New("the device has no KmID or no Km")
	}
	network := d.MAFNetwork
	if network == "" {
		network = "tcp"
	}
	conn, err := d.dial(ctx, network, d.MAF, tlspsk.Config{
		Identity: []byte(d.KmID.String()),
		Key:      d.Km.Bytes(),
		// Which MAF of those at this address (10.2.1).
		ServerName: d.KmID.FQDN.String(),
	})
	if err != nil {
		return Key{}, err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	exported, err := state.ExportKeyingMaterial(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
	if err != nil {
		return Key{}, err
	}
	defer clear(exported)
	relative, kc, err := kdf.Connection(exported)
	if err != nil {
		return Key{}, err
	}
	return Key{KcID: onem2m.KcID{Relative: relative, FQDN: d.KmID.FQDN}, Kc: kc, Established: time.Now()}, nil
}

// open does the Association Security Handshake.
func (d *Device) open(ctx context.Context, network, addr string, key Key) (*tlspsk.Conn, error) {
	conn, err := d.dial(ctx, network, addr, tlspsk.Config{
		Identity:   []byte(key.KcID.String()),
		Key:        key.Kc.Bytes(),
		ServerName: serverName(addr),
	})
	if err != nil {
		return nil, fmt.Errorf("%w with %s: %w", ErrEntityB, addr, err)
	}
	return conn, nil
}

// dial connects with d.Config, save for who we are and what the server is
// called.
func (d *Device) dial(ctx context.Context, network, addr string, who tlspsk.Config) (*tlspsk.Conn, error) {
	var config tlspsk.Config
	if d.Config != nil {
		config = *d.Config
	}
	config.Identity, config.Key, config.ServerName = who.Identity, who.Key, who.ServerName
	conn, err := (&tlspsk.Dialer{Config: &config}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	return conn.(*tlspsk.Conn), nil
}

// serverName returns what SNI says for an address: its host, unless that is an
// IP address, which SNI does not carry (RFC 6066 3).
func serverName(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	name, err := onem2m.ParseFQDN(host)
	if err != nil {
		return ""
	}
	return name.String()
}

// refusesKey reports whether a handshake failed the way it does when the server
// doesn't know the key or has another one under that identity. Which alert says
// so differs between implementations: RFC 4279 2 leaves two for an unknown
// identity and has decrypt_error for a wrong key, which most stacks notice as
// bad_record_mac.
//
// Anyone on the path can forge such an alert, and gains one MAF Handshake per
// Dial.
func refusesKey(err error) bool {
	var alert *tlspsk.AlertError
	if !errors.As(err, &alert) || !alert.Remote {
		return false
	}
	switch alert.Alert {
	case tlspsk.AlertUnknownPSKIdentity, tlspsk.AlertDecryptError, tlspsk.AlertBadRecordMAC, tlspsk.AlertHandshakeFailure:
		return true
	}
	return false
}

func (d *Device) log() *slog.Logger {
	if d.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return d.Log
}
