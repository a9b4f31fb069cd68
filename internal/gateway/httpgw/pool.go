package httpgw

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/http1"
)

// A pool holds the connections to one CSE.
type pool struct {
	address     string
	dialer      net.Dialer
	maxIdle     int
	idleTimeout time.Duration
	// One element for each connection that is in use: for requests that are to
	// be answered at once, and for those that may wait.
	places, polls chan struct{}

	mu     sync.Mutex
	idle   []*backendConn // the last used last; guarded by mu
	closed bool           // guarded by mu
}

// A backendConn is a connection to a CSE. Whoever has it is its only user.
type backendConn struct {
	conn    net.Conn
	reader  *http1.Reader
	used    bool          // for an earlier request
	silent  bool          // the CSE has not begun to answer the last request
	idle    time.Time     // since when
	place   chan struct{} // from which it has an element
	probe   probe
	vectors [2][]byte
	buffers net.Buffers // of vectors
}

func (p *pool) init(address string, c BackendConfig) {
	p.address = address
	p.dialer.Timeout = c.DialTimeout
	p.maxIdle = c.MaxIdle
	p.idleTimeout = c.IdleTimeout
	p.places = make(chan struct{}, c.MaxConns)
	p.polls = make(chan struct{}, c.MaxPolls)
}

// get returns a connection with one of the places, an idle one when there is one
// that is alive.
func (p *pool) get(ctx context.Context, deadline time.Time, places chan struct{}) (*backendConn, error) {
	if err := occupy(ctx, deadline, places); err != nil {
		return nil, err
	}
	for {
		c := p.pop()
		if c == nil {
			return p.connect(ctx, deadline, places)
		}
		if time.Since(c.idle) < p.idleTimeout && c.probe.isAlive() {
			c.place = places
			return c, nil
		}
		c.conn.Close()
	}
}

// occupy waits for a place.
func occupy(ctx context.Context, deadline time.Time, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *pool) pop() *backendConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	c := p.idle[last]
	p.idle = p.idle[:last]
	return c
}

// dial returns a new connection with one of the places.
func (p *pool) dial(ctx context.Context, deadline time.Time, places chan struct{}) (*backendConn, error) {
	if err := occupy(ctx, deadline, places); err != nil {
		return nil, err
	}
	return p.connect(ctx, deadline, places)
}

// connect dials, for a place that the caller has, and gives it back on failure.
func (p *pool) connect(ctx context.Context, deadline time.Time, places chan struct{}) (*backendConn, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	conn, err := p.dialer.DialContext(ctx, "tcp", p.address)
	if err != nil {
		<-places
		return nil, err
	}
	c := &backendConn{conn: conn, place: places, reader: http1.NewReader(conn), probe: newProbe(conn)}
	c.reader.Lenient = true
	return c, nil
}

// put keeps a connection for later, or closes it.
func (p *pool) put(c *backendConn) {
	place := c.place // c is another's as soon as it is in idle
	now := time.Now()
	c.used, c.idle = true, now
	p.mu.Lock()
	keep := len(p.idle) < p.maxIdle && !p.closed
	var stale *backendConn
	if keep {
		p.idle = append(p.idle, c)
		// The first has been idle for the longest. One a time is enough, since no
		// more than one a time is added.
		if first := p.idle[0]; now.Sub(first.idle) > p.idleTimeout {
			stale = first
			p.idle = append(p.idle[:0], p.idle[1:]...)
		}
	}
	p.mu.Unlock()
	<-place
	if !keep {
		c.conn.Close()
	}
	if stale != nil {
		stale.conn.Close()
	}
}

// discard closes a connection.
func (p *pool) discard(c *backendConn) {
	c.conn.Close()
	<-c.place
}

func (p *pool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range idle {
		c.conn.Close()
	}
}

// write sends head and content in one system call, so that they arrive together
// at a CSE that reads once.
func (c *backendConn) write(head, content []byte) error {
	if len(content) == 0 {
		_, err := c.conn.Write(head)
		return err
	}
	c.vectors = [2][]byte{head, content}
	c.buffers = c.vectors[:]
	_, err := c.buffers.WriteTo(c.conn)
	c.vectors = [2][]byte{}
	return err
}
