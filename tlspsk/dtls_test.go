package tlspsk

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// simSession makes a session on a faultless network; the caller is in a
// bubble.
func simSession(t *testing.T, n *simNet) (l *packetListener, conns <-chan accepted, client, server *Conn) {
	t.Helper()
	l, conns = simListen(t, n, serverConfig())
	client = simDial(n, simClient, clientConfig())
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	return l, conns, client, (<-conns).conn
}

// echo checks that the session carries data both ways.
func echo(t *testing.T, client, server *Conn) {
	t.Helper()
	for _, d := range []struct{ from, to *Conn }{{client, server}, {server, client}} {
		if _, err := d.from.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		d.to.SetReadDeadline(time.Now().Add(10 * time.Second))
		var b [16]byte
		if n, err := d.to.Read(b[:]); string(b[:n]) != "hello" || err != nil {
			t.Fatalf("read %q, %v", b[:n], err)
		}
	}
}

// Any two datagrams of the handshake may be lost, one after the other: it
// succeeds all the same, and in the time that the back-off gives.
func TestDTLSLoss(t *testing.T) {
	const datagrams = 8 // more than a handshake has
	for first := range datagrams {
		for second := first; second < datagrams; second++ {
			t.Run(fmt.Sprintf("%d,%d", first, second), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newSimNet()
					count := 0
					n.filter = func(_, _ netip.AddrPort, b []byte) [][]byte {
						count++
						if count-1 == first || count-1 == second {
							return nil
						}
						return [][]byte{b}
					}
					l, conns := simListen(t, n, serverConfig())
					client := simDial(n, simClient, clientConfig())
					start := time.Now()
					if err := client.Handshake(); err != nil {
						t.Fatal(err)
					}
					// Losing twice costs 1 s and 2 s of the back-off, at most.
					if took := time.Since(start); took > 3*time.Second {
						t.Errorf("took %v", took)
					}
					a := <-conns
					if a.err != nil {
						t.Fatal(a.err)
					}
					n.setFilter(nil)
					echo(t, client, a.conn)
					client.Close()
					a.conn.Close()
					l.Close()
				})
			})
		}
	}
}

// Reversed, doubled and single-octet-corrupted datagrams do no harm.
func TestDTLSBadOrder(t *testing.T) {
	for name, filter := range map[string]func() func(_, _ netip.AddrPort, b []byte) [][]byte{
		"doubled": func() func(_, _ netip.AddrPort, b []byte) [][]byte {
			return func(_, _ netip.AddrPort, b []byte) [][]byte { return [][]byte{b, b} }
		},
		"records reversed": func() func(_, _ netip.AddrPort, b []byte) [][]byte {
			return func(_, _ netip.AddrPort, b []byte) [][]byte { return reversed(records(b)) }
		},
		"one octet each, reversed, of each fragment": func() func(_, _ netip.AddrPort, b []byte) [][]byte {
			return func(_, _ netip.AddrPort, b []byte) [][]byte { return reversed(shredded(b)) }
		},
		"first of each is corrupt": func() func(_, _ netip.AddrPort, b []byte) [][]byte {
			return func(_, _ netip.AddrPort, b []byte) [][]byte {
				bad := bytes.Clone(b)
				bad[0] ^= 0x40
				return [][]byte{bad, b}
			}
		},
		"garbage before each": func() func(_, _ netip.AddrPort, b []byte) [][]byte {
			return func(_, _ netip.AddrPort, b []byte) [][]byte {
				return [][]byte{{}, {22}, bytes.Repeat([]byte{0xff}, 100), b}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newSimNet()
				n.filter = filter()
				l, conns := simListen(t, n, serverConfig())
				cc := clientConfig()
				cc.CipherSuites = []uint16{TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256}
				client := simDial(n, simClient, cc)
				if err := client.Handshake(); err != nil {
					t.Fatal(err)
				}
				a := <-conns
				if a.err != nil {
					t.Fatal(a.err)
				}
				echo(t, client, a.conn)
				client.Close()
				a.conn.Close()
				l.Close()
			})
		})
	}
}

// records splits a datagram into one datagram per record.
func records(b []byte) (out [][]byte) {
	for len(b) > 0 {
		_, _, rest, ok := wire.NextRecord(b, len(connectionID{}))
		if !ok {
			return append(out, b)
		}
		out = append(out, b[:len(b)-len(rest)])
		b = rest
	}
	return out
}

