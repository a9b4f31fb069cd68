package tlspsk

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whole sessions with other implementations, recorded once and replayed octet
// for octet: given what the peer sent then, and the same random octets, this side
// has to send just what it sent then, to the last close_notify, and to export the
// same key. testdata/sessions/README.md says where they come from, recorder_test.go
// makes them.

// A recording is one session, as this side saw it.
type recording struct {
	// name says all that is special about it; see parseName.
	name    string
	weServe bool
	dtls    bool
	suite   CipherSuite
	words   []string // "no-ems", "no-etm", "P-256", "fragments"

	export []byte
	events []event
}

// An event is what one Read or Write of the connection below carried.
type event struct {
	ours bool // this side sent it
	data []byte
}

// parseName reads a name such as "DTLS server TLS_PSK_WITH_AES_128_CCM_8 no-ems":
// protocol, our role, suite, and what differs from the default.
func parseName(name string) (*recording, error) {
	words := strings.Fields(name)
	if len(words) < 3 {
		return nil, errors.New("a name has a protocol, a role and a suite")
	}
	r := &recording{name: name, dtls: words[0] == "DTLS", weServe: words[1] == "server", words: words[3:]}
	for _, s := range CipherSuites() {
		if s.Name == words[2] {
			r.suite = s
			return r, nil
		}
	}
	return nil, fmt.Errorf("no suite is called %q", words[2])
}

func (r *recording) has(word string) bool { return slices.Contains(r.words, word) }

func (r *recording) identity() []byte {
	if r.has("fragments") {
		return bytes.Repeat([]byte("i"), 128)
	}
	return testIdentity
}

func (r *recording) serverName() string {
	if r.has("fragments") {
		return strings.Repeat(strings.Repeat("a", 60)+".", 3) + "example.com"
	}
	return "maf.example.com"
}

// config is our side's, which puts what it exports into *export.
func (r *recording) config(export *[]byte) *Config {
	c := &Config{
		CipherSuites:     []uint16{r.suite.ID},
		CurvePreferences: []CurveID{X25519},
		VerifyConnection: func(_ context.Context, cs *ConnectionState) (err error) {
			*export, err = cs.ExportKeyingMaterial(exportLabel, nil, 48)
			return err
		},
		RefusalDelay: -1,
		// Ours would depend on how fast the peer was.
		RetransmitTimeout: 20 * time.Second,
	}
	if r.weServe {
		c.IdentityHint = []byte("hint")
		c.GetPSK = func(_ context.Context, req *PSKRequest) (*PSK, error) {
			if !bytes.Equal(req.Identity, r.identity()) || req.ServerName != r.serverName() {
				return nil, ErrUnknownIdentity
			}
			return &PSK{Key: testKey}, nil
		}
	} else {
		c.Identity, c.Key, c.ServerName = r.identity(), testKey, r.serverName()
	}
	if r.has("no-ems") {
		c.ExtendedMasterSecret = PolicyDisable
	}
	if r.has("no-etm") {
		c.EncryptThenMAC = PolicyDisable
	}
	if r.has("P-256") {
		c.CurvePreferences = []CurveID{CurveP256}
	}
	if r.has("fragments") {
		c.MTU = minMTU
	}
	return c
}

// withItsRandoms runs f with crypto/rand's Reader replaced: from it this side takes
// its randoms, ephemeral keys, IVs, connection IDs and cookies' key, so that all
// suites can be replayed.
func (r *recording) withItsRandoms(f func()) {
	defer func(normal io.Reader) { rand.Reader = normal }(rand.Reader)
	rand.Reader = mathrand.NewChaCha8(sha256.Sum256([]byte(r.name)))
	f()
}

// A result is what came of our side's part in a session.
type result struct {
	export []byte
	heard  []byte // application data, as it came
	err    error
}

