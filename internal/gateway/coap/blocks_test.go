package coap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

// blockwise serves handle through Blocks.
func blockwise(b *Blocks, handle func(context.Context, *Message) *Message) func(context.Context, *Message) *Message {
	return func(ctx context.Context, m *Message) *Message { return b.Serve(ctx, m, handle) }
}

// Requests and answers of every size around the limits of a block go both ways, in
// blocks of each side's choice, over a network that loses every fifth datagram.
func TestTransfer(t *testing.T) {
	for _, szx := range [][2]uint8{{6, 6}, {2, 6}, {6, 2}, {0, 0}} {
		for _, size := range []int{0, 1, 15, 16, 17, 1023, 1024, 1025, 2048, 5000} {
			synctest.Test(t, func(t *testing.T) {
				var handled atomic.Int32
				b := &Blocks{SZX: szx[1], Max: 5000}
				l := newLink(t, func(_ bool, n int) bool { return n%5 == 2 },
					blockwise(b, func(ctx context.Context, m *Message) *Message {
						handled.Add(1)
						return echo(ctx, m)
					}))
				defer b.Close()
				want := text(size)
				request := post(want)
				request.Options.AddString(URIPath, "a")
				answer, err := Transfer{SZX: szx[0], Max: 5000}.Exchange(t.Context(), l.client, request)
				if err != nil || string(answer.Payload) != want || handled.Load() != 1 {
					t.Fatalf("%d octets, %v: %v, handled %d times, got %d octets", size, szx, err, handled.Load(), len(answer.Payload))
				}
				if answer.Options.Has(Block2) {
					t.Error("the whole answer has a Block2 option")
				}
			})
		}
	}
}

func TestTransferTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Blocks{SZX: 6, Max: 3000}
		l := newLink(t, nil, blockwise(b, echo))
		defer b.Close()
		answer, err := Transfer{SZX: 6, Max: 10000}.Exchange(t.Context(), l.client, post(text(3001)))
		if err != nil || answer.Code != RequestEntityTooLarge {
			t.Errorf("announced by Size1: %v, %v", answer, err)
		}
		if size, _ := answer.Options.Uint(Size1); size != 3000 {
			t.Errorf("Size1 %d", size)
		}
		// Without Size1 the limit is found on the way.
		code := Continue
		for i := 0; code == Continue; i++ {
			m := &Message{Code: POST, Payload: make([]byte, 1024)}
			m.Options.AddBlock(Block1, Block{Number: uint32(i), More: true, SZX: 6})
			answer, err := l.client.Do(t.Context(), m)
			if err != nil || i > 2 {
				t.Fatal(i, err)
			}
			code = answer.Code
		}
		if code != RequestEntityTooLarge {
			t.Errorf("on the way: %v", code)
		}
		// In one message.
		if answer, err := l.client.Do(t.Context(), post(text(3001))); err != nil || answer.Code != RequestEntityTooLarge {
			t.Errorf("in one: %v, %v", answer, err)
		}
		// The client's own limit.
		l.server.config.Handle = blockwise(b, func(context.Context, *Message) *Message {
			return &Message{Code: Content, Payload: make([]byte, 4000)}
		})
		if _, err := (Transfer{SZX: 6, Max: 3999}).Exchange(t.Context(), l.client, post("")); !errors.Is(err, ErrTooLarge) {
			t.Error(err)
		}
	})
}

