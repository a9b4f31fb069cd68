package saef

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

const (
	defaultMaxHandshakes = 4096
	// defaultFailuresPerSecond is what 1,500 devices with a wrong key cause that
	// try every 30 s, all behind one address; and a hundredth of what a core of a
	// small server can do.
	defaultFailuresPerSecond = 50
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
	// the key API of each: "https://maf.example.com:8443". When a MAF runs on
	// several machines, write their URLs with blanks between, the preferred one
	// first: whichever answers is used, and the first one again once it is back.
	MAFs map[onem2m.FQDN]string
	// Certificate is what this Entity B shows to the MAFs. Its subjectAltName
	// carries Entity B's CSE-ID (see docs/key-api.yaml).
	Certificate tls.Certificate
	// RootCAs vouch for the MAFs' certificates. Nil means the system's.
	// SetCertificates replaces both while Entity B runs.
	RootCAs *x509.CertPool

	// Config, when not nil, has cipher suites, timeouts and so on. GetPSK and
	// VerifyConnection are filled in. Its HandshakeTimeout is 15 s when 0.
	Config *tlspsk.Config
	// MaxHandshakes bounds the handshakes under way on each listener. A newcomer
	// gets in all the same: when there are as many, one has to make room that
	// takes unusually long, preferably one of a source with many under way; when
	// all are fast, newcomers wait. A source is an IPv4 address or an IPv6 /64.
	// 0 means 4096.
	MaxHandshakes int
	// MaxHandshakesPerSource, when not 0, bounds those of one source. It would
	// also bind a city behind one address.
	MaxHandshakesPerSource int
	// MaxFailures is how many handshakes of one source may fail, in a row or
	// with good ones in between, until it is turned away; FailuresPerSecond is
	// how many of them are forgiven in a second. Handshakes under way count too.
	// 0 means four times MaxHandshakes, and 50. A negative one sets no limit.
	MaxFailures, FailuresPerSecond int
	// MaxUnknown is how many KcIds that no MAF has one source may name, at once,
	// until MAFs are no longer asked about what it names; UnknownPerSecond is how
	// many of them are forgiven in a second. Keys that are found don't count. 0
	// means 256 and 32. A negative one sets no limit.
	MaxUnknown, UnknownPerSecond int
	// Log, when not nil, is told when a MAF can no longer be reached and when it
	// can again, and when a key is revoked.
	Log *slog.Logger
	// OnRefused, when not nil, is called when a handshake fails. It may be
	// called from several goroutines at once.
	OnRefused func(Refusal)

	start  sync.Once
	client *keyclient.Client // set by start
	keys   *keyring          // set by start
	feeds  feeds             // set by start
	err    error             // set by start
}

// Why a handshake failed, beside what is wrong with the peer's key: a Refusal's
// reason wraps one of these, or none.
var (
	// ErrTurnedAway: there were too many handshakes under way, or too many of
	// the peer's source had failed. The peer just sees the connection closed.
	ErrTurnedAway = errors.New("saef: turned away")
	// ErrMAFUnavailable: Kc is not known here, and the MAF could not be asked.
	ErrMAFUnavailable = keyclient.ErrUnavailable
	// ErrTooManyUnknown: the peer's source had named too many KcIds that no MAF
	// has, so the MAF was not asked about this one.
	ErrTooManyUnknown = errors.New("saef: too many unknown KcIds from this address; the MAF is not asked")
	// ErrRevoked: the key was revoked during the handshake.
	ErrRevoked = errors.New("saef: the key was revoked")
)

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

// SetCertificates replaces Certificate and RootCAs. Everything that is asked of
// a MAF from now on goes over new connections; associations are not touched.
func (b *EntityB) SetCertificates(certificate tls.Certificate, rootCAs *x509.CertPool) error {
	if err := b.init(); err != nil {
		return err
	}
	return b.client.SetCertificates(certificate, rootCAs)
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
	b.keys.forget()
	return nil
}