// run is our side of the session, over a net.Conn or, as DTLS server, a
// net.PacketConn.
func (r *recording) run(below io.Closer) (done result) {
	config := r.config(&done.export)
	var c *Conn
	switch {
	case r.dtls && r.weServe:
		l := NewPacketListener(below.(net.PacketConn), config)
		defer l.Close()
		defer time.AfterFunc(time.Minute, func() { l.Close() }).Stop() // a client that never has a cookie
		accepted, err := l.Accept()
		if err != nil {
			done.err = err
			return done
		}
		c = accepted.(*Conn)
	case r.dtls:
		c = DatagramClient(below.(net.Conn), config)
	case r.weServe:
		c = Server(below.(net.Conn), config)
	default:
		c = Client(below.(net.Conn), config)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	if done.err = c.Handshake(); done.err != nil {
		return done
	}
	heard := &hearer{Conn: c}
	if r.weServe {
		done.err = r.answer(heard)
	} else {
		done.err = r.ask(heard)
	}
	done.heard = heard.heard
	return done
}

// A hearer keeps what is read.
type hearer struct {
	*Conn
	heard []byte
}

func (c *hearer) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.heard = append(c.heard, b[:n]...)
	return n, err
}

// answer is our part as the server: what begins with "ping" is answered by
// "pong", other data by itself.
func (r *recording) answer(c *hearer) error {
	var buf [1024]byte
	for {
		n, err := c.Read(buf[:])
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if bytes.HasPrefix(buf[:n], []byte("ping")) {
			buf[1] = 'o'
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return err
		}
	}
}

func (r *recording) ask(c *hearer) error {
	for _, n := range []int{6, 33, 80} { // octets; to CBC, less than a block, more, and whole blocks
		question := append([]byte("ping"), bytes.Repeat([]byte{byte(n)}, n-4)...)
		if _, err := c.Write(question); err != nil {
			return err
		}
		answer := make([]byte, n)
		if _, err := io.ReadFull(c, answer); err != nil {
			return err
		}
		if question[1] = 'o'; !bytes.Equal(answer, question) {
			return fmt.Errorf("answered %q", answer)
		}
	}
	if r.dtls {
		return nil // Close says the last word
	}
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		return fmt.Errorf("no close_notify in answer to ours: %w", err)
	}
	return nil
}

// A tape replays a recording to our side. It is a net.Conn and a net.PacketConn.
// A peer's event is to be had once all of ours before it have come; ours are
// compared as they come.
type tape struct {
	dtls   bool
	events []event
	deaf   bool // take whatever ours is

	mu      sync.Mutex // guards what follows
	changed *sync.Cond
	in, out int // events before these are done with, of the peer's and of ours
	rest    []byte
	wrong   error
	closed  bool
}

func newTape(r *recording) *tape {
	t := &tape{dtls: r.dtls, events: r.events}
	t.changed = sync.NewCond(&t.mu)
	t.in, t.out = t.next(0, false), t.next(0, true)
	return t
}

// next returns the first event of a side, from i.
func (t *tape) next(i int, ours bool) int {
	for i < len(t.events) && t.events[i].ours != ours {
		i++
	}
	return i
}

func (t *tape) Read(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.rest) == 0 {
		for !t.closed && (t.in == len(t.events) || t.in > t.out) {
			if t.in == len(t.events) && !t.dtls {
				return 0, io.EOF
			}
			t.changed.Wait()
		}
		if t.closed {
			return 0, net.ErrClosed
		}
		t.rest = t.events[t.in].data
		t.in = t.next(t.in+1, false)
	}
	n := copy(b, t.rest)
	if t.rest = t.rest[n:]; t.dtls {
		t.rest = nil
	}
	return n, nil
}

func (t *tape) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.wrong != nil:
		return 0, t.wrong
	case t.deaf:
	case t.out == len(t.events):
		t.wrong = fmt.Errorf("after all that was recorded it sent %x", b)
	case !bytes.Equal(b, t.events[t.out].data):
		t.wrong = fmt.Errorf("event %d: it sent\n%x\nrecorded is\n%x", t.out, b, t.events[t.out].data)
	}
	if t.wrong != nil {
		return 0, t.wrong
	}
	t.out = t.next(t.out+1, true)
	t.changed.Broadcast()
	return len(b), nil
}

func (t *tape) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.changed.Broadcast()
	return nil
}

