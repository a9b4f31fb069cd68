package coapgw

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
)

// A socket speaks with the CSE until its message IDs are used up: the CSE would take a
// request with a used ID for a duplicate, and answer it with the answer to the earlier one,
// which was somebody else's. There are 65,536 of them, and each is free again only after
// EXCHANGE_LIFETIME.
const (
	socketIDs = 60000
	// socketRest is for how long a socket that is used up stays, so that no other gets
	// its port: EXCHANGE_LIFETIME and some.
	socketRest  = 5 * time.Minute
	maxDatagram = 64 << 10
)

// sockets are the gateway's ends towards one CSE.
type sockets struct {
	address string
	ids     int // how many message IDs of a socket are used

	mu      sync.Mutex
	closed  bool                 // guarded by mu
	current *socket              // guarded by mu
	all     map[*socket]struct{} // with those at rest; guarded by mu
	readers sync.WaitGroup
}

type socket struct {
	conn     net.Conn
	endpoint *coap.Endpoint
	rest     *time.Timer // guarded by sockets.mu
}

// get returns the socket for the next request.
func (p *sockets) get() (*socket, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	if s := p.current; s != nil {
		if s.endpoint.Issued() < p.ids {
			return s, nil
		}
		p.retire(s)
	}
	conn, err := net.Dial("udp", p.address)
	if err != nil {
		return nil, err
	}
	s := &socket{conn: conn}
	s.endpoint = coap.NewEndpoint(coap.Config{Send: func(b []byte) error {
		_, err := conn.Write(b)
		return err
	}})
	p.current = s
	if p.all == nil {
		p.all = make(map[*socket]struct{})
	}
	p.all[s] = struct{}{}
	p.readers.Go(func() { p.read(s) })
	return s, nil
}

// retire lets a socket rest until nothing is under way on it, such as an observation.
// p.mu is held.
func (p *sockets) retire(s *socket) {
	p.current = nil
	s.rest = time.AfterFunc(socketRest, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !s.endpoint.Idle() {
			s.rest.Reset(socketRest)
			return
		}
		s.conn.Close() // and read does the rest
	})
}

// read takes what the CSE sends. When nobody listens there, the kernel says so (ICMP), and
// all requests under way have failed.
func (p *sockets) read(s *socket) {
	b := make([]byte, maxDatagram)
	for {
		n, err := s.conn.Read(b)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		s.endpoint.Receive(b[:n])
	}
	p.mu.Lock()
	delete(p.all, s)
	if p.current == s {
		p.current = nil
	}
	if s.rest != nil {
		s.rest.Stop()
	}
	p.mu.Unlock()
	s.conn.Close()
	s.endpoint.Close()
}

func (p *sockets) close() {
	p.mu.Lock()
	p.closed = true
	for s := range p.all {
		s.conn.Close()
	}
	p.mu.Unlock()
	p.readers.Wait()
}
