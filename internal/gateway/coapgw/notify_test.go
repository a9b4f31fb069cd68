package coapgw

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// A caller socket of the CSE's.
func (g *rig) cseSocket() *coap.Endpoint {
	g.t.Helper()
	conn, err := net.Dial("udp", g.notifyAt)
	if err != nil {
		g.t.Fatal(err)
	}
	e := coap.NewEndpoint(coap.Config{Send: func(b []byte) error { _, err := conn.Write(b); return err }})
	var reading sync.WaitGroup
	reading.Go(func() {
		b := make([]byte, maxDatagram)
		for {
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			e.Receive(b[:n])
		}
	})
	g.t.Cleanup(func() { conn.Close(); reading.Wait(); e.Close() })
	return e
}

// call sends a request of the CSE's to a coap URI of the gateway's.
func (g *rig) call(e *coap.Endpoint, code coap.Code, uri, content string, more ...any) *coap.Message {
	g.t.Helper()
	path, ok := strings.CutPrefix(uri, "coap://"+g.notifyAt+"/")
	if !ok {
		g.t.Fatalf("%q is no address of the gateway's", uri)
	}
	m := &coap.Message{Code: code, Payload: []byte(content)}
	for segment := range strings.SplitSeq(path, "/") {
		m.Options.AddString(coap.URIPath, segment)
	}
	add(m, more...)
	ctx, cancel := context.WithTimeout(g.t.Context(), time.Minute)
	defer cancel()
	answer, err := coap.Transfer{SZX: 6, Max: 1 << 20}.Exchange(ctx, e, m)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer
}

func rsc(m *coap.Message) int {
	n, _ := m.Options.Uint(307)
	return int(n)
}

// texts returns the texts of a list within an object within content.
func texts(t *testing.T, content []byte, object, list string) (all []string) {
	t.Helper()
	v, err := primitive.Parse(content)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range v.Get(object).Get(list).Elems() {
		s, _ := e.Str()
		all = append(all, s)
	}
	return all
}