// verdict is what was wrong, once our side is done.
func (t *tape) verdict() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.wrong == nil && t.out != len(t.events) {
		return fmt.Errorf("event %d of %d was not sent", t.out, len(t.events))
	}
	return t.wrong
}

// tapePeer is where the peer is, whatever its address was: the server's cookie
// depends on it.
var tapePeer = &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 40000}

func (t *tape) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := t.Read(b)
	return n, tapePeer, err
}

func (t *tape) WriteTo(b []byte, _ net.Addr) (int, error) { return t.Write(b) }
func (t *tape) LocalAddr() net.Addr                       { return &net.UDPAddr{} }
func (t *tape) RemoteAddr() net.Addr                      { return tapePeer }
func (t *tape) SetDeadline(time.Time) error               { return nil }
func (t *tape) SetReadDeadline(time.Time) error           { return nil }
func (t *tape) SetWriteDeadline(time.Time) error          { return nil }

// replay demands that our side says and exports what it did then.
func (r *recording) replay(t *testing.T) error {
	var err error
	r.withItsRandoms(func() {
		synctest.Test(t, func(*testing.T) {
			tape := newTape(r)
			// Waiting for ever is a failure too, and takes no time here.
			defer time.AfterFunc(time.Hour, func() { tape.Close() }).Stop()
			done := r.run(tape)
			if err = tape.verdict(); err == nil {
				err = done.err
			}
			if err == nil && !bytes.Equal(done.export, r.export) {
				err = fmt.Errorf("exported\n%x\nrecorded is\n%x", done.export, r.export)
			}
		})
	})
	return err
}

func TestRecordedSessions(t *testing.T) {
	for peer, recordings := range readRecordings(t) {
		for _, r := range recordings {
			t.Run(peer+"/"+strings.ReplaceAll(r.name, " ", "/"), func(t *testing.T) {
				if err := r.replay(t); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestRecordedSessionsAltered: an octet of the peer's that differs does make a
// difference, in the last record of each of its events.
func TestRecordedSessionsAltered(t *testing.T) {
	tried := 0
	for peer, recordings := range readRecordings(t) {
		for _, r := range recordings {
			if r.dtls {
				continue // what is altered is dropped, and may not have been needed
			}
			for i, e := range r.events {
				if e.ours {
					continue
				}
				altered := *r
				altered.events = slices.Clone(r.events)
				altered.events[i].data = bytes.Clone(e.data)
				altered.events[i].data[len(e.data)-1] ^= 1
				if altered.replay(t) == nil {
					t.Errorf("%s, %s: event %d may be altered", peer, r.name, i)
				}
				tried++
			}
		}
	}
	if tried == 0 {
		t.Error("nothing was altered")
	}
}

// readRecordings reads testdata/sessions, a file for each peer.
func readRecordings(t testing.TB) map[string][]*recording {
	t.Helper()
	files, err := filepath.Glob("testdata/sessions/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recordings (%v)", err)
	}
	all := make(map[string][]*recording)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		list, err := parseRecordings(b)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".txt")] = list
	}
	return all
}

// A file has, for each session, a line "session" with its name, one "export",
// and one for each event: ">" ours, "<" the peer's.
func parseRecordings(b []byte) (list []*recording, err error) {
	var r *recording
	for lines := bufio.NewScanner(bytes.NewReader(b)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if key == "session" {
			if r, err = parseName(value); err != nil {
				return nil, err
			}
			list = append(list, r)
			continue
		}
		data, err := hex.DecodeString(value)
		switch {
		case err != nil:
			return nil, err
		case r == nil:
			return nil, fmt.Errorf("%q before the first session", key)
		case key == "export":
			r.export = data
		case key == ">" || key == "<":
			r.events = append(r.events, event{key == ">", data})
		default:
			return nil, fmt.Errorf("a line begins with %q", key)
		}
	}
	return list, nil
}

func (r *recording) append(b []byte) []byte {
	b = fmt.Appendf(b, "session %s\nexport %x\n", r.name, r.export)
	for _, e := range r.events {
		b = fmt.Appendf(b, "%c %x\n", map[bool]rune{true: '>', false: '<'}[e.ours], e.data)
	}
	return b
}
