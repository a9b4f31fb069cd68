package coapgw

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/onem2m"
)

// Large contents go both ways in blocks: the device's of one size, the CSE's of another,
// over networks that lose datagrams on both sides.
func TestBlockwise(t *testing.T) {
	big := `{"m2m:cin":{"con":"` + strings.Repeat("0123456789abcdef", 600) + `"}}`
	backend := newCSE(t, nil)
	store := &coap.Blocks{SZX: 4, Max: 1 << 16}
	t.Cleanup(store.Close)
	var whole atomic.Pointer[string]
	backend.answers(func(m *coap.Message) *coap.Message {
		return store.Serve(t.Context(), m, func(_ context.Context, m *coap.Message) *coap.Message {
			content := string(m.Payload)
			whole.Store(&content)
			return reply(m, coap.Created, 2001, content)
		})
	})
	g := newRig(t, backend.addr, func(c *Config, b *BackendConfig) { c.Limits.BlockSize, b.BlockSize = 512, 128 })
	if !testing.Short() { // each costs 2 s
		g.lose = func(n int) bool { return n == 7 }
		backend.loses(func(n int) bool { return n == 12 })
	}
	d := g.ae()
	answer := d.do(d.request(coap.POST, "in-cse", "Cmeter7", big, 267, 4))
	if d.status(answer) != 2001 || string(answer.Payload) != big {
		t.Errorf("status %d, %d octets: %q", d.status(answer), len(answer.Payload), answer.Payload[:min(len(answer.Payload), 100)])
	}
	if got := whole.Load(); got == nil || *got != big {
		t.Error("the CSE got something else")
	}
	// One block more than is taken.
	if answer := d.do(d.request(coap.POST, "in-cse", "Cmeter7", strings.Repeat("x", 64<<10+1), 267, 4)); answer.Code != coap.RequestEntityTooLarge {
		t.Errorf("too large: %v", answer.Code)
	}
	// And more than this CSE bears, though the gateway takes it.
	content := `{"m2m:cin":{"con":"` + strings.Repeat("x", 50<<10) + `"}}`
	if answer := d.do(d.request(coap.POST, "in-cse", "Cmeter7", content, 267, 4)); d.status(answer) != 4000 {
		t.Errorf("too large for the CSE: %v", answer)
	}
}

// An answer that would fill the memory is none.
func TestAnswerTooLarge(t *testing.T) {
	backend := newCSE(t, nil)
	store := &coap.Blocks{SZX: 6, Max: 1 << 16}
	t.Cleanup(store.Close)
	backend.answers(func(m *coap.Message) *coap.Message {
		return store.Serve(t.Context(), m, func(_ context.Context, m *coap.Message) *coap.Message {
			return reply(m, coap.Content, 2000, `{"m2m:cin":{"con":"`+strings.Repeat("x", 5000)+`"}}`)
		})
	})
	for name, c := range map[string]struct {
		limit  func(*Config, *BackendConfig)
		status int
	}{
		"for the device side": {func(c *Config, _ *BackendConfig) { c.Limits.MaxAnswer = 4999 }, 5000},
		"for the CSE side":    {func(_ *Config, b *BackendConfig) { b.MaxResponse = 4999 }, 5103},
	} {
		g := newRig(t, backend.addr, c.limit)
		d := g.ae()
		if answer := d.do(d.request(coap.GET, "in-cse", "Cmeter7", "")); d.status(answer) != c.status {
			t.Errorf("%s: status %d", name, d.status(answer))
		}
	}
}

// The CSE gets a request once, however often the device has to send it.
func TestRepeatedRequest(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	m := d.request(coap.DELETE, "in-cse/x", "Cmeter7", "")
	m.ID, m.Token = 4711, []byte("token")
	for range 5 {
		d.conn.Write(m.Append(nil))
	}
	d.do(d.request(coap.GET, "in-cse", "Cmeter7", "")) // those before have been taken by now
	eventually(t, "the DELETE", func() bool { return len(backend.requests()) >= 2 })
	deletes := 0
	for _, m := range backend.requests() {
		if m.Code == coap.DELETE {
			deletes++
		}
	}
	if deletes != 1 {
		t.Errorf("the CSE got %d DELETEs", deletes)
	}
}

