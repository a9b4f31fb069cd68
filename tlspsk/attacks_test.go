package tlspsk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A rawServer answers on a simulated network, without any of the engine.
type rawServer struct {
	socket *simSocket
	seq    uint64 // of the next record
}

// hear returns the next datagram's first handshake message.
func (s *rawServer) hear(t *testing.T) (wire.FragmentHeader, []byte) {
	t.Helper()
	b := make([]byte, maxDatagram)
	n, _, err := s.socket.ReadFrom(b)
	if err != nil {
		t.Fatal(err)
	}
	_, content, _, ok := wire.NextRecord(b[:n], 0)
	h, body, _, ok2 := wire.NextFragment(content)
	if !ok || !ok2 {
		t.Fatalf("datagram %x", b[:n])
	}
	return h, body
}

// say sends a handshake message in a record of its own.
func (s *rawServer) say(typ wire.MessageType, messageSeq uint16, body []byte) {
	b := wire.AppendDTLSRecordHeader(nil, wire.RecordHeader{Type: wire.Handshake, Version: VersionDTLS12, Seq: s.seq})
	s.seq++
	b = wire.AppendFragmentHeader(b, wire.FragmentHeader{Type: typ, Length: len(body), MessageSeq: messageSeq, Octets: len(body)})
	b = append(b, body...)
	wire.PutDTLSLength(b, 0)
	s.socket.net.deliver(s.socket.addr, netip.MustParseAddrPort(simClient), b)
}

// A connection ID may have 255 octets. A server that gives the client such a
// one and is silent then makes it repeat its Finished in ever smaller datagrams,
// which have no room beside the ID.
func TestLongConnectionID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		s := &rawServer{socket: n.socket(simServer)}
		config := clientConfig()
		config.CipherSuites = []uint16{TLS_PSK_WITH_AES_128_CBC_SHA256}
		client := simDial(n, simClient, config)
		done := make(chan error)
		go func() { done <- client.Handshake() }()
		s.hear(t)
		hello := wire.ServerHello{Version: VersionDTLS12, Random: make([]byte, wire.RandomLen), CipherSuite: TLS_PSK_WITH_AES_128_CBC_SHA256}
		hello.HasConnectionID, hello.ConnectionID = true, bytes.Repeat([]byte{7}, 255)
		s.say(wire.TypeServerHello, 0, hello.Marshal())
		s.say(wire.TypeServerHelloDone, 1, nil)
		var timeout net.Error
		if err := <-done; !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("handshake with a silent server: %v", err)
		}
		client.Close()
		s.socket.Close()
	})
}

// An attacker near enough must not learn how long GetPSK takes. A server that
// repeats its flight on demand would tell him, by being deaf for as long.
func TestLookupTimeHidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		config := serverConfig()
		getPSK := config.GetPSK
		config.GetPSK = func(ctx context.Context, req *PSKRequest) (*PSK, error) {
			time.Sleep(700 * time.Millisecond)
			return getPSK(ctx, req)
		}
		l, conns := simListen(t, n, config)
		// Guarded by n.mu:
		var hello []byte // with the cookie
		var asked bool   // the server has the ClientKeyExchange
		answers := 0
		n.setFilter(func(from, to netip.AddrPort, b []byte) [][]byte {
			if from.String() == simServer {
				if asked {
					answers++
				}
				return [][]byte{b}
			}
			r, content, _, _ := wire.NextRecord(b, 0)
			switch f, _, _, _ := wire.NextFragment(content); f.Type {
			case wire.TypeClientHello:
				hello = bytes.Clone(b)
			case wire.TypeClientKeyExchange:
				asked = true
				return [][]byte{b[:wire.DTLSRecordHeaderLen+r.Length]} // and no Finished
			}
			return [][]byte{b}
		})
		cc, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		client := simDial(n, simClient, clientConfig())
		var attacker sync.WaitGroup
		attacker.Go(func() {
			for cc.Err() == nil {
				time.Sleep(100 * time.Millisecond)
				n.mu.Lock()
				again := hello
				n.mu.Unlock()
				n.inject(simClient, simServer, again)
			}
		})
		if err := client.HandshakeContext(cc); err == nil {
			t.Error("the client got a Finished for none")
		}
		attacker.Wait()
		n.mu.Lock()
		if !asked || answers != 0 {
			t.Errorf("after its ClientKeyExchange (sent: %v) the client got %d datagrams", asked, answers)
		}
		n.mu.Unlock()
		client.Close()
		(<-conns).conn.Close()
		l.Close()
	})
}

