package tlspsk

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// A simNet is a network of datagrams within the process, whose faults a test
// chooses. It works in a synctest bubble, so waiting costs nothing.
type simNet struct {
	mu    sync.Mutex
	ports map[netip.AddrPort]*simSocket
	// filter decides what becomes of a datagram: it returns those that arrive
	// in its place. Nil delivers everything.
	filter func(from, to netip.AddrPort, b []byte) [][]byte
	sent   int // datagrams
}

func newSimNet() *simNet { return &simNet{ports: make(map[netip.AddrPort]*simSocket)} }

// setFilter changes the faults.
func (n *simNet) setFilter(f func(from, to netip.AddrPort, b []byte) [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.filter = f
}

func (n *simNet) sentSoFar() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.sent
}

func (n *simNet) socket(addr string) *simSocket {
	queue := 32
	if addr == simServer {
		queue = 4096
	}
	s := &simSocket{net: n, addr: netip.MustParseAddrPort(addr), in: make(chan simDatagram, queue), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports[s.addr] = s
	return s
}

// inject delivers a datagram as if it came from an address, past the filter.
func (n *simNet) inject(from, to string, b []byte) {
	n.deliver(netip.MustParseAddrPort(from), netip.MustParseAddrPort(to), b)
}

func (n *simNet) send(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	n.sent++
	out := [][]byte{b}
	if n.filter != nil {
		out = n.filter(from, to, b)
	}
	n.mu.Unlock()
	for _, b := range out {
		n.deliver(from, to, b)
	}
}

func (n *simNet) deliver(from, to netip.AddrPort, b []byte) {
	n.mu.Lock()
	s := n.ports[to]
	n.mu.Unlock()
	if s == nil {
		return
	}
	select {
	case s.in <- simDatagram{from, append([]byte(nil), b...)}:
	default: // a full queue loses datagrams
	}
}

type simDatagram struct {
	from netip.AddrPort
	b    []byte
}

// A simSocket is a net.PacketConn.
type simSocket struct {
	net  *simNet
	addr netip.AddrPort
	in   chan simDatagram
	done chan struct{}
	once sync.Once
}

func (s *simSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-s.in:
		return copy(b, d.b), net.UDPAddrFromAddrPort(d.from), nil
	case <-s.done:
		return 0, nil, net.ErrClosed
	}
}

func (s *simSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-s.done:
		return 0, net.ErrClosed
	default:
	}
	s.net.send(s.addr, to.(*net.UDPAddr).AddrPort(), append([]byte(nil), b...))
	return len(b), nil
}

func (s *simSocket) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

func (s *simSocket) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(s.addr) }
func (s *simSocket) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (s *simSocket) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (s *simSocket) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }

// simConn is a simSocket connected to one address: a net.Conn.
type simConn struct {
	*simSocket
	to netip.AddrPort
}

func (c simConn) Read(b []byte) (int, error)  { n, _, err := c.ReadFrom(b); return n, err }
func (c simConn) Write(b []byte) (int, error) { return c.WriteTo(b, c.RemoteAddr()) }
func (c simConn) RemoteAddr() net.Addr        { return net.UDPAddrFromAddrPort(c.to) }

const (
	simServer = "192.0.2.1:5684"
	simClient = "198.51.100.7:40000"
)

// simListen starts a DTLS server that does its handshakes and hands out the
// results.
func simListen(t testing.TB, n *simNet, config *Config) (*packetListener, <-chan accepted) {
	l := NewPacketListener(n.socket(simServer), config).(*packetListener)
	conns := make(chan accepted, 1024)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				err := c.(*Conn).Handshake()
				if err != nil {
					c.Close()
				}
				conns <- accepted{c.(*Conn), err}
			}()
		}
	}()
	return l, conns
}

// simDial makes a client, without its handshake.
func simDial(n *simNet, from string, config *Config) *Conn {
	return DatagramClient(simConn{n.socket(from), netip.MustParseAddrPort(simServer)}, config)
}

// peersOf counts the addresses of which the listener keeps anything.
func peersOf(l *packetListener) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.peers)
}
