package tlspsk

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Conn is one end of a TLS or DTLS session. It is a net.Conn: all its
// methods may be called from several goroutines.
//
// Over DTLS each Write sends one record in one datagram, or fails with
// ErrTooLarge, and each Read returns the content of one record, or fails with
// io.ErrShortBuffer and drops what did not fit. Records may be lost or
// reordered, as datagrams are; none is delivered twice.
type Conn struct {
	t        transport
	config   *Config
	isClient bool

	// handshakeMu is held by the goroutine that does the handshake.
	handshakeMu  sync.Mutex
	handshakeErr error // guarded by handshakeMu
	// complete is set once the handshake is done and state is final.
	complete atomic.Bool
	state    ConnectionState // written under closeMu before complete is set

	closeMu sync.Mutex // guards what follows
	closed  bool
	// endHandshake ends the handshake under way; nil when there is none.
	endHandshake context.CancelCauseFunc
}

// Client returns a TLS client on conn, which the Conn takes over. The
// handshake is done by the first Read, Write or call of Handshake.
func Client(conn net.Conn, config *Config) *Conn {
	return newConn(newStream(conn, true), config, true)
}

// Server returns a TLS server on conn, which the Conn takes over. The
// handshake is done by the first Read, Write or call of Handshake.
func Server(conn net.Conn, config *Config) *Conn {
	return newConn(newStream(conn, false), config, false)
}

func newConn(t transport, config *Config, isClient bool) *Conn {
	return &Conn{t: t, config: config, isClient: isClient}
}

// Handshake does the handshake, unless that is done or has failed already.
func (c *Conn) Handshake() error { return c.HandshakeContext(context.Background()) }

// HandshakeContext does the handshake, unless that is done or has failed
// already. When ctx ends or Config.HandshakeTimeout is over before it is
// complete, the connection can't be used any more; it is to be closed all the
// same. Errors that the protocol knows are, or wrap, an *AlertError.
func (c *Conn) HandshakeContext(ctx context.Context) error {
	if c.complete.Load() {
		return nil
	}
	c.handshakeMu.Lock()
	defer c.handshakeMu.Unlock()
	if c.complete.Load() || c.handshakeErr != nil {
		return c.handshakeErr
	}
	if c.handshakeErr = c.handshake(ctx); c.handshakeErr == nil {
		c.complete.Store(true)
	}
	return c.handshakeErr
}

// errHandshakeTimeout is a net.Error with Timeout() true, as a deadline's.
type errHandshakeTimeout struct{}

func (errHandshakeTimeout) Error() string   { return "tlspsk: handshake timed out" }
func (errHandshakeTimeout) Timeout() bool   { return true }
func (errHandshakeTimeout) Temporary() bool { return true }

// handshake runs with handshakeMu held.
func (c *Conn) handshake(ctx context.Context) error {
	if err := c.config.check(c.isClient); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.config.handshakeTimeout(), errHandshakeTimeout{})
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if !c.beginHandshake(end) {
		return net.ErrClosed
	}
	stop := context.AfterFunc(ctx, c.t.abort)
	h := newHandshaker(ctx, c)
	var err error
	if c.isClient {
		err = h.client()
	} else {
		err = h.server()
	}
	if a, ok := alertFor(err); ok {
		c.t.sendAlert(alertLevelFatal, a) // which may block, so ctx still counts
	}
	if !stop() {
		// The transport has been cut, perhaps just after the last message.
		err = context.Cause(ctx)
	}
	h.state.HandshakeComplete = err == nil
	if err = c.leaveHandshake(h.state, err); err != nil {
		h.state.exporter.close() // VerifyConnection may have kept it
		return err
	}
	c.t.finishHandshake()
	return nil
}

// beginHandshake notes how Close can end the handshake. It returns false after
// Close.
func (c *Conn) beginHandshake(end context.CancelCauseFunc) bool {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	c.endHandshake = end
	return !c.closed
}

// leaveHandshake notes the state of a handshake that is done, unless err says that
// it has failed, and returns err. It fails after Close, which has not found the
// state and would leave the master secret in it.
func (c *Conn) leaveHandshake(state ConnectionState, err error) error {
	c.closeMu.Lock()
	defer c.closeMu.Unlock()
	c.endHandshake = nil // else it keeps the context, and what that holds
	if err == nil && c.closed {
		return net.ErrClosed
	}
	if err == nil {
		c.state = state
	}
	return err
}

// ConnectionState returns what is known of the session. While a handshake
// runs, that is its zero value.
func (c *Conn) ConnectionState() ConnectionState {
	if !c.complete.Load() {
		return ConnectionState{LocalAddr: c.t.LocalAddr(), RemoteAddr: c.t.RemoteAddr()}
	}
	return c.state
}

// Read reads application data, after the handshake. It returns io.EOF only
// when the peer has said that there is no more: a connection that is cut gives
// io.ErrUnexpectedEOF.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	return c.t.read(p)
}

// Write writes application data, after the handshake.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.Handshake(); err != nil {
		return 0, err
	}
	return c.t.write(p)
}

// CloseWrite tells the peer that no more data will come. Reading goes on.
func (c *Conn) CloseWrite() error {
	if !c.complete.Load() {
		return errors.New("tlspsk: CloseWrite before the handshake is complete")
	}
	return c.t.closeWrite()
}

// Close tells the peer, closes the underlying connection, and makes calls that
// are blocked return; the context of a callback that a handshake waits for ends.
// It forgets the master secret, so that nothing can be exported any more.
func (c *Conn) Close() error {
	c.closeMu.Lock()
	if c.closed {
		c.closeMu.Unlock()
		return net.ErrClosed
	}
	c.closed = true
	end, exporter := c.endHandshake, c.state.exporter
	c.closeMu.Unlock()
	err := c.t.close()
	if end != nil {
		end(net.ErrClosed)
	}
	exporter.close()
	return err
}

// SetDeadline sets the read and write deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.t.setReadDeadline(t), c.t.setWriteDeadline(t))
}

// SetReadDeadline sets the deadline of Read. A Read that ran into it may be
// repeated, unless it was doing the handshake: that fails for good.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.t.setReadDeadline(t) }

// SetWriteDeadline sets the deadline of Write. After a TLS Write ran into it,
// nothing more can be written.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.t.setWriteDeadline(t) }

// LocalAddr returns the local address.
func (c *Conn) LocalAddr() net.Addr { return c.t.LocalAddr() }

// RemoteAddr returns the peer's address.
func (c *Conn) RemoteAddr() net.Addr { return c.t.RemoteAddr() }
