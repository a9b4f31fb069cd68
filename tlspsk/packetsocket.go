package tlspsk

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// A packetSocket is the part of *net.UDPConn that a listener needs. Its
// methods work without allocating.
type packetSocket interface {
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
	LocalAddr() net.Addr
	Close() error
}

func newPacketSocket(pc net.PacketConn) packetSocket {
	if u, ok := pc.(*net.UDPConn); ok {
		return u
	}
	return genericSocket{pc}
}

// A genericSocket makes a packetSocket of any net.PacketConn with UDP
// addresses.
type genericSocket struct{ net.PacketConn }

func (s genericSocket) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	n, from, err := s.ReadFrom(b)
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	addr, ok := from.(*net.UDPAddr)
	if !ok {
		return 0, netip.AddrPort{}, errors.New("tlspsk: a datagram's source is no *net.UDPAddr")
	}
	return n, addr.AddrPort(), nil
}

func (s genericSocket) WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return s.WriteTo(b, net.UDPAddrFromAddrPort(to))
}

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