func TestObserve(t *testing.T) {
	var observer, cancelled atomic.Pointer[coap.Message]
	backend := newCSE(t, nil)
	store := &coap.Blocks{SZX: 5, Max: 1 << 16}
	t.Cleanup(store.Close)
	state := func(_ context.Context, m *coap.Message) *coap.Message {
		answer := reply(m, coap.Content, 2000, `{"m2m:cnt":{"st":0}}`)
		if n, ok := m.Options.Uint(coap.Observe); ok && n == 0 {
			observer.Store(m)
			answer.Options.AddUint(coap.Observe, 10)
		} else if ok {
			cancelled.Store(m)
		}
		return answer
	}
	backend.answers(func(m *coap.Message) *coap.Message { return store.Serve(t.Context(), m, state) })
	notify := func(n uint32, content string) error {
		m := observer.Load()
		state := reply(m, coap.Content, 2000, content)
		state.Options.AddUint(coap.Observe, n)
		state = store.Keep(m, state)
		state.Token = m.Token
		e := backend.whoAsked(m)
		done := make(chan error, 1)
		e.Confirm(*state, func(err error) { done <- err })
		return <-done
	}
	g := newRig(t, backend.addr, func(c *Config, _ *BackendConfig) { c.Limits.Observations = 1 })
	d := g.ae()
	states := make(chan *coap.Message, 10)
	request := d.request(coap.GET, "in-cse/c", "Cmeter7", "")
	first, observation, err := d.endpoint.Observe(t.Context(), request, func(m *coap.Message) { states <- m })
	if err != nil || observation == nil || d.status(first) != 2000 {
		t.Fatal(first, err)
	}
	if _, second, err := d.endpoint.Observe(t.Context(), d.request(coap.GET, "in-cse/d", "Cmeter7", ""), nil); err != nil || second != nil {
		t.Errorf("a second observation: %v, %v", second, err)
	}
	// States of one block and of several.
	for i, con := range []string{"1", strings.Repeat("x", 2500), "3"} {
		content := `{"m2m:cnt":{"con":"` + con + `"}}`
		if err := notify(uint32(11+i), content); err != nil {
			t.Fatal(err)
		}
		m, err := coap.Transfer{SZX: 6, Max: 1 << 16}.Rest(t.Context(), d.endpoint, request, <-states)
		if err != nil {
			t.Fatal(err)
		}
		id, _ := Release3.text(m.Options, requestID)
		if string(m.Payload) != content || id != "req-1" || d.status(m) != 2000 {
			t.Errorf("notification: %q, %q, %d", m.Payload, id, d.status(m))
		}
	}
	if err := observation.Cancel(t.Context(), d.request(coap.GET, "in-cse/c", "Cmeter7", "")); err != nil {
		t.Error(err)
	}
	eventually(t, "the cancellation at the CSE", func() bool { return cancelled.Load() != nil })
	if from, _ := Release3.text(cancelled.Load().Options, from); from != "Cmeter7" {
		t.Errorf("cancelled as %q", from)
	}
	if err := notify(20, `{}`); !errors.Is(err, coap.ErrReset) {
		t.Errorf("after the cancellation the CSE got %v", err)
	}

	// When the association ends, so does the observation at the CSE.
	cancelled.Store(nil)
	if _, observation, err = d.endpoint.Observe(t.Context(), d.request(coap.GET, "in-cse/c", "Cmeter7", ""), func(*coap.Message) {}); err != nil || observation == nil {
		t.Fatal(err)
	}
	d.conn.Close()
	eventually(t, "the cancellation at the CSE", func() bool { return cancelled.Load() != nil })
	eventually(t, "the association's end", func() bool { return g.server.Associations() == 0 })
}