func TestNotifications(t *testing.T) {
	backend := newCSE(t, func(m *coap.Message) *coap.Message {
		return reply(m, coap.Created, 2001, string(m.Payload)) // the CSE shows what it keeps
	})
	g := newRig(t, backend.addr, nil)
	var gotten atomic.Pointer[coap.Message]
	d := g.dial(g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), func(_ context.Context, m *coap.Message) *coap.Message {
		gotten.Store(m)
		answer := reply(m, coap.Changed, 2000, "")
		if m.Code == coap.GET {
			answer = reply(m, coap.Content, 2000, `{ "m2m:cb": {"big":"`+strings.Repeat("x", 900)+`"} }`)
		}
		return answer
	})

	own := []string{"coap://192.0.2.7:5683/notify", "coaps://meter7.local", "/in-cse/other", "//sp.example.com/mn-cse/x?ct=json"}
	answer := d.do(d.request(coap.POST, "~/in-cse", "Cmeter7",
		`{"m2m:cnt":{"nu":["`+strings.Join(own, `","`)+`"],"poa":"coap://a/b","su":"coap://a/c"}}`, 267, 3, 263, "coap://192.0.2.7/r&/in-cse/x"))
	if d.status(answer) != 2001 {
		t.Fatalf("%q", answer.Payload)
	}
	if got := texts(t, answer.Payload, "m2m:cnt", "nu"); !slices.Equal(got, own) {
		t.Errorf("the device got back %q", got)
	}
	got := backend.last(t)
	kept := texts(t, got.Payload, "m2m:cnt", "nu")
	if len(kept) != 4 || !slices.Equal(kept[2:], own[2:]) || strings.Contains(string(got.Payload), `"coap://a/`) || !strings.HasSuffix(kept[0], "/coap/192.0.2.7:5683/notify") || !strings.HasSuffix(kept[1], "/coaps/meter7.local") {
		t.Fatalf("the CSE got %q", kept)
	}
	if uri, _ := Release3.text(got.Options, responseURI); !strings.HasPrefix(uri, "coap://"+g.notifyAt) || !strings.HasSuffix(uri, "/coap/192.0.2.7/r&/in-cse/x") {
		t.Errorf("notification URI %q", uri)
	}

	e := g.cseSocket()
	const sgn = `{"m2m:sgn":{"vrq":true}}`
	result := g.call(e, coap.POST, kept[0], " "+sgn+" ", 279, "/in-cse", 283, "n1", coap.ContentFormat, 50)
	if result.Code != coap.Changed || rsc(result) != 2000 {
		t.Errorf("notification: %v", result)
	}
	if id, _ := Release3.text(result.Options, requestID); id != "n1" {
		t.Errorf("the CSE got back the identifier %q", id)
	}
	asked := gotten.Load()
	if id, _ := Release3.text(asked.Options, requestID); id != "n1" || string(asked.Payload) != sgn || asked.Code != coap.POST ||
		!slices.Equal(asked.Options.Strings(coap.URIPath), []string{"notify"}) {
		t.Errorf("the device got %q", asked.Append(nil))
	}
	if entry := g.log.last(); !entry.ToDevice || entry.Operation != "NOTIFY" || entry.From != "/in-cse" || entry.Status != 2000 {
		t.Errorf("recorded %+v", entry)
	}

	// As one known CSE does it: the path in one option, and no other options.
	m := &coap.Message{Code: coap.POST, Payload: []byte(sgn)}
	m.Options.AddString(coap.URIPath, strings.TrimPrefix(kept[1], "coap://"+g.notifyAt+"/"))
	if result, err := e.Do(t.Context(), m); err != nil || result.Code != coap.Changed {
		t.Errorf("%v, %v", result, err)
	}
	asked = gotten.Load()
	id, _ := Release3.text(asked.Options, requestID)
	fr, _ := Release3.text(asked.Options, from)
	if id == "" || fr != "//sp.example.com/in-cse" || len(asked.Options.Strings(coap.URIPath)) != 0 {
		t.Errorf("the device got %q", asked.Append(nil))
	}

	// A request of another kind, with a path of its own behind the address.
	result = g.call(e, coap.GET, kept[1]+"/~/mn-cse/base", "", 279, "/in-cse", 283, "n2")
	asked = gotten.Load()
	if rsc(result) != 2000 || !strings.HasPrefix(string(result.Payload), `{"m2m:cb":{"big":"`) ||
		!slices.Equal(asked.Options.Strings(coap.URIPath), []string{"~", "mn-cse", "base"}) {
		t.Errorf("%v, the device got %q", result, asked.Append(nil))
	}

	for name, uri := range map[string]string{
		"token of nobody": strings.Replace(kept[0], "/n/", "/n/x", 1),
		"token changed":   strings.Replace(kept[0], "/n/"+kept[0][len("coap://"+g.notifyAt+"/n/"):][:1], "/n/-", 1),
		"no token":        "coap://" + g.notifyAt + "/n",
		"elsewhere":       "coap://" + g.notifyAt + "/x",
	} {
		gotten.Store(nil)
		if result := g.call(e, coap.POST, uri, sgn); rsc(result) != 4004 || gotten.Load() != nil {
			t.Errorf("%s: %v", name, result)
		}
	}
	if result := g.call(e, coap.POST, kept[0], `{"a":1,"A":2}`); rsc(result) != 4000 {
		t.Errorf("content that is ambiguous: %v", result)
	}

	d.conn.Close()
	eventually(t, "the association's end", func() bool { return g.server.Associations() == 0 })
	if result := g.call(e, coap.POST, kept[0], sgn); result.Code != coap.NotFound || rsc(result) != 5103 {
		t.Errorf("without an association: %v", result)
	}
}

// A device can name its own address of the gateway's, which it may have read, and nobody else's.
func TestAddressOfAnother(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	for owner, status := range map[string]int{"meter7": 2000, "meter8": 4000} {
		address := g.notifications.base + g.notifications.token(onem2m.KmID{Relative: owner, FQDN: gwtest.FQDN}) + "/coap/a"
		answer := d.do(d.request(coap.PUT, "in-cse/s", "Cmeter7", `{"m2m:sub":{"nu":["`+address+`"]}}`))
		if d.status(answer) != status {
			t.Errorf("%s: status %d", owner, d.status(answer))
		}
	}
	for _, address := range []string{"http://192.0.2.1/", "mqtt://192.0.2.1", "coap://", "coap:x", "coap:///x", "coap://a b/", "coap://a/%00", "coap://a/x?y", "coap://u@h/", "coap://a/" + strings.Repeat("x", 200)} {
		answer := d.do(d.request(coap.PUT, "in-cse/s", "Cmeter7", `{"m2m:sub":{"nu":"`+address+`"}}`))
		if d.status(answer) != 4000 {
			t.Errorf("%q: status %d", address, d.status(answer))
		}
	}
}

