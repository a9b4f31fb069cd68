package mafd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// An endpoint serves MAF Handshakes (TS-0003 8.2.2.3) on any number of
// listeners, TLS and DTLS.
//
// The flow needs nothing after the handshake: the client has Kc when it gets
// our Finished. The session is kept for a while all the same, because it is the
// client's to close, and because over DTLS the client may not have got our
// last flight and ask for it again.
type endpoint struct {
	authority keyMaker
	config    HandshakeConfig
	idle      atomic.Int64 // config.IdleTimeout, which a reload changes
	log       *outcomeLog
	metrics   *metrics
	audit     *auditTrail
	tls, dtls *door
	devices   admission.Buckets[onem2m.KmID] // those that got a Kc lately

	ctx   context.Context // every handshake's
	abort context.CancelFunc

	mu      sync.Mutex
	closing bool              // guarded by mu
	conns   map[net.Conn]bool // guarded by mu; true after the handshake
	wg      sync.WaitGroup    // one for each of conns
}

// keyMaker is what the endpoint needs of the authority.
type keyMaker interface {
	MasterKey(ctx context.Context, identity []byte, sni string) (*authority.Master, error)
	Establish(ctx context.Context, m *authority.Master, export authority.Exporter) (authority.Issued, error)
}

// After the handshake a client has nothing to say that we would answer. What
// it says is dropped, and who goes on talking is closed.
const (
	maxIdleReads = 64
	idleBuffer   = 512
)

// maxDevices is how many devices are remembered for the Kcs that they got, in some
// hundred octets each.
const maxDevices = 1 << 16

// devices is how many Kcs one device may get.
func (c *HandshakeConfig) devices() admission.Rate {
	if c.DeviceBurst == 0 {
		return admission.Rate{} // no limit
	}
	return admission.Rate{Burst: c.DeviceBurst, PerSecond: 1 / c.DeviceInterval.Seconds()}
}

// errTooMany is why a device gets no further Kc for now. It is told: it has proved
// who it is.
var errTooMany = fmt.Errorf("%w: this device got too many keys lately", tlspsk.AlertAccessDenied)

// newEndpoint returns an endpoint with at most tlsPlaces handshakes over TLS
// under way, and as many over DTLS as config says.
func newEndpoint(a keyMaker, config HandshakeConfig, tlsPlaces int, log *outcomeLog, metrics *metrics) *endpoint {
	ctx, abort := context.WithCancel(context.Background())
	e := &endpoint{
		authority: a,
		config:    config,
		log:       log,
		metrics:   metrics,
		tls:       newDoor("tls", config, tlsPlaces, log.log),
		dtls:      newDoor("dtls", config, config.MaxConcurrent, log.log),
		devices:   admission.Buckets[onem2m.KmID]{Rate: config.devices(), Max: maxDevices},
		ctx:       ctx,
		abort:     abort,
		conns:     make(map[net.Conn]bool),
	}
	e.idle.Store(int64(config.IdleTimeout))
	return e
}

// setLimits puts those limits of a new configuration to use that can change while
// handshakes are under way.
func (e *endpoint) setLimits(c *HandshakeConfig) {
	e.idle.Store(int64(c.IdleTimeout))
	e.devices.SetRate(c.devices())
	for _, d := range []*door{e.tls, e.dtls} {
		d.gate.SetLimits(c.MaxPerSource, c.failures())
	}
}

// open reports whether the endpoint lets clients in.
func (e *endpoint) open() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.closing
}

// door returns the door that a listener belongs to.
func (e *endpoint) door(l net.Listener) *door {
	if transport(l.Addr()) == "dtls" {
		return e.dtls
	}
	return e.tls
}

// engine returns the configuration for the endpoint's listeners.
func (e *endpoint) engine() *tlspsk.Config {
	c := &tlspsk.Config{
		GetPSK:           e.masterKey,
		VerifyConnection: e.establish,
		CipherSuites:     e.config.Suites,
		HandshakeTimeout: e.config.Timeout,
	}
	if e.config.RequireExtendedMasterSecret {
		c.ExtendedMasterSecret = tlspsk.PolicyRequire
	}
	return c
}

// An attempt is what is known of a handshake, for its later steps and the log.
// Only the handshake's goroutine touches it.
type attempt struct {
	identity   []byte // as it came, hostile until issued is set
	serverName string
	suite      uint16
	ems        bool
	refused    error // why the authority refused, which the client isn't told
	ours       bool  // it failed, and that is our own fault
	master     *authority.Master
	conn       net.Conn
	place      *admission.Handshake
	issued     authority.Issued

	// When it began; when the client had named itself, and its Km was found; when
	// it had proved to have it, and Kc was stored.
	began, named, found, proved, committed time.Time
}

type attemptKey struct{}

// attemptOf returns the attempt that handle put into the handshake's context.
func attemptOf(ctx context.Context) *attempt { return ctx.Value(attemptKey{}).(*attempt) }

// masterKey is the engine's GetPSK.
func (e *endpoint) masterKey(ctx context.Context, r *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
	a := attemptOf(ctx)
	a.named = time.Now()
	a.identity = bytes.Clone(r.Identity)
	a.serverName, a.suite, a.ems = r.ServerName, r.CipherSuite, r.ExtendedMasterSecret
	master, err := e.authority.MasterKey(ctx, r.Identity, r.ServerName)
	if errors.Is(err, authority.ErrRefused) {
		// Whatever the reason, to the client it is a wrong key: else it could
		// find out which devices there are.
		a.refused = err
		return nil, fmt.Errorf("%w: %w", tlspsk.ErrUnknownIdentity, err)
	}
	if err != nil {
		a.ours = true
		return nil, err
	}
	a.master, a.found = master, time.Now()
	return &tlspsk.PSK{Key: master.Km.Bytes()}, nil
}

