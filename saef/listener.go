package saef

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/tlspsk"
)

// Listener accepts associations. It is a net.Listener, so that for example
// http.Serve works on it.
//
// It does the handshakes itself and side by side: a slow peer keeps nobody
// waiting, and whoever is accepted has proved to have Kc.
type Listener struct {
	inner    net.Listener
	b        *EntityB
	gate     *admission.Gate
	accepted chan *Conn
	failed   chan error

	ctx    context.Context // ends with the listener
	cancel context.CancelFunc
	all    sync.WaitGroup // acceptLoop and the handshakes
}

func newListener(inner net.Listener, b *EntityB) *Listener {
	l := &Listener{
		inner:    inner,
		b:        b,
		gate:     admission.NewGate(b.admission()),
		accepted: make(chan *Conn),
		failed:   make(chan error),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	b.feeds.enter()
	l.all.Go(l.acceptLoop)
	return l
}

// Accept waits for the next association, whose net.Conn is a *Conn.
func (l *Listener) Accept() (net.Conn, error) {
	c, err := l.AcceptAssociation()
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	return c, nil
}

// AcceptAssociation is Accept for those who want the *Conn.
func (l *Listener) AcceptAssociation() (*Conn, error) {
	if l.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	select {
	case c := <-l.accepted:
		return c, nil
	case err := <-l.failed:
		return nil, err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Close stops listening and ends the handshakes under way. Associations that
// were accepted go on.
func (l *Listener) Close() error {
	if l.ctx.Err() != nil {
		return net.ErrClosed
	}
	l.cancel()
	err := l.inner.Close()
	l.all.Wait()
	l.b.feeds.leave()
	return err
}

// acceptLoop begins a handshake with everyone who connects.
func (l *Listener) acceptLoop() {
	for {
		c, err := l.inner.Accept()
		if err == nil {
			l.begin(c.(*tlspsk.Conn))
			continue
		}
		// Such as too many open files. It is the caller's to judge, and until
		// the caller comes for it we don't try again.
		select {
		case l.failed <- err:
		case <-l.ctx.Done():
			return
		}
	}
}

// begin starts a handshake, if the peer may begin one.
func (l *Listener) begin(c *tlspsk.Conn) {
	ctx, cut := context.WithCancelCause(l.ctx)
	place, err := l.gate.Enter(admission.Source(c.RemoteAddr()), func() { cut(ErrTurnedAway) })
	if err != nil {
		cut(nil)
		c.Close()
		l.refused(c, "", fmt.Errorf("%w: %w", ErrTurnedAway, err))
		return
	}
	l.all.Go(func() {
		defer cut(nil)
		a := attempt{place: place, cut: cut}
		err := l.handshake(context.WithValue(ctx, attemptKey{}, &a), c, &a)
		excused := a.excused || errors.Is(err, ErrRevoked) || l.ctx.Err() != nil
		place.Leave(err != nil && !excused)
		if err != nil {
			l.refused(c, a.identity, err)
		}
	})
}

// handshake does a handshake and hands the association to Accept. An error is
// the handshake's.
func (l *Listener) handshake(ctx context.Context, c *tlspsk.Conn, a *attempt) error {
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		l.b.keys.end(a.use)
		return err
	}
	e := c.ConnectionState().PSKData.(*keyEntry) // verifyNotExpired has seen to it
	conn := &Conn{Conn: c, association: e.association, b: l.b, use: a.use}
	l.b.feeds.enter()
	// From here on, a revocation of the key ends the connection.
	if !l.b.keys.change(a.use, func() { c.Close() }) {
		conn.Close()
		a.excused = true
		return ErrRevoked
	}
	select {
	case l.accepted <- conn:
	case <-l.ctx.Done():
		conn.Close()
	}
	return nil
}

func (l *Listener) refused(c *tlspsk.Conn, identity string, err error) {
	if l.b.OnRefused != nil && l.ctx.Err() == nil {
		l.b.OnRefused(Refusal{c.RemoteAddr(), identity, err})
	}
}

// HandshakeStats are a listener's counters.
type HandshakeStats struct {
	// UnderWay is how many handshakes are under way now, or done and waiting for
	// Accept; Peak is the most that ever were.
	UnderWay, Peak int
	// What follows only grows. Admitted handshakes succeed, fail, are shed to
	// make room for others, or end for a reason that is not the peer's, such as
	// a MAF that can't be reached.
	Admitted, Failed, Shed uint64
	// Turned away before a handshake: too many of their source had failed, or
	// were under way.
	RefusedFailing, RefusedCrowded uint64
}

// Stats returns the counters as they are now.
func (l *Listener) Stats() HandshakeStats { return HandshakeStats(l.gate.Stats()) }
