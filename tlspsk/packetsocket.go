package tlspsk

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// A packetSocket is what a listener needs of a socket. One goroutine reads.
type packetSocket interface {
	// read returns a datagram, where it came from, and the local address that
	// it was sent to, as write wants it: nil where that needs no saying. Local
	// is not changed later.
	read(b []byte) (n int, from netip.AddrPort, local []byte, err error)
	// received is the local address that the datagram read last was sent to.
	received() net.Addr
	// write sends a datagram from a local address.
	write(b []byte, local []byte, to netip.AddrPort) error
	LocalAddr() net.Addr
	Close() error
}

func newPacketSocket(pc net.PacketConn) packetSocket {
	u, ok := pc.(*net.UDPConn)
	if !ok {
		return genericSocket{pc}
	}
	addr, ok := u.LocalAddr().(*net.UDPAddr)
	if ok && addr.IP.IsUnspecified() {
		if s, err := newWildcardSocket(u, addr.Port); err == nil {
			return s
		}
		// A system without such control messages: the answer's source is the
		// one that it thinks best, which is right where there is only one.
	}
	return udpSocket{u}
}

// A udpSocket is bound to one address.
type udpSocket struct{ *net.UDPConn }

func (s udpSocket) read(b []byte) (int, netip.AddrPort, []byte, error) {
	n, from, err := s.ReadFromUDPAddrPort(b)
	return n, from, nil, err
}

func (s udpSocket) write(b []byte, _ []byte, to netip.AddrPort) error {
	_, err := s.WriteToUDPAddrPort(b, to)
	return err
}

func (s udpSocket) received() net.Addr { return s.LocalAddr() }

// A genericSocket makes a packetSocket of any net.PacketConn with UDP
// addresses.
type genericSocket struct{ net.PacketConn }

func (s genericSocket) read(b []byte) (int, netip.AddrPort, []byte, error) {
	n, from, err := s.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, nil, err
	}
	addr, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, nil, errors.New("tlspsk: a datagram's source is no *net.UDPAddr")
	}
	return n, addr.AddrPort(), nil, nil
}

func (s genericSocket) write(b []byte, _ []byte, to netip.AddrPort) error {
	_, err := s.WriteTo(b, net.UDPAddrFromAddrPort(to))
	return err
}

func (s genericSocket) received() net.Addr { return s.LocalAddr() }

// DatagramClient returns a DTLS client on conn, which carries whole datagrams,
// such as a connected UDP socket. The Conn takes conn over and reads from it
// until it is closed. The handshake is done by the first Read, Write or call
// of Handshake.
func DatagramClient(conn net.Conn, config *Config) *Conn {
	d := newDatagram(config, true, func(b []byte) error {
		_, err := conn.Write(b)
		return err
	})
	d.local = conn.LocalAddr()
	d.setRemote(conn.RemoteAddr())
	d.release = conn.Close
	go d.readFrom(conn)
	return newConn(d, config, true)
}

// readFrom delivers what comes from conn until that is closed.
func (d *datagram) readFrom(conn net.Conn) {
	large := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(large)
	for {
		n, err := conn.Read(large[:])
		switch {
		case err == nil:
			d.deliver(large[:n], netip.AddrPort{})
		case errors.Is(err, net.ErrClosed) || err == io.EOF || err == io.ErrClosedPipe:
			d.end(net.ErrClosed)
			return
		default:
			// An ICMP message that nobody listens there: worth knowing before
			// there is a session, and no reason to give one up.
			if !d.isDone() {
				d.end(err)
			}
			time.Sleep(readErrorPause)
		}
	}
}

func (d *datagram) isDone() bool {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	return d.in.done
}
