package coap

import (
	"context"
	"crypto/rand"
	"sync"
	"time"
)

// An exchange is a request of ours and what comes back under its token.
type exchange struct {
	token   string
	id      uint16 // of the request's message; guarded by Endpoint.mu
	answers chan outcome

	mu       sync.Mutex // guards what follows
	answered bool
	notify   func(*Message) // nil unless it is an observation
	order    sequence
}

type outcome struct {
	message *Message
	err     error
}

// deliver passes on an answer: the first to whoever waits for it, the others, of an
// observation, to notify.
func (x *exchange) deliver(m *Message) {
	x.mu.Lock()
	notify := x.notify
	if !x.answered {
		x.answered = true
		x.order.newer(m)
		x.mu.Unlock()
		x.answers <- outcome{message: m}
		return
	}
	fresh := notify != nil && x.order.newer(m)
	x.mu.Unlock()
	if fresh {
		notify(m)
	}
}

// fail ends the wait for the first answer. An acknowledgement alone ends nothing.
func (x *exchange) fail(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil && !x.answered {
		x.answered = true
		x.answers <- outcome{err: err}
	}
}

// open starts an exchange and sends its request.
func (e *Endpoint) open(request *Message, notify func(*Message)) *exchange {
	x := &exchange{answers: make(chan outcome, 1), notify: notify}
	m := Message{Code: request.Code, Token: request.Token, Options: request.Options, Payload: request.Payload}
	if m.Token == nil {
		// Not to be guessed: over plain UDP the token is all that tells an answer from a
		// forged one (section 5.3.1).
		m.Token = make([]byte, maxToken)
		rand.Read(m.Token)
	}
	x.token = string(m.Token)
	e.mu.Lock()
	if e.exchanges == nil {
		e.exchanges = make(map[string]*exchange)
	}
	e.exchanges[x.token] = x
	e.mu.Unlock()
	e.transmit(m, x.fail)
	return x
}

// forget ends an exchange. What else comes under its token gets a Reset.
func (e *Endpoint) forget(x *exchange) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if t := e.sent[x.id]; t != nil && t.token == x.token {
		e.drop(x.id)
	}
	if e.exchanges[x.token] == x {
		delete(e.exchanges, x.token)
	}
	if len(e.exchanges) == 0 {
		e.exchanges = nil
	}
}

func (e *Endpoint) wait(ctx context.Context, x *exchange) (*Message, error) {
	select {
	case r := <-x.answers:
		return r.message, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-e.ctx.Done():
		return nil, ErrClosed
	}
}

// Do sends a request, of which Code, Options and Payload are used, and waits for the
// answer. It stops when ctx ends.
func (e *Endpoint) Do(ctx context.Context, request *Message) (*Message, error) {
	x := e.open(request, nil)
	defer e.forget(x)
	return e.wait(ctx, x)
}

// An Observation is a resource of the peer's that is observed.
type Observation struct {
	e *Endpoint
	x *exchange
}

// Observe registers for a resource with a GET request, to which it adds the Observe
// option, and returns the first answer. The Observation is nil when the peer, in that
// answer, doesn't agree to notify. Later answers go to notify unless they come out of
// order; it must not block. One without an Observe option is the last.
func (e *Endpoint) Observe(ctx context.Context, request *Message, notify func(*Message)) (*Message, *Observation, error) {
	r := *request
	r.Options = append(Options(nil), request.Options...)
	r.Options.AddUint(Observe, 0)
	x := e.open(&r, notify)
	first, err := e.wait(ctx, x)
	if err != nil || !first.Code.IsSuccess() || !first.Options.Has(Observe) {
		e.forget(x)
		return first, nil, err
	}
	return first, &Observation{e, x}, nil
}

// Cancel tells the peer that no more notifications are wanted (RFC 7641 section 3.6).
// The request is that of Observe.
func (o *Observation) Cancel(ctx context.Context, request *Message) error {
	o.e.forget(o.x)
	r := *request
	r.Options = append(Options(nil), request.Options...)
	r.Options.AddUint(Observe, 1)
	r.Token = []byte(o.x.token)
	_, err := o.e.Do(ctx, &r)
	return err
}

// A sequence tells newer notifications from older ones (RFC 7641 section 3.4).
type sequence struct {
	number uint32
	at     time.Time
}

// newer reports whether m is newer than all before it, and remembers it then. One without
// a number ends the observation, and counts as newer.
func (s *sequence) newer(m *Message) bool {
	n, ok := m.Options.Uint(Observe)
	if !ok {
		return true
	}
	now := time.Now()
	newer := s.at.IsZero() ||
		s.number < n && n-s.number < 1<<23 ||
		s.number > n && s.number-n > 1<<23 ||
		now.Sub(s.at) > 128*time.Second
	if newer {
		s.number, s.at = n, now
	}
	return newer
}