func TestBlocksRefuse(t *testing.T) {
	type part struct {
		number uint32
		more   bool
		szx    uint8
		octets int
	}
	for _, c := range []struct {
		name  string
		parts []part
		want  []Code
	}{
		{"in order", []part{{0, true, 0, 16}, {1, true, 0, 16}, {2, false, 0, 3}}, []Code{Continue, Continue, Content}},
		{"smaller on the way", []part{{0, true, 1, 32}, {2, false, 0, 16}}, []Code{Continue, Content}},
		{"starting over", []part{{0, true, 0, 16}, {0, true, 0, 16}, {1, false, 0, 1}}, []Code{Continue, Continue, Content}},
		{"without the first", []part{{1, false, 0, 1}}, []Code{RequestEntityIncomplete}},
		{"one left out", []part{{0, true, 0, 16}, {2, false, 0, 1}}, []Code{Continue, RequestEntityIncomplete}},
		{"one twice", []part{{0, true, 0, 16}, {1, true, 0, 16}, {1, true, 0, 16}}, []Code{Continue, Continue, RequestEntityIncomplete}},
		{"short in the middle", []part{{0, true, 0, 15}}, []Code{BadRequest}},
		{"longer than its size", []part{{0, false, 0, 17}}, []Code{BadRequest}},
		{"the reserved size", []part{{0, true, 7, 2048}}, []Code{BadRequest}},
	} {
		b := &Blocks{SZX: 6, Max: 100}
		for i, p := range c.parts {
			m := &Message{Code: PUT, Payload: make([]byte, p.octets)}
			m.Options.AddBlock(Block1, Block{Number: p.number, More: p.more, SZX: p.szx})
			if got := b.Serve(t.Context(), m, echo); got.Code != c.want[i] {
				t.Errorf("%s, block %d: %v, want %v", c.name, i, got.Code, c.want[i])
			}
		}
		b.Close()
	}
}

// Any block of a representation may be asked for, and first (RFC 7959 section 2.4); only
// of a GET, though.
func TestRandomAccess(t *testing.T) {
	b := &Blocks{SZX: 6, Max: 100}
	defer b.Close()
	whole := []byte(text(2500))
	var handled int
	handle := func(context.Context, *Message) *Message {
		handled++
		return &Message{Code: Content, Payload: whole}
	}
	ask := func(code Code, number uint32, szx uint8) *Message {
		m := &Message{Code: code}
		m.Options.AddBlock(Block2, Block{Number: number, SZX: szx})
		return b.Serve(t.Context(), m, handle)
	}
	if m := ask(GET, 2, 6); m.Code != Content || !bytes.Equal(m.Payload, whole[2048:]) {
		t.Errorf("last first: %v", m)
	}
	if m := ask(GET, 3, 6); m.Code != BadOption {
		t.Errorf("beyond the end: %v", m.Code)
	}
	if m := ask(POST, 1, 6); m.Code != RequestEntityIncomplete {
		t.Errorf("of a POST: %v", m.Code)
	}
	handled = 0
	first := ask(GET, 0, 0)
	if size, _ := first.Options.Uint(Size2); size != 2500 || len(first.Payload) != 16 {
		t.Errorf("first: %v", first)
	}
	tag, _ := first.Options.Get(ETag)
	for i := 156; i > 0; i-- {
		m := ask(GET, uint32(i), 0)
		again, _ := m.Options.Get(ETag)
		if !bytes.Equal(m.Payload, whole[i*16:min(i*16+16, 2500)]) || !bytes.Equal(tag, again) {
			t.Fatalf("block %d: %v", i, m)
		}
	}
	if handled != 1 {
		t.Errorf("made %d times", handled)
	}
}

// What a peer starts and doesn't finish is bounded, and forgotten.
func TestTransfersAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Blocks{SZX: 6, Max: 5000}
		big := func(context.Context, *Message) *Message { return &Message{Code: Content, Payload: make([]byte, 3000)} }
		for i := range 10 {
			up := &Message{Code: PUT, Payload: make([]byte, 1024)}
			up.Options.AddString(URIPath, fmt.Sprint(i))
			down := &Message{Code: GET, Options: append(Options(nil), up.Options...)}
			up.Options.AddBlock(Block1, Block{More: true, SZX: 6})
			if m := b.Serve(t.Context(), up, big); m.Code != Continue {
				t.Fatal(m.Code)
			}
			b.Serve(t.Context(), down, big)
		}
		b.mu.Lock()
		if len(b.uploads) != maxTransfers || len(b.answers) != maxTransfers {
			t.Errorf("%d and %d transfers", len(b.uploads), len(b.answers))
		}
		b.mu.Unlock()
		time.Sleep(2*transferIdle + time.Second)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.uploads != nil || b.answers != nil || b.timer != nil {
			t.Errorf("left: %d, %d", len(b.uploads), len(b.answers))
		}
	})
}