// A device that has forgotten what it observed answers with a Reset, which ends the
// observation at the CSE too.
func TestObserverForgets(t *testing.T) {
	var observer, cancelled atomic.Pointer[coap.Message]
	backend := newCSE(t, nil)
	backend.answers(func(m *coap.Message) *coap.Message {
		answer := reply(m, coap.Content, 2000, `{"m2m:cnt":{}}`)
		if n, ok := m.Options.Uint(coap.Observe); ok && n == 0 {
			observer.Store(m)
			answer.Options.AddUint(coap.Observe, 1)
		} else if ok {
			cancelled.Store(m)
		}
		return answer
	})
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	// Do waits for one answer only, and then knows the token no more.
	m := d.request(coap.GET, "in-cse/c", "Cmeter7", "", coap.Observe, 0)
	if answer := d.do(m); !answer.Options.Has(coap.Observe) {
		t.Fatal(answer)
	}
	state := reply(observer.Load(), coap.Content, 2000, `{"m2m:cnt":{}}`)
	state.Token = observer.Load().Token
	state.Options.AddUint(coap.Observe, 2)
	backend.whoAsked(observer.Load()).Confirm(*state, func(error) {})
	eventually(t, "the cancellation at the CSE", func() bool { return cancelled.Load() != nil })
}

// When the CSE turns out to be gone, observers learn that they observe nothing any more.
func TestObservedGoes(t *testing.T) {
	backend := newCSE(t, func(m *coap.Message) *coap.Message {
		answer := reply(m, coap.Content, 2000, `{"m2m:cnt":{}}`)
		answer.Options.AddUint(coap.Observe, 1)
		return answer
	})
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	states := make(chan *coap.Message, 10)
	if _, o, err := d.endpoint.Observe(t.Context(), d.request(coap.GET, "in-cse/c", "Cmeter7", ""), func(m *coap.Message) { states <- m }); err != nil || o == nil {
		t.Fatal(o, err)
	}
	backend.conn.Close()
	if answer := d.do(d.request(coap.GET, "in-cse/c", "Cmeter7", "")); d.status(answer) != 5103 {
		t.Errorf("%v", answer)
	}
	if m := <-states; d.status(m) != 5103 || m.Options.Has(coap.Observe) {
		t.Errorf("the last notification: %v", m)
	}
	// The association is as it was, without the relation.
	eventually(t, "the end of the relation", func() bool {
		a := g.server.latest(onem2m.KmID{Relative: "meter7", FQDN: gwtest.FQDN})
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.relations) == 0
	})
}

// An association that does nothing for long ends.
func TestIdleTimeout(t *testing.T) {
	g := newRig(t, "127.0.0.1:9", func(c *Config, _ *BackendConfig) { c.Limits.IdleTimeout = 100 * time.Millisecond })
	g.ae()
	eventually(t, "the association's end", func() bool { return g.server.Associations() == 0 })
}

// A CSE that is down, silent or talks nonsense costs the device an answer, and nothing else.
func TestFaults(t *testing.T) {
	closed, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := closed.LocalAddr().String()
	closed.Close()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	answering := func(change func(m, answer *coap.Message)) string {
		return newCSE(t, func(m *coap.Message) *coap.Message {
			answer := reply(m, coap.Content, 2000, "")
			change(m, answer)
			return answer
		}).addr
	}
	for _, c := range []struct {
		name   string
		cse    string
		code   coap.Code
		status int
	}{
		{"down", addr, coap.ServiceUnavailable, 5103},
		{"silent", silent.LocalAddr().String(), coap.GatewayTimeout, 4008},
		{"another's answer", answering(func(_, a *coap.Message) {
			a.Options.Remove(283)
			a.Options.AddString(283, "another")
		}), coap.ServiceUnavailable, 5103},
		{"a status that is none", answering(func(_, a *coap.Message) {
			a.Options.Remove(307)
			a.Options.AddUint(307, 70000)
		}), coap.ServiceUnavailable, 5103},
		{"an unknown critical option", answering(func(_, a *coap.Message) { a.Options.AddUint(2001, 1) }), coap.ServiceUnavailable, 5103},
		{"the status as text", answering(func(_, a *coap.Message) {
			a.Options.Remove(307)
			a.Options.AddString(307, "4004")
		}), coap.NotFound, 4004},
		{"no status", answering(func(_, a *coap.Message) { a.Options.Remove(307, 283) }), coap.Content, 2000},
		{"a block that is none", answering(func(_, a *coap.Message) { a.Options.AddUint(coap.Block2, 7) }), coap.ServiceUnavailable, 5103},
	} {
		g := newRig(t, c.cse, func(_ *Config, b *BackendConfig) {
			if c.name == "silent" {
				b.Timeout = 300 * time.Millisecond
			}
		})
		d := g.ae()
		answer := d.do(d.request(coap.GET, "in-cse", "Cmeter7", ""))
		if answer.Code != c.code || d.status(answer) != c.status {
			t.Errorf("%s: %v, status %d: %q", c.name, answer.Code, d.status(answer), answer.Payload)
		}
		if strings.Contains(string(answer.Payload), "127.0.0.1") {
			t.Errorf("%s: the device learns an address: %q", c.name, answer.Payload)
		}
	}
}

