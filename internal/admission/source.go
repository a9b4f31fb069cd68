package admission

import (
	"net"
	"net/netip"
)

// Source returns the network that counts as one source: an IPv4 address, or an
// IPv6 /64, of which one customer has all addresses. All that is no IP address,
// as in tests, is one source: the zero Prefix.
func Source(addr net.Addr) netip.Prefix {
	var ip netip.Addr
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	}
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not an IP address
	}
	return p
}