// Where notifications are not delivered, a device can give no address.
func TestNoNotifications(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, func(c *Config, _ *BackendConfig) { c.Notifications = nil })
	d := g.ae()
	for address, status := range map[string]int{
		"coap://192.0.2.1/": 4000, "http://127.0.0.1:8080/": 4000, "mqtt://127.0.0.1/": 4000, "Cmeter7": 2000, "/in-cse/Cmeter7": 2000,
	} {
		for _, m := range []*coap.Message{
			d.request(coap.PUT, "in-cse/s", "Cmeter7", `{"m2m:sub":{"nu":["`+address+`"]}}`),
			d.request(coap.PUT, "in-cse/s", "Cmeter7", `{"m2m:sub":{"su":"`+address+`"}}`),
			d.request(coap.GET, "in-cse/s", "Cmeter7", "", 263, address),
		} {
			if answer := d.do(m); d.status(answer) != status {
				t.Errorf("%s: status %d", address, d.status(answer))
			}
		}
	}
}

// A device that does not answer, or answers nonsense, costs the CSE an answer.
func TestDeviceFaults(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	var says atomic.Pointer[coap.Message]
	d := g.dial(g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), func(ctx context.Context, m *coap.Message) *coap.Message {
		if says.Load() == nil {
			<-ctx.Done()
		}
		return says.Load()
	})
	d.do(d.request(coap.PUT, "in-cse/s", "Cmeter7", `{"m2m:sub":{"nu":["coap://a"]}}`))
	uri := texts(t, backend.last(t).Payload, "m2m:sub", "nu")[0]
	e := g.cseSocket()
	if result := g.call(e, coap.POST, uri, `{"m2m:sgn":{}}`, 291, "300"); result.Code != coap.GatewayTimeout || rsc(result) != 5103 {
		t.Errorf("silent: %v", result)
	}
	says.Store(&coap.Message{Code: coap.Content, Payload: []byte(`{"m2m:cb":{},"x":1,"X":2}`)})
	if result := g.call(e, coap.GET, uri, ""); result.Code != coap.BadGateway || rsc(result) != 5103 {
		t.Errorf("ambiguous: %v", result)
	}
	answer := &coap.Message{Code: coap.Content}
	answer.Options.AddString(279, "CAdmin")
	answer.Options.AddString(256, "CAdmin")
	says.Store(answer)
	if result := g.call(e, coap.GET, uri, ""); result.Code != coap.BadGateway {
		t.Errorf("two dialects: %v", result)
	}
}

// A device that answers nothing keeps no other's notifications waiting.
func TestSilentDevice(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	address := func(name string, handle func(context.Context, *coap.Message) *coap.Message) (*device, string) {
		d := g.dial(g.site.AE(name, "//sp.example.com/in-cse/C"+name), handle)
		d.do(d.request(coap.PUT, "in-cse/s", "C"+name, `{"m2m:sub":{"nu":["coap://a"]}}`))
		return d, texts(t, backend.last(t).Payload, "m2m:sub", "nu")[0]
	}
	d, silent := address("silent", func(ctx context.Context, _ *coap.Message) *coap.Message {
		<-ctx.Done()
		return nil
	})
	_, good := address("good", func(_ context.Context, m *coap.Message) *coap.Message { return reply(m, coap.Changed, 2000, "") })
	e := g.cseSocket()
	notify := func(uri string) *coap.Message { return g.call(e, coap.POST, uri, `{"m2m:sgn":{}}`) }
	refused := make(chan *coap.Message)
	for range 20 {
		go func() { refused <- notify(silent) }()
	}
	for range 20 - longestQueue {
		if m := <-refused; m.Code != coap.ServiceUnavailable {
			t.Errorf("one too many: %v", m.Code)
		}
	}
	if m := notify(good); rsc(m) != 2000 {
		t.Errorf("another's: %v", m)
	}
	d.conn.Close()
	for range longestQueue {
		if m := <-refused; rsc(m) != 5103 {
			t.Errorf("unanswered: %v", m)
		}
	}
}

// Callers are forgotten when there are too many, and strangers are none at all.
func TestCallers(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	for range maxCallers + 5 {
		conn, err := net.Dial("udp", g.notifyAt)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte{0x40, 0, 0, 1}) // a ping
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := conn.Read(make([]byte, 10)); n != 4 {
			t.Fatal(err)
		}
		conn.Close()
	}
	g.notifications.mu.Lock()
	defer g.notifications.mu.Unlock()
	if n := len(g.notifications.callers); n != maxCallers {
		t.Errorf("%d callers", n)
	}
	if g.notifications.mayCall(netip.MustParseAddr("192.0.2.1")) || !g.notifications.mayCall(netip.MustParseAddr("127.0.0.9")) {
		t.Error("who may call")
	}
}