// shredded splits the unprotected handshake messages of a datagram into
// fragments of 40 octets, and the rest into records. A first ClientHello stays
// whole up to its cookie.
func shredded(b []byte) (out [][]byte) {
	const size = 40
	for _, r := range records(b) {
		h, content, _, ok := wire.NextRecord(r, len(connectionID{}))
		f, body, _, isHandshake := wire.NextFragment(content)
		if !ok || h.Type != wire.Handshake || h.Epoch() != 0 || !isHandshake || f.Type == wire.TypeClientHello {
			out = append(out, r)
			continue
		}
		for f.Offset = 0; f.Offset < f.Length; f.Offset += f.Octets {
			f.Octets = min(size, f.Length-f.Offset)
			fragment := wire.AppendFragmentHeader(nil, f)
			fragment = append(fragment, body[f.Offset:f.Offset+f.Octets]...)
			h.Length = len(fragment)
			out = append(out, append(wire.AppendDTLSRecordHeader(nil, h), fragment...))
		}
		if f.Length == 0 {
			out = append(out, r)
		}
	}
	return out
}

func reversed(list [][]byte) [][]byte {
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// A ClientHello in small fragments is served, and nothing is kept of it before
// the cookie is back.
func TestDTLSFragmentedHello(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, conns := simListen(t, n, serverConfig())
		kept := 0
		n.setFilter(func(from, to netip.AddrPort, b []byte) [][]byte {
			if from.String() == simServer && b[wire.DTLSRecordHeaderLen] == wire.TypeHelloVerifyRequest {
				kept += peersOf(l)
			}
			if len(b) > 300 {
				t.Errorf("datagram of %d octets", len(b))
			}
			return [][]byte{b}
		})
		cc := clientConfig()
		cc.MTU = 228
		cc.Identity = bytes.Repeat([]byte("i"), 128)
		cc.ServerName = string(bytes.Repeat([]byte("s"), 250))
		sc := serverConfig()
		sc.GetPSK = func(context.Context, *PSKRequest) (*PSK, error) { return &PSK{Key: testKey}, nil }
		l.config = sc
		client := simDial(n, simClient, cc)
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		a := <-conns
		if a.err != nil || a.conn.ConnectionState().ServerName != cc.ServerName {
			t.Fatal(a.err)
		}
		if kept != 0 {
			t.Errorf("%d clients kept before their cookie was back", kept)
		}
		client.Close()
		a.conn.Close()
		l.Close()
	})
}

// Hellos from addresses that never answer leave nothing behind, and the answer
// is no longer than the question.
func TestDTLSNoStateBeforeCookie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, _ := simListen(t, n, serverConfig())
		var hello []byte
		n.setFilter(func(_, _ netip.AddrPort, b []byte) [][]byte {
			if hello == nil {
				hello = bytes.Clone(b)
			}
			return nil
		})
		cc := clientConfig()
		cc.HandshakeTimeout = time.Millisecond
		client := simDial(n, simClient, cc)
		if err := client.Handshake(); err == nil {
			t.Fatal("handshake without a network succeeded")
		}
		client.Close()
		answers := 0
		n.setFilter(func(_, _ netip.AddrPort, b []byte) [][]byte {
			answers++
			if len(b) > len(hello) {
				t.Errorf("%d octets answered to %d", len(b), len(hello))
			}
			return nil
		})
		const spoofed = 20_000
		for i := range spoofed {
			n.inject(fmt.Sprintf("203.0.113.%d:%d", i%256, 1024+i/256), simServer, hello)
			if i%500 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if answers != spoofed {
			t.Errorf("%d answers to %d hellos", answers, spoofed)
		}
		if got := peersOf(l); got != 0 {
			t.Errorf("the listener keeps %d clients", got)
		}
		l.Close()
	})
}