// A CSE that was down is asked again as soon as it is back.
func TestBackendComesBack(t *testing.T) {
	first, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := first.LocalAddr().String()
	first.Close()
	g := newRig(t, addr, nil)
	d := g.ae()
	if answer := d.do(d.request(coap.GET, "in-cse", "Cmeter7", "")); d.status(answer) != 5103 {
		t.Fatal(answer)
	}
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Skip("the port is taken: ", err)
	}
	e := coap.NewEndpoint(coap.Config{})
	defer e.Close()
	t.Cleanup(func() { conn.Close() })
	go func() {
		b := make([]byte, 2000)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if m, err := coap.Parse(b[:n]); err == nil {
				answer := reply(&m, coap.Content, 2000, "")
				answer.Type, answer.ID, answer.Token = coap.Acknowledgement, m.ID, m.Token
				conn.WriteTo(answer.Append(nil), from)
			}
		}
	}()
	if answer := d.do(d.request(coap.GET, "in-cse", "Cmeter7", "")); d.status(answer) != 2000 {
		t.Error(answer)
	}
}

// A CSE that can do one thing at a time gets one request at a time.
func TestOneAtATime(t *testing.T) {
	var now, most atomic.Int32
	backend := newCSE(t, func(m *coap.Message) *coap.Message {
		n := now.Add(1)
		defer now.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		return reply(m, coap.Content, 2000, "")
	})
	g := newRig(t, backend.addr, func(_ *Config, b *BackendConfig) { b.MaxOutstanding = 1 })
	done := make(chan bool)
	for i := range 4 {
		d := g.dial(g.site.AE(fmt.Sprintf("m%d", i), fmt.Sprintf("//sp.example.com/in-cse/Cm%d", i)), nil)
		go func() {
			for range 5 {
				d.do(d.request(coap.GET, "in-cse", fmt.Sprintf("Cm%d", i), ""))
			}
			done <- true
		}()
	}
	for range 4 {
		<-done
	}
	if most.Load() != 1 || len(backend.requests()) != 20 {
		t.Errorf("%d at once, %d in all", most.Load(), len(backend.requests()))
	}
}

// Devices that poll keep nobody waiting, and one that asks a lot keeps nobody else.
func TestPollsHaveTheirOwnPlaces(t *testing.T) {
	release := make(chan bool)
	var polling atomic.Int32
	backend := newCSE(t, func(m *coap.Message) *coap.Message {
		if path := m.Options.Strings(coap.URIPath); path[len(path)-1] == "pcu" {
			polling.Add(1)
			<-release
		}
		return reply(m, coap.Content, 2000, "")
	})
	g := newRig(t, backend.addr, func(c *Config, b *BackendConfig) { b.MaxOutstanding, c.Limits.Requests = 1, 3 })
	end := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	one, two := g.dial(end, nil), g.dial(end, nil)
	done := make(chan int)
	poll := func() {
		m := one.request(coap.GET, "in-cse/ch/pcu", "Cmeter7", "")
		go func() { done <- one.status(one.do(m)) }()
	}
	poll()
	poll()
	eventually(t, "two polls at the CSE", func() bool { return polling.Load() == 2 })
	if status := two.status(two.do(two.request(coap.GET, "in-cse", "Cmeter7", ""))); status != 2000 {
		t.Errorf("beside polls: status %d", status)
	}
	poll()
	eventually(t, "three polls at the CSE", func() bool { return polling.Load() == 3 })
	if answer := two.do(two.request(coap.GET, "in-cse", "Cmeter7", "")); answer.Code != coap.ServiceUnavailable {
		t.Errorf("one request too many of one key: %v", answer.Code)
	}
	other := g.dial(g.site.AE("meter8", "//sp.example.com/in-cse/Cmeter8"), nil)
	if status := other.status(other.do(other.request(coap.GET, "in-cse", "Cmeter8", ""))); status != 2000 {
		t.Errorf("another's: status %d", status)
	}
	close(release)
	for range 3 {
		if status := <-done; status != 2000 {
			t.Errorf("poll: status %d", status)
		}
	}
}

