package coapgw

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeCSE is a CoAP server that keeps what it gets.
type fakeCSE struct {
	addr string
	conn *net.UDPConn

	mu        sync.Mutex
	answer    func(*coap.Message) *coap.Message // guarded by mu
	lose      func(n int) bool                  // which datagram is lost; guarded by mu
	got       []*coap.Message                   // guarded by mu
	endpoints map[netip.AddrPort]*coap.Endpoint // guarded by mu
	asker     map[string]*coap.Endpoint         // by token; guarded by mu
}

// newCSE starts a CSE. answer may be nil: 2000 to everything.
func newCSE(t testing.TB, answer func(*coap.Message) *coap.Message) *fakeCSE {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	cse := &fakeCSE{addr: conn.LocalAddr().String(), conn: conn, answer: answer,
		endpoints: make(map[netip.AddrPort]*coap.Endpoint), asker: make(map[string]*coap.Endpoint)}
	var reading sync.WaitGroup
	reading.Go(func() { cse.read(conn) })
	t.Cleanup(func() {
		conn.Close()
		reading.Wait()
		for _, e := range cse.endpoints {
			e.Close()
		}
	})
	return cse
}

func (cse *fakeCSE) read(conn *net.UDPConn) {
	b := make([]byte, maxDatagram)
	for i := 1; ; i++ {
		n, from, err := conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		cse.mu.Lock()
		if cse.lose != nil && cse.lose(i) {
			cse.mu.Unlock()
			continue
		}
		e := cse.endpoints[from]
		if e == nil {
			e = coap.NewEndpoint(coap.Config{
				Send:        func(b []byte) error { _, err := conn.WriteToUDPAddrPort(b, from); return err },
				Handle:      func(_ context.Context, m *coap.Message) *coap.Message { return cse.handle(e, m) },
				MaxHandling: 1000,
			})
			cse.endpoints[from] = e
		}
		cse.mu.Unlock()
		e.Receive(b[:n])
	}
}

// answers sets what it answers from now on.
func (cse *fakeCSE) answers(answer func(*coap.Message) *coap.Message) {
	cse.mu.Lock()
	defer cse.mu.Unlock()
	cse.answer = answer
}

// loses sets which datagram to it is lost.
func (cse *fakeCSE) loses(lose func(n int) bool) {
	cse.mu.Lock()
	defer cse.mu.Unlock()
	cse.lose = lose
}

func (cse *fakeCSE) handle(e *coap.Endpoint, m *coap.Message) *coap.Message {
	cse.mu.Lock()
	cse.got = append(cse.got, m)
	cse.asker[string(m.Token)] = e
	answer := cse.answer
	cse.mu.Unlock()
	if answer != nil {
		return answer(m)
	}
	return reply(m, coap.Content, 2000, "")
}

// whoAsked returns the end from which a request came.
func (cse *fakeCSE) whoAsked(m *coap.Message) *coap.Endpoint {
	cse.mu.Lock()
	defer cse.mu.Unlock()
	return cse.asker[string(m.Token)]
}

func (cse *fakeCSE) requests() []*coap.Message {
	cse.mu.Lock()
	defer cse.mu.Unlock()
	return slices.Clone(cse.got)
}

func (cse *fakeCSE) last(t testing.TB) *coap.Message {
	t.Helper()
	all := cse.requests()
	if len(all) == 0 {
		t.Fatal("the CSE got nothing")
	}
	return all[len(all)-1]
}

// reply is an answer in the dialect of the request.
func reply(m *coap.Message, code coap.Code, status uint32, content string) *coap.Message {
	d, _ := dialectOf(m.Options, Release3)
	answer := &coap.Message{Code: code, Payload: []byte(content)}
	answer.Options.AddUint(d.number(statusCode), status)
	if id, ok := d.text(m.Options, requestID); ok {
		answer.Options.AddString(d.number(requestID), id)
	}
	if content != "" {
		answer.Options.AddUint(coap.ContentFormat, formatJSON)
	}
	return answer
}

// A rig is a gateway before a CSE.
type rig struct {
	t             testing.TB
	site          *gwtest.Site
	server        *Server
	listener      *saef.Listener
	notifications *Notifications
	notifyAt      string
	lose          func(n int) bool // which datagram of a device is lost
	log           accessLog
}

type accessLog struct {
	mu      sync.Mutex
	entries []access.Entry // guarded by mu
}