// A server that changes its answer between blocks, skips one or never ends is given up.
func TestRestRefuses(t *testing.T) {
	reply := func(number uint32, more bool, octets int, tag string) *Message {
		m := &Message{Code: Content, Payload: make([]byte, octets)}
		m.Options.AddString(ETag, tag)
		m.Options.AddBlock(Block2, Block{Number: number, More: more})
		return m
	}
	for name, answers := range map[string][]*Message{
		"another tag":        {reply(0, true, 16, "a"), reply(1, false, 16, "b")},
		"a block left out":   {reply(0, true, 16, "a"), reply(2, false, 16, "a")},
		"not the first":      {reply(1, true, 16, "a")},
		"a short one":        {reply(0, true, 15, "a")},
		"an empty one":       {reply(0, true, 16, "a"), reply(1, true, 0, "a")},
		"a long one":         {reply(0, true, 16, "a"), reply(1, false, 17, "a")},
		"no block":           {reply(0, true, 16, "a"), {Code: Content}},
		"an error":           {reply(0, true, 16, "a"), {Code: NotFound}},
		"an empty first one": {reply(0, true, 0, "a")},
	} {
		synctest.Test(t, func(t *testing.T) {
			var i atomic.Int32
			l := newLink(t, nil, func(context.Context, *Message) *Message { return answers[i.Add(1)-1] })
			if m, err := (Transfer{SZX: 6, Max: 1000}).Exchange(t.Context(), l.client, &Message{Code: GET}); !errors.Is(err, ErrBlock) {
				t.Errorf("%s: %v, %v", name, m, err)
			}
		})
	}
}

// An observer gets the notifications in order and the first block of large ones, fetches
// the rest, and gets no more after it has cancelled.
func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &Blocks{SZX: 0, Max: 100}
		defer b.Close()
		var token []byte
		var cancelled atomic.Bool
		var request Message
		l := newLink(t, nil, blockwise(b, func(_ context.Context, m *Message) *Message {
			if n, ok := m.Options.Uint(Observe); ok && n == 1 {
				cancelled.Store(bytes.Equal(m.Token, token))
				return &Message{Code: Content}
			}
			request, token = *m, m.Token
			answer := &Message{Code: Content, Payload: []byte("0")}
			answer.Options.AddUint(Observe, 5)
			return answer
		}))
		var got []string
		transfer := Transfer{SZX: 6, Max: 100}
		ask := &Message{Code: GET}
		ask.Options.AddString(URIPath, "x")
		notified := make(chan *Message, 10)
		first, o, err := l.client.Observe(t.Context(), ask, func(m *Message) { notified <- m })
		if err != nil || o == nil || string(first.Payload) != "0" {
			t.Fatal(first, err)
		}
		for i, n := range []uint32{6, 8, 7, 9} { // 7 comes late
			m := &Message{Code: Content, Token: token, Payload: []byte(text(20 + i))}
			m.Options.AddUint(Observe, n)
			m = b.Keep(&request, m)
			m.Token = token
			l.server.Confirm(*m, func(err error) {
				if err != nil {
					t.Errorf("notification %d: %v", n, err)
				}
			})
			time.Sleep(time.Second)
		}
		for range 3 {
			m := <-notified
			// Only the latest can be fetched still.
			if whole, err := transfer.Rest(t.Context(), l.client, ask, m); err == nil {
				got = append(got, string(whole.Payload))
			}
		}
		if len(got) != 1 || got[0] != text(23) || len(notified) > 0 {
			t.Errorf("got %q, and %d more", got, len(notified))
		}
		if err := o.Cancel(t.Context(), ask); err != nil || !cancelled.Load() {
			t.Errorf("cancel: %v, seen %v", err, cancelled.Load())
		}
		reset := make(chan error, 1)
		l.server.Confirm(Message{Code: Content, Token: token}, func(err error) { reset <- err })
		if err := <-reset; !errors.Is(err, ErrReset) {
			t.Errorf("after the cancellation: %v", err)
		}
	})
}
