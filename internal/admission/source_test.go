package admission

import (
	"net"
	"testing"
)

func TestSource(t *testing.T) {
	for _, c := range []struct {
		addr net.Addr
		want string
	}{
		{&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}, "192.0.2.1/32"},
		{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 2}, "192.0.2.1/32"},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:192.0.2.1")}, "192.0.2.1/32"},
		{&net.UDPAddr{IP: net.ParseIP("2001:db8:1:2:3:4:5:6")}, "2001:db8:1:2::/64"},
		{&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0"}, "fe80::/64"},
		{&net.TCPAddr{}, "invalid Prefix"},
		{&net.UnixAddr{Name: "x"}, "invalid Prefix"},
		{nil, "invalid Prefix"},
	} {
		if got := Source(c.addr).String(); got != c.want {
			t.Errorf("%v is of %s, not %s", c.addr, got, c.want)
		}
	}
}
