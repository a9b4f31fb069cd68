package tlspsk

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// fuzzSeeds are the client's side of a handshake as it would come.
func fuzzSeeds(f *testing.F, dtls bool) {
	hello := &wire.ClientHello{Version: VersionTLS12, Random: make([]byte, 32), CipherSuites: []uint16{TLS_PSK_WITH_AES_128_CCM_8}}
	var w streamWriter
	w.limit = wire.MaxPlaintext
	for _, id := range []uint16{TLS_PSK_WITH_AES_128_CCM_8, TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256} {
		hello.CipherSuites = []uint16{id}
		body := hello.Marshal(dtls)
		if dtls {
			hello.Version = VersionDTLS12
			d := datagramWriter{mtu: defaultMTU, limit: wire.MaxPlaintext, send: func(b []byte) error {
				f.Add(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
				return nil
			}}
			d.add(flightItem{typ: wire.Handshake, msg: wire.FragmentHeader{Type: 1, Length: len(body), Octets: len(body)}, body: body})
			d.sendFlight()
			continue
		}
		b := w.appendRecords(nil, wire.Handshake, append(wire.AppendHeader(nil, wire.TypeClientHello, len(body)), body...))
		ke := (&wire.ClientKeyExchange{Identity: testIdentity, PublicKey: make([]byte, 32)}).Marshal(suite.ByID(id).ECDHE)
		b = w.appendRecords(b, wire.Handshake, append(wire.AppendHeader(nil, wire.TypeClientKeyExchange, len(ke)), ke...))
		b = w.appendRecords(b, wire.ChangeCipherSpec, []byte{1})
		f.Add(w.appendRecords(b, wire.Handshake, make([]byte, 40)))
	}
}

// FuzzServerStream: whatever a client without the key sends, there is an error
// and no session.
func FuzzServerStream(f *testing.F) {
	fuzzSeeds(f, false)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := Server(&cannedConn{in: b}, serverConfig())
		if s.Handshake() == nil {
			t.Fatal("a session out of thin air")
		}
		s.Close()
	})
}

// FuzzClientStream: the same for what a server sends.
func FuzzClientStream(f *testing.F) {
	var w streamWriter
	w.limit = wire.MaxPlaintext
	hello := (&wire.ServerHello{Version: VersionTLS12, Random: make([]byte, 32), CipherSuite: TLS_PSK_WITH_AES_128_CCM_8}).Marshal()
	b := w.appendRecords(nil, wire.Handshake, append(wire.AppendHeader(nil, wire.TypeServerHello, len(hello)), hello...))
	f.Add(w.appendRecords(b, wire.Handshake, []byte{wire.TypeServerHelloDone, 0, 0, 0}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := Client(&cannedConn{in: b}, clientConfig())
		if c.Handshake() == nil {
			t.Fatal("a session out of thin air")
		}
		c.Close()
	})
}

// FuzzServerDatagrams feeds a session, past the cookie, with datagrams: each
// has its length in two octets before it.
func FuzzServerDatagrams(f *testing.F) {
	fuzzSeeds(f, true)
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) { handshakeWithDatagrams(t, b, false) })
	})
}

func handshakeWithDatagrams(t *testing.T, b []byte, isClient bool) {
	config := serverConfig()
	if isClient {
		config = clientConfig()
	}
	d := newDatagram(config, isClient, func([]byte) error { return nil })
	d.local, d.release = &net.UDPAddr{}, func() error { return nil }
	d.setRemote(&net.UDPAddr{})
	for len(b) >= 2 {
		n := min(int(b[0])<<8|int(b[1]), len(b)-2)
		d.deliver(b[2:2+n], netip.AddrPort{})
		b = b[2+n:]
	}
	time.AfterFunc(time.Millisecond, d.abort)
	c := newConn(d, config, isClient)
	if c.Handshake() == nil {
		t.Fatal("a session out of thin air")
	}
	c.Close()
}

// FuzzClientDatagrams: the same for what a server sends.
func FuzzClientDatagrams(f *testing.F) {
	for _, m := range []struct {
		typ  wire.MessageType
		body []byte
	}{
		{wire.TypeHelloVerifyRequest, (&wire.HelloVerifyRequest{Version: wire.VersionDTLS10, Cookie: []byte("cookie")}).Append(nil)},
		{wire.TypeServerHello, (&wire.ServerHello{Version: VersionDTLS12, Random: make([]byte, 32), CipherSuite: TLS_PSK_WITH_AES_128_CCM_8}).Marshal()},
	} {
		var seed []byte
		w := datagramWriter{mtu: defaultMTU, limit: wire.MaxPlaintext, send: func(b []byte) error {
			seed = append(append(seed, byte(len(b)>>8), byte(len(b))), b...)
			return nil
		}}
		w.add(flightItem{typ: wire.Handshake, msg: wire.FragmentHeader{Type: m.typ, Length: len(m.body), Octets: len(m.body)}, body: m.body})
		w.add(flightItem{typ: wire.Handshake, msg: wire.FragmentHeader{Type: wire.TypeServerHelloDone, MessageSeq: 1}})
		w.sendFlight()
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		synctest.Test(t, func(t *testing.T) { handshakeWithDatagrams(t, b, true) })
	})
}

// FuzzListener: whatever comes from an address that has not returned a cookie,
// nothing is kept of it, and the answer is not longer.
func FuzzListener(f *testing.F) {
	fuzzSeeds(f, true)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := &countingSocket{}
		l := &packetListener{socket: s, config: serverConfig(), cookies: newCookies(), accepted: make(chan *Conn, 1),
			peers: make(map[netip.AddrPort]*peer)}
		l.route(b, netip.MustParseAddrPort(simClient), nil)
		if len(l.peers) != 0 || len(l.accepted) != 0 {
			t.Fatal("state before the cookie")
		}
		if s.octets > max(len(b), 60) {
			t.Fatalf("%d octets answered to %d", s.octets, len(b))
		}
	})
}

// A countingSocket counts what is sent.
type countingSocket struct {
	packetSocket
	octets int
}

func (s *countingSocket) write(b, _ []byte, _ netip.AddrPort) error {
	s.octets += len(b)
	return nil
}

// A cannedConn has all its input from the start, and no output.
type cannedConn struct{ in []byte }

func (c *cannedConn) Read(b []byte) (int, error) {
	if len(c.in) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.in)
	c.in = c.in[n:]
	return n, nil
}

func (c *cannedConn) Write(b []byte) (int, error)      { return len(b), nil }
func (c *cannedConn) Close() error                     { return nil }
func (c *cannedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *cannedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *cannedConn) SetDeadline(time.Time) error      { return nil }
func (c *cannedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *cannedConn) SetWriteDeadline(time.Time) error { return nil }