// A registration whose outcome has to be learned is one that is answered at once, and
// goes on without the device.
func TestRegistrationIsLearned(t *testing.T) {
	arrived, release := make(chan *coap.Message, 1), make(chan bool)
	backend := newCSE(t, func(m *coap.Message) *coap.Message {
		if m.Code == coap.POST {
			arrived <- m
			<-release
			return reply(m, coap.Created, 2001, `{"m2m:ae":{"aei":"Clamp1"}}`)
		}
		return reply(m, coap.Content, 2000, "")
	})
	g := newRig(t, backend.addr, nil)
	lamp := g.site.Unnamed("lamp")
	d := g.dial(lamp, nil)
	m := d.request(coap.POST, "in-cse", "Clamp1", `{"m2m:ae":{"api":"N","rr":true}}`, 267, 2,
		coap.URIQuery, "rt=2", coap.URIQuery, "rcn=0", 263, "coap://a/n", 299, "20260101T000000")
	go d.endpoint.Do(t.Context(), m)
	got := <-arrived
	for _, number := range []uint16{coap.URIQuery, 263, 299} {
		if got.Options.Has(number) {
			t.Errorf("the CSE got option %d", number)
		}
	}
	d.conn.Close()
	close(release)
	again := g.dial(lamp, nil)
	eventually(t, "the AE-ID to be the device's", func() bool {
		return again.status(again.do(again.request(coap.GET, "in-cse", "Clamp1", ""))) == 2000
	})
}

// No socket uses a message ID twice.
func TestSocketsAreReplaced(t *testing.T) {
	backend := newCSE(t, nil)
	p := &sockets{address: backend.addr, ids: 100}
	defer p.close()
	first, err := p.get()
	if err != nil {
		t.Fatal(err)
	}
	for first.endpoint.Issued() < p.ids {
		first.endpoint.Confirm(coap.Message{Code: coap.Content}, func(error) {})
	}
	second, err := p.get()
	if err != nil || second == first {
		t.Fatalf("the same socket again: %v", err)
	}
	if first.conn.LocalAddr().String() == second.conn.LocalAddr().String() {
		t.Error("the same port again")
	}
}

// The oldest association of a device that comes back again and again makes room.
func TestAssociationsPerPeer(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, func(c *Config, _ *BackendConfig) { c.Limits.AssociationsPerPeer = 2 })
	end := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	var last *device
	for range 4 {
		last = g.dial(end, nil)
		last.do(last.request(coap.GET, "in-cse", "Cmeter7", ""))
	}
	eventually(t, "the end of the oldest associations", func() bool { return g.server.Associations() == 2 })
	last.do(last.request(coap.GET, "in-cse", "Cmeter7", ""))
}

// Shutdown lets the request under way end, and takes no other.
func TestShutdown(t *testing.T) {
	arrived, goOn := make(chan bool), make(chan bool)
	backend := newCSE(t, func(m *coap.Message) *coap.Message {
		arrived <- true
		<-goOn
		return reply(m, coap.Content, 2000, "")
	})
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	got := make(chan *coap.Message)
	go func() { got <- d.do(d.request(coap.GET, "in-cse", "Cmeter7", "")) }()
	<-arrived
	ended := make(chan error)
	go func() { ended <- g.server.Shutdown(t.Context()) }()
	eventually(t, "the beginning of the end", g.server.isDraining)
	close(goOn)
	if answer := <-got; d.status(answer) != 2000 {
		t.Errorf("the request under way: %v", answer)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if g.server.Associations() != 0 {
		t.Error("an association is left")
	}
}