// A cookie is good for its address, its ClientHello and its time only.
func TestCookies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCookies()
		a, b := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
		random, other := make([]byte, 32), bytes.Repeat([]byte{1}, 32)
		cookie := c.append(nil, a, random)
		later := bytes.Clone(cookie)
		binary.BigEndian.PutUint32(later, 1)
		forged := bytes.Clone(cookie)
		forged[len(forged)-1] ^= 1
		for _, v := range []struct {
			name   string
			ok     bool
			cookie []byte
			from   netip.AddrPort
			random []byte
		}{
			{"its own", true, cookie, a, random},
			{"another port", false, cookie, b, random},
			{"another hello", false, cookie, a, other},
			{"forged", false, forged, a, random},
			{"another time", false, later, a, random},
			{"short", false, cookie[:len(cookie)-1], a, random},
			{"empty", false, nil, a, random},
		} {
			if c.valid(v.cookie, v.from, v.random) != v.ok {
				t.Errorf("%s: %v", v.name, !v.ok)
			}
		}
		if newCookies().valid(cookie, a, random) {
			t.Error("valid for another listener")
		}
		time.Sleep(cookieLifetime)
		if !c.valid(cookie, a, random) {
			t.Error("dead before its time")
		}
		time.Sleep(time.Second)
		if c.valid(cookie, a, random) {
			t.Error("alive after its time")
		}
	})
}

// The server's last flight may get lost any number of times; it is sent again
// whenever the client asks, whether or not the server's user reads.
func TestDTLSLastFlightLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		lost := 0
		n.setFilter(func(from, _ netip.AddrPort, b []byte) [][]byte {
			if from.String() == simServer && b[0] == wire.ChangeCipherSpec && lost < 3 {
				lost++
				return nil
			}
			return [][]byte{b}
		})
		l, conns := simListen(t, n, serverConfig())
		client := simDial(n, simClient, clientConfig())
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		if lost != 3 {
			t.Fatalf("%d flights lost: the test tests nothing", lost)
		}
		server := (<-conns).conn
		echo(t, client, server)
		client.Close()
		server.Close()
		l.Close()
	})
}

// Whatever arrives from the peer's address without authentication has no
// effect on a session, and neither have replays.
func TestDTLSUnauthenticated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, _, client, server := simSession(t, n)
		var recorded [][]byte
		n.setFilter(func(_, to netip.AddrPort, b []byte) [][]byte {
			if to.String() == simServer {
				recorded = append(recorded, bytes.Clone(b))
			}
			return [][]byte{b}
		})
		echo(t, client, server)
		record := func(typ uint8, seq uint64, content ...byte) []byte {
			h := wire.RecordHeader{Type: typ, Version: wire.VersionDTLS12, Seq: seq, Length: len(content)}
			return append(wire.AppendDTLSRecordHeader(nil, h), content...)
		}
		const epoch1 = 1 << wire.SeqBits
		hostile := [][]byte{
			{}, {0}, {21},
			record(wire.Alert, 9, alertLevelFatal, uint8(AlertHandshakeFailure)),
			record(wire.Alert, 9, alertLevelWarning, uint8(AlertCloseNotify)),
			record(wire.Alert, epoch1|9, alertLevelFatal, uint8(AlertInternalError)),
			record(wire.Alert, epoch1|1<<40, alertLevelWarning, uint8(AlertCloseNotify)),
			record(wire.ApplicationData, 9, 'x'),
			record(wire.ApplicationData, epoch1|5, bytes.Repeat([]byte{7}, 60)...),
			record(wire.Handshake, 9, 1, 0, 0, 0),
			record(wire.Handshake, 2*epoch1, 20, 0, 0, 0),
			record(wire.ChangeCipherSpec, 9, 1),
			bytes.Repeat([]byte{0xff}, 2000),
		}
		hostile = append(hostile, recorded...)
		for _, b := range hostile {
			for range 3 * maxWarnings {
				n.inject(simClient, simServer, b)
				n.inject(simServer, simClient, b)
			}
			synctest.Wait()
		}
		for _, c := range []*Conn{client, server} {
			c.SetReadDeadline(time.Now().Add(time.Second))
			if m, err := c.Read(make([]byte, 100)); m != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read %d octets, %v", m, err)
			}
		}
		echo(t, client, server)
		client.Close()
		server.Close()
		l.Close()
	})
}

