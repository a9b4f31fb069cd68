package httpgw

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// Config says what a Server stands between.
type Config struct {
	Rules   *policy.Rules
	Backend *Backend
	// Contacts, when not nil, has the CSE's notifications and the addresses of
	// devices go through the gateway. Without it, devices can name none.
	Contacts *Contacts
	// Addresses are the addresses, "host:port", by which the CSE names itself in
	// what it answers, and Public is the base URL that stands there for devices:
	// "https://gateway.example.com:8443". Empty: nothing is replaced.
	Addresses []string
	Public    string

	Limits   Limits
	Recorder access.Recorder // nil: nobody
	Log      *slog.Logger    // nil: no log
}

// Limits are what a device may take. A field that is 0 has the default that
// stands beside it.
type Limits struct {
	// MaxContent bounds the content of a request, in octets (1 MiB).
	MaxContent int64
	// ConnsPerPeer bounds the connections of one master key (16).
	ConnsPerPeer int
	// IdleTimeout is for how long a connection may do nothing (1 h).
	IdleTimeout time.Duration
	// ReadTimeout is for how long a request may take to arrive once it has begun
	// (60 s), and WriteTimeout for how long an answer may take to be accepted
	// (60 s).
	ReadTimeout, WriteTimeout time.Duration
}

// A Server is the device side of the binding. Several Serve may run at once.
type Server struct {
	config Config
	names  addresses
	state  atomic.Int32    // serving or draining
	ctx    context.Context // ends when Shutdown waits no longer
	cut    context.CancelFunc

	mu        sync.Mutex
	listeners map[*saef.Listener]struct{} // guarded by mu
	conns     map[*deviceConn]struct{}    // guarded by mu
	peers     map[onem2m.KmID]int         // number of conns; guarded by mu
	all       sync.WaitGroup              // of conns; Add is guarded by mu
}

const (
	serving = iota
	draining
)

// New checks the configuration.
func New(c Config) (*Server, error) {
	if c.Rules == nil || c.Backend == nil {
		return nil, errors.New("httpgw: a Config without Rules or Backend")
	}
	names, err := newAddresses(c.Addresses, c.Public)
	if err != nil {
		return nil, err
	}
	if c.Recorder == nil {
		c.Recorder = access.Discard{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &c.Limits
	l.MaxContent = cmp.Or(l.MaxContent, 1<<20)
	l.ConnsPerPeer = cmp.Or(l.ConnsPerPeer, 16)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, time.Hour)
	l.ReadTimeout = cmp.Or(l.ReadTimeout, time.Minute)
	l.WriteTimeout = cmp.Or(l.WriteTimeout, time.Minute)
	ctx, cut := context.WithCancel(context.Background())
	return &Server{
		config:    c,
		names:     names,
		ctx:       ctx,
		cut:       cut,
		listeners: make(map[*saef.Listener]struct{}),
		conns:     make(map[*deviceConn]struct{}),
		peers:     make(map[onem2m.KmID]int),
	}, nil
}

// Serve accepts associations until l is closed, and returns nil then.
func (s *Server) Serve(l *saef.Listener) error {
	if !s.begin(l) {
		return net.ErrClosed
	}
	defer s.end(l)
	for {
		c, err := l.AcceptAssociation()
		switch {
		case err == nil:
			s.admit(c)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			// Such as too many open files: others may end meanwhile.
			s.config.Log.Error("can't accept connections", "binding", "http", "err", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *Server) begin(l *saef.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state.Load() == draining {
		return false
	}
	s.listeners[l] = struct{}{}
	return true
}

func (s *Server) end(l *saef.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
}

// admit starts to serve a connection, unless its peer has too many.
func (s *Server) admit(c *saef.Conn) {
	kmID := c.Association().KmID
	s.mu.Lock()
	if s.state.Load() == draining || s.peers[kmID] >= s.config.Limits.ConnsPerPeer {
		s.mu.Unlock()
		s.config.Log.Warn("connection closed at once: too many of this peer, or shutting down",
			"binding", "http", "peer", c.Association().Peer(), "remote", c.RemoteAddr())
		c.Close()
		return
	}
	d := newDeviceConn(s, c)
	s.conns[d] = struct{}{}
	s.peers[kmID]++
	s.all.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.all.Done()
		defer s.forget(d, kmID)
		d.serve()
	}()
}

func (s *Server) forget(d *deviceConn, kmID onem2m.KmID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, d)
	if s.peers[kmID]--; s.peers[kmID] == 0 {
		delete(s.peers, kmID)
	}
}

// Conns returns the number of connections that are open.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Shutdown closes the listeners that are served and idle connections, lets
// requests under way end, and closes what is left when ctx ends, whose error it
// returns then.
func (s *Server) Shutdown(ctx context.Context) error {
	listeners, conns := s.drain()
	for _, l := range listeners {
		l.Close()
	}
	for _, d := range conns {
		d.closeIfIdle()
	}
	done := make(chan struct{})
	go func() { s.all.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.cut()
	for _, d := range conns {
		d.abort(ctx.Err())
	}
	<-done
	return ctx.Err()
}

func (s *Server) drain() (listeners []*saef.Listener, conns []*deviceConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Store(draining)
	for l := range s.listeners {
		listeners = append(listeners, l)
	}
	for d := range s.conns {
		conns = append(conns, d)
	}
	return listeners, conns
}
