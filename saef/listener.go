package saef

import (
	"context"
	"net"
	"sync"

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
	accepted chan *Conn
	failed   chan error
	places   chan struct{} // one element for each handshake under way

	ctx    context.Context // ends with the listener
	cancel context.CancelFunc
	all    sync.WaitGroup // acceptLoop and the handshakes
}

func newListener(inner net.Listener, b *EntityB) *Listener {
	places := b.MaxHandshakes
	if places <= 0 {
		places = defaultMaxHandshakes
	}
	l := &Listener{
		inner:    inner,
		b:        b,
		accepted: make(chan *Conn),
		failed:   make(chan error),
		places:   make(chan struct{}, places),
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
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
	return err
}

// acceptLoop begins a handshake with everyone who connects.
func (l *Listener) acceptLoop() {
	for {
		select {
		case l.places <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		c, err := l.inner.Accept()
		if err == nil {
			l.all.Go(func() {
				defer func() { <-l.places }()
				l.handshake(c.(*tlspsk.Conn))
			})
			continue
		}
		<-l.places
		// Such as too many open files. It is the caller's to judge, and until
		// the caller comes for it we don't try again.
		select {
		case l.failed <- err:
		case <-l.ctx.Done():
			return
		}
	}
}

func (l *Listener) handshake(c *tlspsk.Conn) {
	var identity string
	ctx := context.WithValue(l.ctx, identityKey{}, &identity)
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		if l.b.OnRefused != nil && l.ctx.Err() == nil {
			l.b.OnRefused(Refusal{c.RemoteAddr(), identity, err})
		}
		return
	}
	e := c.ConnectionState().PSKData.(*keyEntry) // verifyNotExpired has seen to it
	select {
	case l.accepted <- &Conn{c, e.association}:
	case <-l.ctx.Done():
		c.Close()
	}
}