// A device that lost its state comes back from the same address and port. The
// old session lives until the new handshake is complete, and not longer; a
// ClientHello or a handshake without the key does not end it.
func TestDTLSReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, conns, old, oldServer := simSession(t, n)

		n.mu.Lock()
		oldSocket := n.ports[netip.MustParseAddrPort(simClient)]
		n.mu.Unlock()
		bad := clientConfig()
		bad.Key = []byte("not the key")
		thief := simDial(n, simClient, bad) // takes the address over
		if err := thief.Handshake(); err == nil {
			t.Fatal("handshake with a wrong key succeeded")
		}
		if a := <-conns; a.err == nil {
			t.Fatal("the server took it")
		}
		thief.Close()
		n.mu.Lock()
		n.ports[netip.MustParseAddrPort(simClient)] = oldSocket
		n.mu.Unlock()
		echo(t, old, oldServer)

		again := simDial(n, simClient, clientConfig())
		if err := again.Handshake(); err != nil {
			t.Fatal(err)
		}
		newServer := (<-conns).conn
		if _, err := oldServer.Read(make([]byte, 1)); !errors.Is(err, errReplaced) {
			t.Errorf("the old session: %v", err)
		}
		echo(t, again, newServer)
		oldServer.Close() // must not take the new session with it
		echo(t, again, newServer)
		if got := peersOf(l); got != 1 {
			t.Errorf("%d peers", got)
		}
		again.Close()
		newServer.Close()
		old.Close()
		l.Close()
	})
}

// A wrong key costs few datagrams, and no more the longer it goes on.
func TestDTLSNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, conns := simListen(t, n, serverConfig())
		cc := clientConfig()
		cc.Key = []byte("wrong")
		client := simDial(n, simClient, cc)
		if err := client.Handshake(); !errors.Is(err, AlertBadRecordMAC) {
			t.Errorf("client: %v", err)
		}
		<-conns
		client.Close()
		time.Sleep(time.Minute)
		if n.sentSoFar() > 10 {
			t.Errorf("%d datagrams", n.sentSoFar())
		}
		l.Close()
	})
}

// Every datagram sent ten times over makes the handshake send hardly more.
func TestDTLSNoAmplification(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		n.setFilter(func(_, _ netip.AddrPort, b []byte) [][]byte {
			return [][]byte{b, b, b, b, b, b, b, b, b, b}
		})
		l, _, client, server := simSession(t, n)
		synctest.Wait()
		// Each repeated first ClientHello is answered, as the server does not
		// remember it; then nothing is sent twice.
		if n.sentSoFar() > 6+9 {
			t.Errorf("%d datagrams", n.sentSoFar())
		}
		client.Close()
		server.Close()
		l.Close()
	})
}

func TestDTLSReadAndWriteBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, _, client, server := simSession(t, n)
		if _, err := client.Write(make([]byte, wire.MaxPlaintext+1)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("a write beyond one record: %v", err)
		}
		client.Write([]byte("four"))
		if m, err := server.Read(make([]byte, 3)); m != 3 || err != io.ErrShortBuffer {
			t.Errorf("a short read: %d, %v", m, err)
		}
		// What nobody reads is dropped beyond a bound.
		for range 2 * maxQueue {
			client.Write([]byte("x"))
		}
		synctest.Wait()
		queued := 0
		server.SetReadDeadline(time.Now().Add(time.Second))
		for {
			if _, err := server.Read(make([]byte, 3)); err != nil {
				break
			}
			queued++
		}
		if queued != maxQueue {
			t.Errorf("%d records queued, want %d", queued, maxQueue)
		}
		client.Close()
		server.Close()
		l.Close()
	})
}

// With a connection ID a session outlives a change of the client's address. The
// address follows authenticated records that are newer than all before, and
// nothing else: no replay, no forgery, no late arrival from the old address.
func TestConnectionID(t *testing.T) {
	for _, suite := range []uint16{TLS_PSK_WITH_AES_128_CCM_8, TLS_PSK_WITH_AES_128_CBC_SHA256, TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256} {
		for _, etm := range []Policy{PolicyPrefer, PolicyDisable} {
			t.Run(fmt.Sprintf("%s/etm=%v", CipherSuiteName(suite), etm == PolicyPrefer), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { testConnectionID(t, suite, etm) })
			})
		}
	}
}

