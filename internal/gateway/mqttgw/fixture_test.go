package mqttgw

import (
	"bufio"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/saef"
)

// patience is for what must happen; a test waits that long only when it fails.
const patience = 20 * time.Second

// A fixture is a gateway between devices and a broker.
type fixture struct {
	t       testing.TB
	site    *gwtest.Site
	server  *Server
	address string
	entries *entries
}

// eventually waits until what is to become true has.
func (f *fixture) eventually(done func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatal("it does not happen")
		}
	}
}

func newFixture(t testing.TB, broker string, rules policy.Config, change func(*Config)) *fixture {
	t.Helper()
	site := gwtest.New(t)
	rules.CSE = gwtest.CSE
	r, err := policy.New(rules)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, site: site, entries: newEntries()}
	config := Config{
		Rules: r, CSE: gwtest.CSE, Recorder: f.entries, Log: gwtest.Logger(t),
		Broker: Broker{Address: broker, Username: "gateway", Password: saef.NewSecret([]byte("secret"))},
	}
	if change != nil {
		change(&config)
	}
	if f.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	l := site.Listen("tcp")
	f.address = l.Addr().String()
	var served sync.WaitGroup
	served.Go(func() {
		if err := f.server.Serve(l); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		f.server.Shutdown(t.Context()) // which has ended: no draining
		served.Wait()
	})
	return f
}

// entries is a Recorder that keeps.
type entries struct{ all chan access.Entry }

func newEntries() *entries { return &entries{make(chan access.Entry, 10_000)} }

func (e *entries) Record(entry access.Entry) { e.all <- entry }

// next returns the next entry.
func (e *entries) next(t testing.TB) access.Entry {
	t.Helper()
	select {
	case entry := <-e.all:
		return entry
	case <-time.After(patience):
		t.Fatal("nothing recorded")
		return access.Entry{}
	}
}

// A client is a device that speaks MQTT packet by packet.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial opens an association without a CONNECT.
func (f *fixture) dial(d *saef.Device) *client {
	f.t.Helper()
	conn, err := d.Dial(f.t.Context(), "tcp", f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return &client{f.t, conn, bufio.NewReader(conn)}
}

// connect opens an association with a session.
func (f *fixture) connect(d *saef.Device) *client {
	f.t.Helper()
	c := f.dial(d)
	c.send(&mqtt.Connect{CleanSession: true, ClientID: "test"})
	if p, ok := c.read().(*mqtt.Connack); !ok || p.Code != mqtt.Accepted {
		f.t.Fatalf("CONNECT: %+v", p)
	}
	return c
}

func (c *client) send(p mqtt.Packet) {
	c.t.Helper()
	b, err := mqtt.Append(nil, p)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(b)
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) read() mqtt.Packet {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	p, err := mqtt.Read(c.r, 1<<20)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// closed waits until the gateway has closed the connection, and nothing came
// before.
func (c *client) closed() {
	c.t.Helper()
	c.conn.SetReadDeadline(time.Now().Add(patience))
	if p, err := mqtt.Read(c.r, 1<<20); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("not closed: %+v, %v", p, err)
	}
}

// testBroker stands in for a broker with a CSE. It keeps no subscriptions:
// handle says what a session is sent.
type testBroker struct {
	t    testing.TB
	l    net.Listener
	code mqtt.ConnackCode
	// handle is called for each PUBLISH; nil does nothing.
	handle func(*session, *mqtt.Publish)

	sessions chan *session
	running  sync.WaitGroup
}

// A session is one connection of the gateway's to the broker.
type session struct {
	t       testing.TB
	connect *mqtt.Connect
	got     chan mqtt.Packet // all after CONNECT; closed when the connection is

	mu   sync.Mutex // held while writing
	conn net.Conn
}

func newBroker(t testing.TB, handle func(*session, *mqtt.Publish)) *testBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &testBroker{t: t, l: l, handle: handle, sessions: make(chan *session, 10_000)}
	b.running.Go(b.serve)
	t.Cleanup(func() { l.Close(); b.running.Wait() })
	return b
}

func (b *testBroker) address() string { return b.l.Addr().String() }

func (b *testBroker) serve() {
	for {
		conn, err := b.l.Accept()
		if err != nil {
			return
		}
		b.running.Go(func() {
			defer conn.Close()
			b.serveSession(&session{t: b.t, conn: conn, got: make(chan mqtt.Packet, 1000)})
		})
	}
}

func (b *testBroker) serveSession(s *session) {
	defer close(s.got)
	r := bufio.NewReaderSize(s.conn, 512)
	p, err := mqtt.Read(r, 1<<20)
	c, ok := p.(*mqtt.Connect)
	if err != nil || !ok {
		b.t.Errorf("broker: %+v, %v in place of CONNECT", p, err)
		return
	}
	s.connect = c
	b.sessions <- s
	s.send(&mqtt.Connack{Code: b.code})
	for {
		p, err := mqtt.Read(r, 1<<20)
		if err != nil {
			return
		}
		s.got <- p
		b.answer(s, p)
	}
}

// answer does what the protocol asks of a server.
func (b *testBroker) answer(s *session, p mqtt.Packet) {
	switch p := p.(type) {
	case *mqtt.Publish:
		switch p.QoS {
		case 1:
			s.send(&mqtt.Ack{Kind: mqtt.TypePuback, ID: p.ID})
		case 2:
			s.send(&mqtt.Ack{Kind: mqtt.TypePubrec, ID: p.ID})
		}
		if b.handle != nil {
			b.handle(s, p)
		}
	case *mqtt.Subscribe:
		codes := make([]byte, len(p.Filters))
		for i, f := range p.Filters {
			codes[i] = f.QoS
		}
		s.send(&mqtt.Suback{ID: p.ID, Codes: codes})
	case *mqtt.Unsubscribe:
		s.send(&mqtt.Ack{Kind: mqtt.TypeUnsuback, ID: p.ID})
	case *mqtt.Ack:
		if p.Kind == mqtt.TypePubrel {
			s.send(&mqtt.Ack{Kind: mqtt.TypePubcomp, ID: p.ID})
		}
	case mqtt.Signal:
		if p.Type() == mqtt.TypePingreq {
			s.send(mqtt.Signal(mqtt.TypePingresp))
		}
	}
}

func (s *session) send(p mqtt.Packet) {
	b, err := mqtt.Append(nil, p)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.Write(b) // the gateway may be gone
}

// session returns the next connection of the gateway's.
func (b *testBroker) session() *session {
	b.t.Helper()
	select {
	case s := <-b.sessions:
		return s
	case <-time.After(patience):
		b.t.Fatal("the gateway does not connect to the broker")
		return nil
	}
}

// next returns the next packet of the gateway's, or nil when it has closed the
// connection.
func (s *session) next() mqtt.Packet {
	s.t.Helper()
	select {
	case p := <-s.got:
		return p
	case <-time.After(patience):
		s.t.Fatal("the broker gets nothing")
		return nil
	}
}