func (b *EntityB) init() error {
	b.start.Do(func() {
		if b.keys != nil {
			return // a test's
		}
		log := b.Log
		if log == nil {
			log = slog.New(slog.DiscardHandler)
		}
		client, err := keyclient.New(keyclient.Config{MAFs: b.MAFs, Certificate: b.Certificate, RootCAs: b.RootCAs, Log: log})
		if err != nil {
			b.err = fmt.Errorf("saef: %w", err)
			return
		}
		b.client, b.keys = client, newKeyring(client)
		b.keys.log, b.keys.asked.Rate = log, b.askRate()
		for maf := range b.MAFs {
			b.feeds.all = append(b.feeds.all, newFollower(b.keys, client.Feed(maf), maf))
		}
	})
	return b.err
}

// askRate is what one source may ask of the MAFs.
func (b *EntityB) askRate() admission.Rate {
	r := admission.Rate{
		Burst:     cmp.Or(b.MaxUnknown, defaultMaxUnknown),
		PerSecond: float64(cmp.Or(b.UnknownPerSecond, defaultUnknownPerSecond)),
	}
	if r.Burst < 0 || r.PerSecond < 0 {
		return admission.Rate{Burst: math.MaxInt}
	}
	return r
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

// admission is who may begin a handshake on a listener.
func (b *EntityB) admission() admission.Config {
	c := admission.Config{
		Total:     max(0, b.MaxHandshakes),
		PerSource: max(0, b.MaxHandshakesPerSource),
		Failures:  admission.Rate{Burst: b.MaxFailures, PerSecond: float64(b.FailuresPerSecond)},
	}
	if c.Total == 0 {
		c.Total = defaultMaxHandshakes
	}
	if b.MaxFailures == 0 {
		c.Failures.Burst = 4 * c.Total
	}
	if b.FailuresPerSecond == 0 {
		c.Failures.PerSecond = defaultFailuresPerSecond
	}
	if b.MaxFailures < 0 || b.FailuresPerSecond < 0 {
		c.Failures = admission.Rate{}
	}
	return c
}

// An attempt is what a handshake leaves behind for the listener, also when it
// fails. Only the handshake's goroutine touches it.
type attempt struct {
	identity string // as it came
	excused  bool   // failed for a reason that is not the peer's
	place    *admission.Handshake
	cut      func(error) // ends the handshake
	use      *use        // of the key, once there is one
}

// attemptKey is the context key of a *attempt.
type attemptKey struct{}

func (b *EntityB) getPSK(ctx context.Context, req *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		a = &attempt{cut: func(error) {}} // a test's
	}
	// From here on, a revocation of the key ends this handshake.
	use, err := b.keys.begin(ctx, req.Identity, admission.Source(req.RemoteAddr), func() { a.cut(ErrRevoked) })
	a.identity, a.use = string(req.Identity), use
	a.excused = err != nil && !errors.Is(err, tlspsk.ErrUnknownIdentity) && !errors.Is(err, ErrTooManyUnknown)
	if err != nil {
		return nil, err
	}
	return &tlspsk.PSK{Key: use.entry.kc.Bytes(), Data: use.entry}, nil
}

// verifyNotExpired fails the handshake of a Kc that expired on the way: the
// peer chooses how long that takes, within the timeout. To the peer that is what
// any expired key is.
func verifyNotExpired(ctx context.Context, cs *tlspsk.ConnectionState) error {
	e, ok := cs.PSKData.(*keyEntry)
	if !ok {
		return errors.New("saef: a session without an association") // can't be
	}
	if e.expired(time.Now()) {
		return fmt.Errorf("%w: %w", tlspsk.AlertBadRecordMAC, errExpired(e))
	}
	// The peer has proved its key, and is not shed any more while the
	// application takes its time to accept.
	if a, ok := ctx.Value(attemptKey{}).(*attempt); ok && !a.place.Commit() {
		return ErrTurnedAway
	}
	return nil
}