// A NAT that forgets a client may give its address to another one, whose session
// then must not end that of the first, if that has a connection ID. A device that
// comes back in its own name has lost its session.
func TestConnectionIDAddressTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const moved = "198.51.100.7:50000"
		n := newSimNet()
		config := serverConfig()
		config.GetPSK = func(context.Context, *PSKRequest) (*PSK, error) { return &PSK{Key: testKey}, nil }
		l, conns := simListen(t, n, config)
		dial := func(identity string) (client, server *Conn, socket *simSocket) {
			cc := clientConfig()
			cc.Identity = []byte(identity)
			client = simDial(n, simClient, cc)
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			return client, (<-conns).conn, n.ports[netip.MustParseAddrPort(simClient)]
		}
		first, firstServer, socket := dial("first")
		second, secondServer, _ := dial("second")
		echo(t, second, secondServer)

		n.mu.Lock()
		socket.addr = netip.MustParseAddrPort(moved)
		n.ports[socket.addr] = socket
		n.mu.Unlock()
		echo(t, first, firstServer)
		echo(t, second, secondServer)

		third, thirdServer, _ := dial("second")
		if _, err := secondServer.Read(make([]byte, 1)); !errors.Is(err, errReplaced) {
			t.Errorf("the session of a device that came back: %v", err)
		}
		echo(t, first, firstServer)
		echo(t, third, thirdServer)
		for _, c := range []*Conn{first, firstServer, second, secondServer, third, thirdServer} {
			c.Close()
		}
		l.Close()
		if len(l.byID) != 0 || len(l.peers) != 0 {
			t.Errorf("%d connection IDs and %d peers are left", len(l.byID), len(l.peers))
		}
	})
}

// The server goes on with the sequence number of the ClientHello's record, which
// anybody can choose. None runs into the epoch, which stands above it.
func TestSequenceNumbersEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, conns := simListen(t, n, serverConfig())
		n.setFilter(func(from, to netip.AddrPort, b []byte) [][]byte {
			if from.String() == simClient && b[0] == wire.Handshake && b[4] == 0 { // of epoch 0
				copy(b[5:], []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xfe})
			}
			return [][]byte{b}
		})
		config := clientConfig()
		config.HandshakeTimeout = 10 * time.Second
		client := simDial(n, simClient, config)
		if err := client.Handshake(); err == nil {
			t.Error("a session from a ClientHello whose record has the last number of all")
		}
		if got := peersOf(l); got != 0 {
			t.Errorf("the listener keeps something of %d addresses", got)
		}
		client.Close()
		n.setFilter(nil)

		client = simDial(n, simClient, clientConfig())
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		server := (<-conns).conn
		client.t.(*datagram).out.seq[1] = lastRecord
		echo(t, client, server)
		if _, err := client.Write([]byte("x")); err == nil {
			t.Error("a record beyond the last number")
		}
		client.Close()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("close_notify has no number left: %v", err)
		}
		server.Close()
		l.Close()
	})
}

// A closingSocket is a net.PacketConn that knows nothing of net.ErrClosed.
type closingSocket struct {
	*simSocket
	reads, closes atomic.Int32
}

func (s *closingSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.simSocket.ReadFrom(b)
	if err != nil && s.reads.Add(1) < 100 {
		err = io.ErrClosedPipe
	}
	return n, from, err
}

func (s *closingSocket) Close() error {
	s.closes.Add(1)
	return s.simSocket.Close()
}

// The socket is closed once, when the listener and all sessions are, and then
// nobody reads from it any more.
func TestListenerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		socket := &closingSocket{simSocket: n.socket(simServer)}
		config := serverConfig()
		config.ConnectionID = PolicyDisable
		l := NewPacketListener(socket, config)
		dial := func() (client, server *Conn) {
			client = simDial(n, simClient, clientConfig())
			done := make(chan error)
			go func() { done <- client.Handshake() }()
			c, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			server = c.(*Conn)
			if err := errors.Join(server.Handshake(), <-done); err != nil {
				t.Fatal(err)
			}
			return client, server
		}
		lost, replaced := dial()
		client, server := dial()
		l.Close()
		echo(t, client, server)
		for _, c := range []*Conn{server, client, replaced, lost} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Second)
		if socket.closes.Load() != 1 || socket.reads.Load() > 2 {
			t.Errorf("the socket was closed %d times, then read %d times", socket.closes.Load(), socket.reads.Load())
		}
	})
}

