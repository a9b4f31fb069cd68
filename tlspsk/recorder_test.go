package tlspsk

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/peers"
)

// TestRecordSessions makes testdata/sessions anew, with the peers that are
// installed: MAF_RECORD=1 go test -run TestRecordSessions ./tlspsk
func TestRecordSessions(t *testing.T) {
	if os.Getenv("MAF_RECORD") != "1" {
		t.Skip("left out: the recordings are made anew with MAF_RECORD=1")
	}
	for _, name := range peers.Names() {
		t.Run(name, func(t *testing.T) {
			var file []byte
			for _, session := range sessionsWith(t, name) {
				r, err := parseName(session)
				if err != nil {
					t.Fatal(err)
				}
				r.record(t, name)
				file = r.append(file)
			}
			if err := os.WriteFile(filepath.Join("testdata/sessions", name+".txt"), file, 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// sessionsWith names what is recorded with a peer: every suite that it has, in
// each role and over each transport, and variants of some.
func sessionsWith(t *testing.T, peer string) (names []string) {
	for _, transport := range []string{"TLS", "DTLS"} {
		network := map[string]string{"TLS": "tcp", "DTLS": "udp"}[transport]
		for _, role := range []string{"server", "client"} {
			has := peers.Get(t, peer).Suites(t, network)
			add := func(suite string, words ...string) {
				if slices.Contains(has, suite) {
					names = append(names, strings.Join(append([]string{transport, role, suite}, words...), " "))
				}
			}
			for _, s := range CipherSuites() {
				add(s.Name)
			}
			add("TLS_PSK_WITH_AES_128_CBC_SHA256", "no-etm")
			if peer != "botan" { // it takes none without extended master secret
				add("TLS_PSK_WITH_AES_128_CBC_SHA256", "no-ems", "no-etm")
				add("TLS_PSK_WITH_AES_256_GCM_SHA384", "no-ems")
			}
			add("TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", "P-256")
			if transport == "DTLS" && (peer != "mbedtls" || role == "server") { // its server takes no ClientHello in pieces
				add("TLS_PSK_WITH_AES_128_CCM_8", "fragments")
			}
		}
	}
	return names
}

// record has the session, and replays it once. The peer's timers and ours run on
// the machine's clock here, and on a slow day that shows: then it is tried again.
func (r *recording) record(t *testing.T, peer string) {
	t.Helper()
	for try := 1; ; try++ {
		err := r.recordOnce(t, peer)
		if err == nil {
			err = r.replay(t)
		}
		if err == nil {
			return
		}
		if try == 3 {
			t.Fatalf("%s: %v", r.name, err)
		}
		t.Logf("%s, try %d: %v", r.name, try, err)
	}
}

func (r *recording) recordOnce(t *testing.T, peer string) (err error) {
	o := peers.Options{Network: "tcp", Suites: []string{r.suite.Name}, Identity: r.identity(), PSK: testKey,
		ServerName: r.serverName(), Hint: "hint", Bulk: 100}
	if r.dtls {
		o.Network = "udp"
	}
	log := new(eventLog)
	program := peers.Get(t, peer)
	var process *peers.Process
	if r.weServe {
		if r.has("fragments") {
			o.MTU = 228 // OpenSSL takes no less
		}
		r.withItsRandoms(func() {
			err = r.serveAndRecord(log, o.Network, func(addr string) {
				o.Addr = addr
				process = program.Connect(t, o)
			})
		})
	} else {
		process = program.Serve(t, o)
		conn, dialErr := net.Dial(o.Network, process.Addr)
		if dialErr != nil {
			return dialErr
		}
		r.withItsRandoms(func() { err = r.keep(r.run(&recordingConn{Conn: conn, log: log})) })
	}
	if err != nil {
		process.Stop()
		return fmt.Errorf("%w; the peer: %q", err, process.Wait().Lines)
	}
	if theirs := process.Wait(); len(theirs.Sessions) != 1 || string(theirs.Sessions[0].Export) != string(r.export) {
		return fmt.Errorf("the peer has %q", theirs.Lines)
	}
	if r.events = log.all(); r.dtls {
		r.events = untilOurLast(r.events)
	}
	return nil
}

func (r *recording) keep(done result) error {
	r.export = done.export
	return done.err
}

// serveAndRecord serves the client that connect starts.
func (r *recording) serveAndRecord(log *eventLog, network string, connect func(addr string)) error {
	if network == "udp" {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		connect(pc.LocalAddr().String())
		return r.keep(r.run(&recordingPacketConn{PacketConn: pc, log: log}))
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	connect(ln.Addr().String())
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	return r.keep(r.run(&recordingConn{Conn: conn, log: log}))
}

// An eventLog collects what goes through a connection.
type eventLog struct {
	mu     sync.Mutex // guards what follows
	events []event
}

func (l *eventLog) add(ours bool, b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, event{ours, slices.Clone(b)})
}

func (l *eventLog) all() []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// untilOurLast leaves out what came after all that this side had to say, which a
// DTLS client does not wait for.
func untilOurLast(events []event) []event {
	n := len(events)
	for n > 0 && !events[n-1].ours {
		n--
	}
	return events[:n:n]
}

type recordingConn struct {
	net.Conn
	log *eventLog
}

func (c *recordingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.log.add(false, b[:n])
	}
	return n, err
}

func (c *recordingConn) Write(b []byte) (int, error) {
	c.log.add(true, b)
	return c.Conn.Write(b)
}

// A recordingPacketConn knows one peer, and gives it the address that it has in
// replays.
type recordingPacketConn struct {
	net.PacketConn
	log  *eventLog
	mu   sync.Mutex // guards peer
	peer net.Addr
}

func (c *recordingPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.PacketConn.ReadFrom(b)
	if err == nil {
		c.mu.Lock()
		c.peer = from
		c.mu.Unlock()
		c.log.add(false, b[:n])
	}
	return n, tapePeer, err
}

func (c *recordingPacketConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	c.mu.Lock()
	to := c.peer
	c.mu.Unlock()
	c.log.add(true, b)
	return c.PacketConn.WriteTo(b, to)
}