func testConnectionID(t *testing.T, suite uint16, etm Policy) {
	n := newSimNet()
	l, conns := simListen(t, n, serverConfig())
	cc := clientConfig()
	cc.CipherSuites, cc.EncryptThenMAC = []uint16{suite}, etm
	client := simDial(n, simClient, cc)
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	server := (<-conns).conn
	if cs, ss := client.ConnectionState(), server.ConnectionState(); !cs.ConnectionID || !ss.ConnectionID {
		t.Fatal("no connection ID was agreed on")
	}
	echo(t, client, server)

	// A NAT gives the client another address.
	const moved, thief = "198.51.100.7:50000", "203.0.113.66:666"
	n.mu.Lock()
	socket := n.ports[netip.MustParseAddrPort(simClient)]
	n.ports[netip.MustParseAddrPort(moved)] = socket
	n.mu.Unlock()
	var last []byte
	n.setFilter(func(from, to netip.AddrPort, b []byte) [][]byte {
		switch {
		case from.String() == simClient:
			last = bytes.Clone(b)
			go n.inject(moved, simServer, b)
			return nil
		case to.String() != moved:
			t.Errorf("the server still sends to %v", to)
		}
		return [][]byte{b}
	})
	echo(t, client, server)
	if got := server.RemoteAddr().String(); got != moved {
		t.Errorf("RemoteAddr is %s, want %s", got, moved)
	}

	// A replay, a forgery, and a valid record that arrives after a newer one,
	// all from elsewhere, move nothing.
	n.inject(thief, simServer, last)
	forged := bytes.Clone(last)
	binary.BigEndian.PutUint16(forged[9:], 999)
	n.inject(thief, simServer, forged)
	var held []byte
	n.setFilter(func(_, _ netip.AddrPort, b []byte) [][]byte { held = bytes.Clone(b); return nil })
	client.Write([]byte("late"))
	n.setFilter(func(from, to netip.AddrPort, b []byte) [][]byte {
		if from.String() == simClient {
			go n.inject(moved, simServer, b)
			return nil
		}
		return [][]byte{b}
	})
	echo(t, client, server)
	n.inject(thief, simServer, held)
	synctest.Wait()
	if got := server.RemoteAddr().String(); got != moved {
		t.Errorf("RemoteAddr is %s, want %s", got, moved)
	}
	b := make([]byte, 10)
	if m, err := server.Read(b); string(b[:m]) != "late" || err != nil {
		t.Errorf("the late record: %q, %v", b[:m], err)
	}

	// Without the agreed connection ID nothing is taken.
	client.t.(*datagram).out.connectionID = nil
	n.setFilter(nil)
	client.Write([]byte("plain"))
	server.SetReadDeadline(time.Now().Add(time.Second))
	if m, err := server.Read(b); err == nil {
		t.Errorf("a record without the connection ID: %q", b[:m])
	}
	client.Close()
	server.Close()
	l.Close()
	if len(l.byID) != 0 || len(l.peers) != 0 {
		t.Errorf("%d connection IDs and %d peers are left", len(l.byID), len(l.peers))
	}
}

// A server on all addresses answers from the one that the client has called.
func TestWildcardSocket(t *testing.T) {
	for _, network := range []string{"udp4", "udp"} { // the second serves IPv4 on an IPv6 socket
		t.Run(network, func(t *testing.T) { testWildcardSocket(t, network) })
	}
}

func testWildcardSocket(t *testing.T, network string) {
	l, err := Listen(network, ":0", serverConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, ip := range []string{"127.0.0.1", "127.0.0.2", "127.1.2.3"} {
		probe, err := net.ListenPacket("udp4", ip+":0")
		if err != nil {
			t.Logf("%s is not tested: this system has no such address: %v", ip, err)
			continue
		}
		probe.Close()
		addr := net.JoinHostPort(ip, port)
		done := make(chan *Conn, 1)
		go func() {
			defer close(done)
			if c, err := l.Accept(); err != nil {
				t.Error(err)
			} else if err := c.(*Conn).Handshake(); err != nil {
				t.Error(err)
			} else {
				done <- c.(*Conn)
			}
		}()
		c, err := Dial("udp4", addr, clientConfig())
		if err != nil {
			t.Fatal(err)
		}
		s, ok := <-done
		if !ok {
			t.FailNow()
		}
		if got := s.LocalAddr().String(); got != addr {
			t.Errorf("the session's local address is %s, want %s", got, addr)
		}
		echo(t, c, s)
		c.Close()
		s.Close()
	}
}

// A replay window sees each number once, in any order, and forgets none that
// it still accepts.
func TestReplayWindow(t *testing.T) {
	var w replayWindow
	for _, step := range []struct {
		seq   uint64
		fresh bool
	}{{0, true}, {0, false}, {2, true}, {1, true}, {1, false}, {2, false}, {65, true}, {1, false}, {2, false}, {3, true},
		{64, true}, {64, false}, {1000, true}, {936, false}, {937, true}, {937, false}, {1<<48 - 1, true}, {1000, false}} {
		if w.fresh(step.seq) != step.fresh {
			t.Errorf("%d: fresh = %v", step.seq, !step.fresh)
		}
		if step.fresh {
			w.mark(step.seq)
		}
	}
}