// A mangledConn changes what is written.
type mangledConn struct {
	net.Conn
	mangle func([]byte) []byte
}

func (c mangledConn) Write(b []byte) (int, error) {
	if _, err := c.Conn.Write(c.mangle(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// pipe makes a handshake within the process, in which mangle changes what the
// client writes.
func pipe(client, server *Config, mangle func([]byte) []byte) (clientErr, serverErr error) {
	a, b := net.Pipe()
	c, s := Client(mangledConn{a, mangle}, client), Server(b, server)
	defer a.Close()
	defer b.Close()
	done := make(chan error)
	go func() { done <- c.Handshake() }()
	serverErr = s.Handshake()
	if serverErr != nil {
		b.Close()
	}
	return <-done, serverErr
}

// A ClientHello that takes several records has an older version in all of them.
func TestOldRecordVersions(t *testing.T) {
	first := true
	clientErr, serverErr := pipe(clientConfig(), serverConfig(), func(b []byte) []byte {
		if !first {
			return b
		}
		first = false
		var out []byte
		for content := b[wire.RecordHeaderLen:]; len(content) > 0; {
			n := min(50, len(content))
			out = append(out, wire.Handshake, 3, 1, 0, byte(n))
			out = append(out, content[:n]...)
			content = content[n:]
		}
		return out
	})
	if clientErr != nil || serverErr != nil {
		t.Errorf("%v, %v", clientErr, serverErr)
	}
	// The records after it have the version that was agreed on.
	_, serverErr = pipe(clientConfig(), serverConfig(), func(b []byte) []byte { b[2] = 1; return b })
	if !errors.Is(serverErr, AlertProtocolVersion) {
		t.Errorf("an older version behind the hellos: %v", serverErr)
	}
}

// record_size_limit is about protected records (RFC 8449 section 4): a long
// ClientKeyExchange may come in one.
func TestRecordSizeLimitUnprotected(t *testing.T) {
	client, server := clientConfig(), serverConfig()
	client.Identity = bytes.Repeat([]byte("x"), 300)
	client.CipherSuites = []uint16{TLS_PSK_WITH_AES_128_GCM_SHA256}
	client.RecordSizeLimit, server.RecordSizeLimit = 64, 64
	server.GetPSK = func(context.Context, *PSKRequest) (*PSK, error) { return &PSK{Key: testKey}, nil }
	joined := 0
	clientErr, serverErr := pipe(client, server, func(b []byte) []byte {
		var message, rest []byte
		for rest = b; rest[0] == wire.Handshake; joined++ {
			n := wire.RecordHeaderLen + wire.ParseRecordHeader(rest).Length
			message = append(message, rest[wire.RecordHeaderLen:n]...)
			if rest = rest[n:]; len(rest) == 0 {
				return b // the ClientHello
			}
		}
		out := make([]byte, wire.RecordHeaderLen)
		wire.PutRecordHeader(out, wire.RecordHeader{Type: wire.Handshake, Version: VersionTLS12, Length: len(message)})
		return append(append(out, message...), rest...)
	})
	if clientErr != nil || serverErr != nil || joined < 5 {
		t.Errorf("%v, %v (%d records)", clientErr, serverErr, joined)
	}
}

// A callback's mistake costs the peer its handshake, not the server its life.
func TestNoKey(t *testing.T) {
	for name, psk := range map[string]*PSK{"nil": nil, "empty": {}, "too long": {Key: make([]byte, maxKey+1)}} {
		config := serverConfig()
		config.GetPSK = func(context.Context, *PSKRequest) (*PSK, error) { return psk, nil }
		clientErr, serverErr := pipe(clientConfig(), config, func(b []byte) []byte { return b })
		if !errors.Is(serverErr, AlertInternalError) || clientErr == nil {
			t.Errorf("%s: server %v, client %v", name, serverErr, clientErr)
		}
	}
}
