package coap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A link joins two endpoints by a network of 10 ms, in the time of a synctest bubble.
type link struct {
	client, server *Endpoint
	mu             sync.Mutex
	toServer       int // datagrams; guarded by mu
	toClient       int // guarded by mu
}

// newLink starts both ends. lose says which datagram, counted from 1, of a direction is lost.
func newLink(t *testing.T, lose func(toServer bool, n int) bool, handle func(context.Context, *Message) *Message) *link {
	l := &link{}
	carry := func(toServer bool, count *int, to **Endpoint) func([]byte) error {
		return func(b []byte) error {
			l.mu.Lock()
			*count++
			lost := lose != nil && lose(toServer, *count)
			l.mu.Unlock()
			b = bytes.Clone(b)
			if !lost {
				time.AfterFunc(10*time.Millisecond, func() { (*to).Receive(b) })
			}
			return nil
		}
	}
	l.client = NewEndpoint(Config{Send: carry(true, &l.toServer, &l.server)})
	l.server = NewEndpoint(Config{Send: carry(false, &l.toClient, &l.client), Handle: handle})
	t.Cleanup(func() { l.client.Close(); l.server.Close() })
	return l
}

func (l *link) counts() (toServer, toClient int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.toServer, l.toClient
}

func echo(_ context.Context, m *Message) *Message { return &Message{Code: Content, Payload: m.Payload} }

func post(payload string) *Message { return &Message{Code: POST, Payload: []byte(payload)} }

func TestPiggybackedAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, nil, echo)
		answer, err := l.client.Do(t.Context(), post("hello"))
		if err != nil || answer.Type != Acknowledgement || string(answer.Payload) != "hello" {
			t.Fatal(answer, err)
		}
		if up, down := l.counts(); up != 1 || down != 1 {
			t.Errorf("%d and %d datagrams", up, down)
		}
		if !l.client.Idle() || !l.server.Idle() {
			t.Error("something is left")
		}
	})
}

func TestSeparateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, nil, func(ctx context.Context, m *Message) *Message {
			time.Sleep(20 * time.Second)
			return echo(ctx, m)
		})
		answer, err := l.client.Do(t.Context(), post("hello"))
		if err != nil || answer.Type != Confirmable || string(answer.Payload) != "hello" {
			t.Fatal(answer, err)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		// Request, empty acknowledgement, answer, acknowledgement: nothing twice.
		if up, down := l.counts(); up != 2 || down != 2 {
			t.Errorf("%d and %d datagrams", up, down)
		}
	})
}

// Whatever one datagram is lost, the request is done once and answered.
func TestLossOfOne(t *testing.T) {
	for _, slow := range []time.Duration{0, 5 * time.Second} {
		for lostUp := 0; lostUp <= 2; lostUp++ {
			for lostDown := 0; lostDown <= 2; lostDown++ {
				synctest.Test(t, func(t *testing.T) {
					var done atomic.Int32
					l := newLink(t, func(toServer bool, n int) bool {
						return toServer && n == lostUp || !toServer && n == lostDown
					}, func(ctx context.Context, m *Message) *Message {
						time.Sleep(slow)
						done.Add(1)
						return echo(ctx, m)
					})
					answer, err := l.client.Do(t.Context(), post("once"))
					time.Sleep(2 * time.Minute)
					if err != nil || string(answer.Payload) != "once" || done.Load() != 1 {
						t.Errorf("lost %d up, %d down, %v slow: %v, %v, done %d times", lostUp, lostDown, slow, answer, err, done.Load())
					}
					if !l.client.Idle() || !l.server.Idle() {
						t.Errorf("lost %d up, %d down: something is left", lostUp, lostDown)
					}
				})
			}
		}
	}
}

// Silence is given up after four retransmissions: 2 to 3 s, doubled five times.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, func(bool, int) bool { return true }, echo)
		start := time.Now()
		_, err := l.client.Do(t.Context(), post("?"))
		if took := time.Since(start); !errors.Is(err, ErrTimeout) || took < 62*time.Second || took > 93*time.Second {
			t.Errorf("%v after %v", err, took)
		}
		if up, _ := l.counts(); up != 5 {
			t.Errorf("%d datagrams, want 5", up)
		}
	})
}

func TestContextEndsTransmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, func(bool, int) bool { return true }, echo)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.client.Do(ctx, post("?")); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if up, _ := l.counts(); up != 1 || !l.client.Idle() {
			t.Errorf("%d datagrams", up)
		}
	})
}

func TestReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, nil, nil)
		if _, err := l.client.Do(t.Context(), post("?")); !errors.Is(err, ErrReset) {
			t.Errorf("a server without a handler: %v", err)
		}
	})
}

// What is answered without reaching the handler, octet by octet.
func TestReceive(t *testing.T) {
	for _, c := range []struct{ name, in, out string }{
		{"ping", "40001234", "70001234"},
		{"empty that isn't Confirmable", "50001234", ""},
		{"malformed Confirmable", "40011234ff", "70001234"},
		{"malformed and not Confirmable", "50011234ff", ""},
		{"another version", "80011234", ""},
		{"reserved class", "40201234", "70001234"},
		{"Reset of nothing", "70001234", ""},
		{"Acknowledgement of nothing", "60001234", ""},
		{"request as an Acknowledgement", "60011234", ""},
		{"answer to nothing", "41451234aa", "70001234"},
		{"answer to nothing, not Confirmable", "51451234aa", ""},
		{"notification of nothing", "51451234aa6105", "70001234"},
	} {
		var out []byte
		e := NewEndpoint(Config{
			Send:   func(b []byte) error { out = append(out, b...); return nil },
			Handle: func(context.Context, *Message) *Message { t.Errorf("%s was handled", c.name); return nil },
		})
		e.Receive(unhex(t, c.in))
		if got := fmt.Sprintf("%x", out); got != c.out {
			t.Errorf("%s: answered %q, want %q", c.name, got, c.out)
		}
		e.Close()
	}
}