func (l *accessLog) Record(e access.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
}

func (l *accessLog) last() access.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == 0 {
		return access.Entry{}
	}
	return l.entries[len(l.entries)-1]
}

// newRig starts a gateway before a CoAP CSE. change, when not nil, may change the
// configuration.
func newRig(t testing.TB, cse string, change func(*Config, *BackendConfig)) *rig {
	t.Helper()
	g := &rig{t: t, site: gwtest.New(t)}
	rules, err := policy.New(policy.Config{CSE: gwtest.CSE, Allowed: []policy.Allowance{{KmID: "lamp@*", AEIDs: []string{"Clamp*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	g.notifyAt = conn.LocalAddr().String()
	if g.notifications, err = NewNotifications(NotificationsConfig{Address: g.notifyAt, CSE: gwtest.CSE}); err != nil {
		t.Fatal(err)
	}
	config := Config{Rules: rules, Notifications: g.notifications, Recorder: &g.log, Log: gwtest.Logger(t)}
	backend := BackendConfig{Address: cse}
	if change != nil {
		change(&config, &backend)
	}
	if config.Backend == nil {
		b, err := NewBackend(backend)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		config.Backend = b
	}
	if g.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	listener := g.site.Listen("udp")
	g.listener = listener
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.server.Serve(listener); err != nil {
			t.Error(err)
		}
	})
	serving.Go(func() {
		if err := g.notifications.Serve(conn); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once
		g.server.Shutdown(ctx)
		conn.Close()
		serving.Wait()
	})
	return g
}

// A device is one end of an association.
type device struct {
	t        testing.TB
	conn     *tlspsk.Conn
	endpoint *coap.Endpoint
	dialect  Dialect
	n        int
}

// dial connects a device. handle, when not nil, answers what it is asked.
func (g *rig) dial(d *saef.Device, handle func(context.Context, *coap.Message) *coap.Message) *device {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 30*time.Second)
	defer cancel()
	conn, err := d.Dial(ctx, "udp", g.listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	end := &device{t: g.t, conn: conn}
	var sent atomic.Int32
	end.endpoint = coap.NewEndpoint(coap.Config{
		Send: func(b []byte) error {
			if n := int(sent.Add(1)); g.lose != nil && g.lose(n) {
				return nil
			}
			_, err := conn.Write(b)
			return err
		},
		Handle: handle,
	})
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, 4096)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			end.endpoint.Receive(b[:n])
		}
	})
	g.t.Cleanup(func() {
		conn.Close()
		reading.Wait()
		end.endpoint.Close()
	})
	return end
}

// ae dials as the AE Cmeter7.
func (g *rig) ae() *device {
	return g.dial(g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), nil)
}

// request makes a request in the device's dialect with a path, an originator and a
// request identifier of its own. Options follow in pairs of number and value.
func (d *device) request(code coap.Code, path, originator, content string, more ...any) *coap.Message {
	d.n++
	m := &coap.Message{Code: code, Payload: []byte(content)}
	for segment := range strings.SplitSeq(path, "/") {
		m.Options.AddString(coap.URIPath, segment)
	}
	m.Options.AddString(d.dialect.number(from), originator)
	m.Options.AddString(d.dialect.number(requestID), fmt.Sprintf("req-%d", d.n))
	if content != "" {
		m.Options.AddUint(coap.ContentFormat, formatJSON)
	}
	add(m, more...)
	return m
}

func add(m *coap.Message, more ...any) {
	for i := 0; i < len(more); i += 2 {
		number := uint16(more[i].(int))
		switch v := more[i+1].(type) {
		case string:
			m.Options.AddString(number, v)
		case int:
			m.Options.AddUint(number, uint32(v))
		case []byte:
			m.Options.Add(number, v)
		}
	}
}

// do sends a request and returns the answer.
func (d *device) do(m *coap.Message) *coap.Message {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	answer, err := coap.Transfer{SZX: 6, Max: 1 << 20}.Exchange(ctx, d.endpoint, m)
	if err != nil {
		d.t.Fatalf("no answer: %v", err)
	}
	return answer
}

// status returns the status in an answer's option.
func (d *device) status(m *coap.Message) int {
	n, ok := m.Options.Uint(d.dialect.number(statusCode))
	if !ok {
		return 0
	}
	return int(n)
}

// eventually waits for what another goroutine brings about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 2000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s did not happen", what)
}