// establish is the engine's VerifyConnection. The engine sends our Finished
// after it returns, so Kc is on stable storage before the client has it.
func (e *endpoint) establish(ctx context.Context, cs *tlspsk.ConnectionState) (err error) {
	a := attemptOf(ctx)
	a.proved = time.Now()
	// The client has proved its key. From here on it is not shed, but waits for
	// us only.
	if !a.place.Commit() {
		return admission.ErrShed
	}
	if !e.devices.Take(a.master.Client.KmID) {
		a.refused = errTooMany
		return errTooMany
	}
	if err := e.audit.ready(); err != nil {
		a.ours = true
		return err
	}
	issued, err := e.authority.Establish(ctx, a.master, cs.ExportKeyingMaterial)
	if errors.Is(err, authority.ErrRefused) {
		// Removed or disabled a moment ago: the same as a moment later.
		a.refused = err
		return fmt.Errorf("%w: %w", tlspsk.AlertBadRecordMAC, err)
	}
	a.committed = time.Now()
	if err == nil {
		a.issued = issued
		err = e.audit.established(ctx, a.conn, &issued)
	}
	a.ours = err != nil
	return err
}

// serve accepts connections until the listener is closed or the endpoint
// closes. It accepts all there are and decides then: left in the queue, honest
// clients would wait behind those who don't go on.
func (e *endpoint) serve(l net.Listener) {
	d := e.door(l)
	var pause time.Duration
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			pause = 0
			e.begin(d, conn.(*tlspsk.Conn))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			// What else fails is the machine's state, such as too many open
			// files. It passes, and ending would help nobody.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			e.log.acceptFailed(l.Addr(), err)
			time.Sleep(pause)
		}
	}
}

// begin starts to handle a new connection, if it may come in.
func (e *endpoint) begin(d *door, conn *tlspsk.Conn) {
	ctx, cut := context.WithCancelCause(e.ctx)
	place, err := d.gate.Enter(admission.Source(conn.RemoteAddr()), func() { cut(admission.ErrShed) })
	switch {
	case err != nil:
		e.log.turnedAway(conn, err)
		e.audit.turnedAway(conn, err)
		e.metrics.turnedAway.WithLabelValues(transport(conn.LocalAddr()), turnedAwayLabel(err)).Inc()
		d.pressure.allow()
	case !e.enter(conn):
		place.Leave(false)
	default:
		go func() {
			defer cut(nil)
			e.handle(ctx, d, conn, place)
		}()
		return
	}
	cut(nil)
	conn.Close()
}

// enter notes a new connection, unless the endpoint is closing.
func (e *endpoint) enter(conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	e.conns[conn] = false
	e.wg.Add(1)
	return true
}

func (e *endpoint) leave(conn net.Conn) {
	e.mu.Lock()
	delete(e.conns, conn)
	e.mu.Unlock()
	e.wg.Done()
}

// handle serves one connection to its end.
func (e *endpoint) handle(ctx context.Context, d *door, conn *tlspsk.Conn, place *admission.Handshake) {
	defer e.leave(conn)
	defer conn.Close()
	a := attempt{conn: conn, place: place, began: time.Now()}
	err := conn.HandshakeContext(context.WithValue(ctx, attemptKey{}, &a))
	if errors.Is(err, admission.ErrShed) {
		d.pressure.allow()
	}
	ended := time.Now()
	e.metrics.handshake(transport(conn.LocalAddr()), &a, ended, err)
	e.log.handshake(conn, &a, ended.Sub(a.began), err)
	if err != nil {
		e.audit.failed(conn, &a, err)
	}
	if a.master != nil {
		a.master.Km.Wipe()
	}
	place.Leave(err != nil && !a.ours && e.ctx.Err() == nil)
	if err == nil && e.established(d, conn) {
		idle(conn, time.Duration(e.idle.Load()))
		<-d.sessions
	}
}

// established notes that a connection's handshake is done and reports whether
// it may stay open, which takes a token of d.sessions.
func (e *endpoint) established(d *door, conn net.Conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closing {
		return false
	}
	select {
	case d.sessions <- struct{}{}:
		e.conns[conn] = true
		return true
	default: // Too many. Closing costs a client nothing, save for DTLS's repeat.
		return false
	}
}

// idle waits for the client to close, or to stay silent for too long.
func idle(conn net.Conn, timeout time.Duration) {
	var buffer [idleBuffer]byte
	for range maxIdleReads {
		conn.SetDeadline(time.Now().Add(timeout))
		if _, err := conn.Read(buffer[:]); err != nil && !errors.Is(err, io.ErrShortBuffer) {
			return
		}
	}
}

// drain closes the sessions and lets handshakes under way end, until ctx does;
// then it ends them. New connections are not served any more.
func (e *endpoint) drain(ctx context.Context) {
	e.mu.Lock()
	e.closing = true
	for conn, established := range e.conns {
		if established {
			go conn.Close() // says close_notify, which may block
		}
	}
	e.mu.Unlock()

	done := make(chan struct{})
	go func() {
		e.wg.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
	e.abort()
	<-done
	e.tls.pressure.flush()
	e.dtls.pressure.flush()
}
