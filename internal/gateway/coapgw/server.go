package coapgw

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// A CSE is what stands behind: a *Backend, or a *httpgw.Backend.
type CSE interface {
	Do(context.Context, *httpgw.Request) (*httpgw.Response, error)
	RequestID(peer, from, id string) string
}

// An observable CSE also tells of changes. *Backend does.
type observable interface {
	Observe(ctx context.Context, r *httpgw.Request, notify func(*httpgw.Response)) (*httpgw.Response, func(), error)
}

// Config says what a Server stands between.
type Config struct {
	Rules   *policy.Rules
	Backend CSE
	// Notifications, when not nil, is where the CSE reaches devices.
	Notifications *Notifications

	Limits   Limits
	Recorder access.Recorder // nil: nobody
	Log      *slog.Logger    // nil: no log
}

// Limits are what a device may take. A field that is 0 has the default that stands beside
// it.
type Limits struct {
	// MaxContent bounds the content of a request, in octets (64 kB).
	MaxContent int
	// MaxAnswer bounds the content of an answer (256 kB). Up to two are kept for a while
	// for each association, for the device to fetch in blocks.
	MaxAnswer int
	// BlockSize is the size of blocks in octets, a power of two from 16 to 1024 (1024).
	BlockSize int
	// Requests is how many requests of one master key are worked on at once, on all its
	// associations (8): fewer than the CSE takes, so that no device keeps all others
	// waiting.
	Requests int
	// Observations is how many resources one association may observe (16); further ones
	// are retrieved only.
	Observations int
	// AssociationsPerPeer bounds the associations of one master key (4). Over datagrams
	// nobody sees a device go that has lost its power; so when it comes back once more,
	// its oldest association has to make room.
	AssociationsPerPeer int
	// IdleTimeout is for how long an association may do nothing (24 h).
	IdleTimeout time.Duration
	// Timeout is how long a device may take to answer the CSE (60 s, for a lost datagram
	// is repeated for 45 s).
	Timeout time.Duration
}

// A Server is the device side of the binding. Several Serve may run at once.
type Server struct {
	config Config
	szx    uint8
	ctx    context.Context // ends when Shutdown waits no longer
	cancel context.CancelFunc

	mu        sync.Mutex
	draining  bool                           // guarded by mu
	listeners map[*saef.Listener]struct{}    // guarded by mu
	peers     map[onem2m.KmID][]*association // oldest first; guarded by mu
	asking    map[onem2m.KmID]int            // requests under way, never 0; guarded by mu
	all       sync.WaitGroup                 // of associations; Add is guarded by mu
}

// New checks the configuration.
func New(c Config) (*Server, error) {
	if c.Rules == nil || c.Backend == nil {
		return nil, errors.New("coapgw: a Config without Rules or Backend")
	}
	if c.Recorder == nil {
		c.Recorder = access.Discard{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &c.Limits
	l.MaxContent = cmp.Or(l.MaxContent, 64<<10)
	l.MaxAnswer = cmp.Or(l.MaxAnswer, 256<<10)
	l.BlockSize = cmp.Or(l.BlockSize, 1024)
	l.Requests = cmp.Or(l.Requests, 8)
	l.Observations = cmp.Or(l.Observations, 16)
	l.AssociationsPerPeer = cmp.Or(l.AssociationsPerPeer, 4)
	l.IdleTimeout = cmp.Or(l.IdleTimeout, 24*time.Hour)
	l.Timeout = cmp.Or(l.Timeout, time.Minute)
	szx, err := blockExponent(l.BlockSize)
	if err != nil {
		return nil, err
	}
	s := &Server{
		config:    c,
		szx:       szx,
		listeners: make(map[*saef.Listener]struct{}),
		peers:     make(map[onem2m.KmID][]*association),
		asking:    make(map[onem2m.KmID]int),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if c.Notifications != nil {
		c.Notifications.serve(s)
	}
	return s, nil
}

// Serve accepts associations until l is closed, and returns nil then.
func (s *Server) Serve(l *saef.Listener) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	for {
		c, err := l.AcceptAssociation()
		switch {
		case err == nil:
			s.admit(c)
		case errors.Is(err, net.ErrClosed):
			return nil
		default:
			s.config.Log.Error("can't accept associations", "binding", "coap", "err", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// admit starts an association, in the place of the peer's oldest when it has too many.
func (s *Server) admit(c *saef.Conn) {
	a := newAssociation(s, c)
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		a.close()
		return
	}
	id := c.Association().KmID
	var oldest *association
	if list := s.peers[id]; len(list) >= s.config.Limits.AssociationsPerPeer {
		oldest = list[0]
	}
	s.peers[id] = append(s.peers[id], a)
	s.all.Go(func() {
		a.read()
		s.remove(a)
		a.close()
	})
	s.mu.Unlock()
	if oldest != nil {
		oldest.conn.Close() // its read does the rest
	}
}

func (s *Server) remove(a *association) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := a.conn.Association().KmID
	list := slices.DeleteFunc(s.peers[id], func(other *association) bool { return other == a })
	if len(list) == 0 {
		delete(s.peers, id)
	} else {
		s.peers[id] = list
	}
}

// enter counts a request of a master key's, or reports that it has enough under way.
func (s *Server) enter(id onem2m.KmID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking[id] >= s.config.Limits.Requests {
		return false
	}
	s.asking[id]++
	return true
}

// leave is the end of a request that was counted.
func (s *Server) leave(id onem2m.KmID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asking[id]--; s.asking[id] == 0 {
		delete(s.asking, id)
	}
}

// latest returns a peer's newest association, or nil when it has none.
func (s *Server) latest(id onem2m.KmID) *association {
	s.mu.Lock()
	defer s.mu.Unlock()
	if list := s.peers[id]; len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// Associations returns how many there are.
func (s *Server) Associations() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.peers {
		n += len(list)
	}
	return n
}

// Shutdown closes the listeners, lets the requests under way end, and then closes the
// associations; at once when ctx ends. It returns ctx's error in that case.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for l := range s.listeners {
		l.Close()
	}
	var open []*association
	for _, list := range s.peers {
		open = append(open, list...)
	}
	s.mu.Unlock()
	var err error
	for _, a := range open {
		for !a.endpoint.Idle() && err == nil {
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
		a.conn.Close()
	}
	s.cancel()
	s.all.Wait()
	return err
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}