// A duplicate gets the same answer, and its request is not done again, until
// EXCHANGE_LIFETIME is over. Then nothing is left of it.
func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled atomic.Int32
		var out []string
		e := NewEndpoint(Config{
			Send:   func(b []byte) error { out = append(out, string(b)); return nil },
			Handle: func(ctx context.Context, m *Message) *Message { handled.Add(1); return echo(ctx, m) },
		})
		defer e.Close()
		for _, confirmable := range []bool{true, false} {
			handled.Store(0)
			out = nil
			m := Message{Code: POST, ID: 7, Token: []byte("t"), Payload: []byte("x")}
			if !confirmable {
				m.Type, m.ID = NonConfirmable, 8
			}
			for range 3 {
				e.Receive(m.Append(nil))
				synctest.Wait()
				time.Sleep(time.Second)
			}
			if handled.Load() != 1 {
				t.Errorf("handled %d times", handled.Load())
			}
			if confirmable && (len(out) != 3 || out[0] != out[1] || out[1] != out[2]) || !confirmable && len(out) != 1 {
				t.Errorf("answered %q", out)
			}
			time.Sleep(exchangeLifetime)
			e.mu.Lock()
			if e.seen.entries != nil || e.seen.octets != 0 || e.seen.timer != nil {
				t.Errorf("left: %+v", e.seen)
			}
			e.mu.Unlock()
			e.Receive(m.Append(nil))
			synctest.Wait()
			if handled.Load() != 2 {
				t.Error("the ID wasn't free again")
			}
			time.Sleep(exchangeLifetime)
		}
	})
}

// A peer that never stops keeps neither more messages nor more octets in memory.
func TestSeenIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := NewEndpoint(Config{Send: func([]byte) error { return nil }, Handle: echo})
		t.Cleanup(e.Close)
		payload := strings.Repeat("x", 1000)
		for i := range 3 * maxSeen {
			m := Message{Code: POST, ID: uint16(i), Payload: []byte(payload)}
			e.Receive(m.Append(nil))
			synctest.Wait()
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		octets := 0
		for _, entry := range e.seen.entries {
			octets += len(entry.answer)
		}
		if len(e.seen.entries) != maxSeen || len(e.seen.order) != maxSeen || octets != e.seen.octets || octets > maxAnswers {
			t.Errorf("%d entries, %d in order, %d octets, counted as %d", len(e.seen.entries), len(e.seen.order), octets, e.seen.octets)
		}
	})
}

func TestCrowded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, nil, func(ctx context.Context, m *Message) *Message {
			time.Sleep(time.Minute)
			return echo(ctx, m)
		})
		var served, refused atomic.Int32
		var all sync.WaitGroup
		for range defaultMaxHandling + 3 {
			all.Go(func() {
				answer, err := l.client.Do(t.Context(), post("x"))
				switch {
				case err == nil && answer.Code == Content:
					served.Add(1)
				case err == nil && answer.Code == ServiceUnavailable:
					refused.Add(1)
				}
			})
		}
		all.Wait()
		if served.Load() != defaultMaxHandling || refused.Load() != 3 {
			t.Errorf("%d served, %d refused", served.Load(), refused.Load())
		}
	})
}

// An answer under another's token, or to a message that wasn't its request, is nobody's.
func TestForgedAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent Message
		e := NewEndpoint(Config{Send: func(b []byte) error { sent, _ = Parse(bytes.Clone(b)); return nil }})
		defer e.Close()
		got := make(chan *Message, 1)
		go func() {
			m, _ := e.Do(t.Context(), post("x"))
			got <- m
		}()
		synctest.Wait()
		request := sent
		wrongToken := Message{Type: Acknowledgement, Code: Content, ID: request.ID, Token: []byte("guess"), Payload: []byte("bad")}
		e.Receive(wrongToken.Append(nil))
		wrongID := Message{Type: Acknowledgement, Code: Content, ID: request.ID + 1, Token: request.Token, Payload: []byte("bad")}
		e.Receive(wrongID.Append(nil))
		right := Message{Type: Acknowledgement, Code: Content, ID: request.ID, Token: request.Token, Payload: []byte("good")}
		e.Receive(right.Append(nil))
		if m := <-got; m == nil || string(m.Payload) != "good" {
			t.Errorf("got %v", m)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, nil, func(ctx context.Context, m *Message) *Message {
			<-ctx.Done()
			return nil
		})
		go func() { time.Sleep(time.Second); l.client.Close(); l.server.Close() }()
		if _, err := l.client.Do(t.Context(), post("x")); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := l.client.Do(t.Context(), post("x")); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		l.server.Confirm(Message{Code: Content}, func(err error) {
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		})
		l.server.Receive(unhex(t, "40011234"))
		l.server.mu.Lock()
		defer l.server.mu.Unlock()
		if l.server.seen.timer != nil {
			t.Error("a closed endpoint remembers")
		}
	})
}

// An idle endpoint keeps no timers and no tables.
func TestIdleHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLink(t, nil, echo)
		for range 5 {
			if _, err := l.client.Do(t.Context(), post("x")); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(exchangeLifetime + time.Second)
		for _, e := range []*Endpoint{l.client, l.server} {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.sent != nil || e.exchanges != nil || e.seen.entries != nil || e.seen.timer != nil {
				t.Errorf("left: %v, %v, %v", e.sent, e.exchanges, e.seen)
			}
			if e == l.client && e.issued != 5 {
				t.Errorf("%d IDs issued", e.issued)
			}
		}
	})
}
