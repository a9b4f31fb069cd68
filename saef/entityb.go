package saef

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

const (
	defaultMaxHandshakes = 4096
	// defaultHandshakeTimeout is shorter than tlspsk's: everyone may begin a
	// handshake here, and those who don't go on hold a place.
	defaultHandshakeTimeout = 15 * time.Second
)

// EntityB is a CSE that accepts associations with keys from MAFs.
//
// Fill in the exported fields, and don't change them after the first use. An
// EntityB may be used by any number of goroutines, and must not be copied. All
// its listeners share the keys that were fetched.
type EntityB struct {
	// MAFs are the MAFs whose keys are accepted, by FQDN, and the base URL of
	// the key API of each: "https://maf.example.com:8443".
	MAFs map[onem2m.FQDN]string
	// Certificate is what this Entity B shows to the MAFs. Its subjectAltName
	// carries Entity B's CSE-ID (see docs/key-api.yaml).
	Certificate tls.Certificate
	// RootCAs vouch for the MAFs' certificates. Nil means the system's.
	RootCAs *x509.CertPool

	// Config, when not nil, has cipher suites, timeouts and so on. GetPSK and
	// VerifyConnection are filled in. Its HandshakeTimeout is 15 s when 0.
	Config *tlspsk.Config
	// MaxHandshakes bounds the handshakes under way on each listener; further
	// connections wait. 0 means 4096.
	MaxHandshakes int
	// OnRefused, when not nil, is called when a handshake fails. It may be
	// called from several goroutines at once.
	OnRefused func(Refusal)

	start  sync.Once
	client *keyclient.Client // set by start
	keys   *keyring          // set by start
	err    error             // set by start
}

// Refusal says why a handshake failed. What the peer got to know is less: one
// alert for all kinds of wrong keys.
type Refusal struct {
	RemoteAddr net.Addr
	// Identity is the psk_identity as it came, of any octets, at most 1024 of
	// them. It is empty when the handshake failed before the peer sent one.
	Identity string
	// Err is, or wraps, a *tlspsk.AlertError when either side sent an alert. For
	// a KcId that there is no key for it wraps tlspsk.ErrUnknownIdentity.
	Err error
}

// Listen announces on a local address: "tcp" (or one of its variants) for TLS,
// "udp" for DTLS.
func (b *EntityB) Listen(network, addr string) (*Listener, error) {
	if err := b.init(); err != nil {
		return nil, err
	}
	inner, err := tlspsk.Listen(network, addr, b.serverConfig())
	if err != nil {
		return nil, err
	}
	return newListener(inner, b), nil
}

// Close closes the idle connections to the MAFs and forgets all keys. Listeners
// and associations go on.
func (b *EntityB) Close() error {
	if err := b.init(); err != nil {
		return nil // there is nothing to close
	}
	if b.client != nil {
		b.client.CloseIdleConnections()
	}
	b.keys.mu.Lock()
	defer b.keys.mu.Unlock()
	clear(b.keys.keys)
	return nil
}

func (b *EntityB) init() error {
	b.start.Do(func() {
		if b.keys != nil {
			return // a test's
		}
		client, err := keyclient.New(keyclient.Config{MAFs: b.MAFs, Certificate: b.Certificate, RootCAs: b.RootCAs})
		if err != nil {
			b.err = fmt.Errorf("saef: %w", err)
			return
		}
		b.client, b.keys = client, newKeyring(client)
	})
	return b.err
}

func (b *EntityB) serverConfig() *tlspsk.Config {
	var config tlspsk.Config
	if b.Config != nil {
		config = *b.Config
	}
	if config.HandshakeTimeout <= 0 {
		config.HandshakeTimeout = defaultHandshakeTimeout
	}
	config.GetPSK = b.getPSK
	config.VerifyConnection = verifyNotExpired
	return &config
}

// identityKey is the context key under which a handshake's psk_identity leaves
// getPSK, for Refusal: a connection that failed doesn't tell it.
type identityKey struct{}

func (b *EntityB) getPSK(ctx context.Context, req *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
	if identity, ok := ctx.Value(identityKey{}).(*string); ok {
		*identity = string(req.Identity)
	}
	e, err := b.keys.lookUp(ctx, req.Identity, sourceOf(req.RemoteAddr))
	if err != nil {
		return nil, err
	}
	return &tlspsk.PSK{Key: e.kc.Bytes(), Data: e}, nil
}

// verifyNotExpired fails the handshake of a Kc that expired on the way: the
// peer chooses how long that takes, within the timeout. To the peer that is what
// any expired key is.
func verifyNotExpired(_ context.Context, cs *tlspsk.ConnectionState) error {
	e, ok := cs.PSKData.(*keyEntry)
	if !ok {
		return errors.New("saef: a session without an association") // can't be
	}
	if e.expired(time.Now()) {
		return fmt.Errorf("%w: %w", tlspsk.AlertBadRecordMAC, errExpired(e))
	}
	return nil
}
