package tlspsk

import (
	"bytes"
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// A wildcardSocket is bound to all of the machine's addresses. A client takes
// answers only from the address that it has called, so the socket asks the
// system which one that was, and answers from it: the local address of read and
// write is a control message.
type wildcardSocket struct {
	*net.UDPConn
	port int
	// What follows belongs to the one goroutine that reads.
	oob  []byte
	last []byte // the control message that made was made from
	made []byte
}

func newWildcardSocket(u *net.UDPConn, port int) (*wildcardSocket, error) {
	err4 := ipv4.NewPacketConn(u).SetControlMessage(ipv4.FlagDst, true)
	err6 := ipv6.NewPacketConn(u).SetControlMessage(ipv6.FlagDst, true)
	if err4 != nil && err6 != nil {
		return nil, err4
	}
	return &wildcardSocket{UDPConn: u, port: port, oob: make([]byte, 128)}, nil
}

func (s *wildcardSocket) read(b []byte) (int, netip.AddrPort, []byte, error) {
	n, oobn, _, from, err := s.ReadMsgUDPAddrPort(b, s.oob)
	if err != nil {
		return 0, netip.AddrPort{}, nil, err
	}
	// Most machines are called by one address: what was made for the last
	// datagram serves the next.
	if raw := s.oob[:oobn]; !bytes.Equal(raw, s.last) {
		s.last = append(s.last[:0], raw...)
		s.made = sourceOf(raw)
	}
	return n, from, s.made, nil
}

// sourceOf turns the control message of a received datagram into one that makes
// its destination the source of the answer. The interface is left out: the way
// back need not be the way here.
func sourceOf(received []byte) []byte {
	dst := destination(received)
	switch {
	case dst == nil:
		return nil
	case dst.To4() != nil:
		return (&ipv4.ControlMessage{Src: dst}).Marshal()
	}
	return (&ipv6.ControlMessage{Src: dst}).Marshal()
}

// destination reads the local address from a control message, or nil.
func destination(oob []byte) net.IP {
	var m4 ipv4.ControlMessage
	if m4.Parse(oob) == nil && m4.Dst != nil {
		return m4.Dst
	}
	var m6 ipv6.ControlMessage
	if m6.Parse(oob) == nil && m6.Dst != nil {
		return m6.Dst
	}
	return nil
}

func (s *wildcardSocket) write(b []byte, local []byte, to netip.AddrPort) error {
	_, _, err := s.WriteMsgUDPAddrPort(b, local, to)
	return err
}

// received returns the address that the datagram read last was sent to.
func (s *wildcardSocket) received() net.Addr {
	if ip := destination(s.last); ip != nil {
		return &net.UDPAddr{IP: ip, Port: s.port}
	}
	return s.LocalAddr()
}
