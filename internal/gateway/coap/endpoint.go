package coap

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// The transmission parameters of RFC 7252 section 4.8 and what follows from them.
const (
	ackTimeout       = 2 * time.Second
	ackRandomFactor  = 1.5
	maxRetransmit    = 4
	exchangeLifetime = 247 * time.Second

	// piggybackWait is for how long an answer may take and still go with the
	// acknowledgement: well below ackTimeout, or the peer would send again.
	piggybackWait = time.Second

	// defaultMaxHandling is how many requests of one peer are worked on at once.
	defaultMaxHandling = 8
)

// Errors of Do and Observe.
var (
	ErrClosed  = errors.New("coap: endpoint closed")
	ErrReset   = errors.New("coap: the peer answered with a Reset")
	ErrTimeout = errors.New("coap: the peer does not acknowledge")
)

// Config is what an Endpoint needs.
type Config struct {
	// Send sends one datagram. It may be called from several goroutines, must not keep
	// b, and must not call the Endpoint.
	Send func(b []byte) error
	// Handle answers a request, in a goroutine of its own; ctx ends with the Endpoint.
	// Of the answer, Code, Options and Payload are used; nil gives no answer. Without
	// Handle, requests get a Reset.
	Handle func(ctx context.Context, request *Message) *Message
	// MaxHandling is how many requests are handled at once; those beyond get 5.03. 0
	// means 8.
	MaxHandling int
}

// Endpoint is one end of a pair of endpoints. It may be used concurrently.
type Endpoint struct {
	config Config
	ctx    context.Context // ends with the Endpoint
	cancel context.CancelFunc
	all    sync.WaitGroup // handlers

	mu        sync.Mutex // guards what follows
	closed    bool
	nextID    uint16
	issued    int // message IDs handed out
	handling  int
	sent      map[uint16]*transmission // Confirmable, not yet acknowledged
	exchanges map[string]*exchange     // requests that wait for answers, by token
	seen      seen
}

// A transmission is a Confirmable message on its way.
type transmission struct {
	token    string
	datagram []byte
	timer    *time.Timer
	timeout  time.Duration
	tries    int
	done     func(error) // called once, without locks; nil when it was acknowledged
}

// NewEndpoint returns an Endpoint.
func NewEndpoint(config Config) *Endpoint {
	if config.MaxHandling <= 0 {
		config.MaxHandling = defaultMaxHandling
	}
	e := &Endpoint{config: config, nextID: uint16(rand.Uint32())}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// Close gives up what is under way and waits for the handlers. Observers get a last 5.03.
func (e *Endpoint) Close() {
	e.mu.Lock()
	e.closed = true
	var given []func(error)
	for _, t := range e.sent {
		t.timer.Stop()
		given = append(given, t.done)
	}
	e.sent = nil
	var observers []*exchange
	for _, x := range e.exchanges {
		if x.notify != nil {
			observers = append(observers, x)
		}
	}
	e.seen.clear()
	e.mu.Unlock()
	e.cancel()
	for _, done := range given {
		done(ErrClosed)
	}
	for _, x := range observers {
		x.deliver(&Message{Code: ServiceUnavailable})
	}
	e.all.Wait()
}

// Issued returns how many message IDs were handed out. After 65,536 they repeat, which
// RFC 7252 section 4.4 forbids within EXCHANGE_LIFETIME: the peer would take a new request
// for an old one, and answer it with the old one's answer.
func (e *Endpoint) Issued() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.issued
}

// Idle reports whether nothing is under way in either direction.
func (e *Endpoint) Idle() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.sent) == 0 && len(e.exchanges) == 0 && e.handling == 0
}

// Receive takes a datagram from the peer. It does not keep b.
func (e *Endpoint) Receive(b []byte) {
	m, err := Parse(slices.Clone(b))
	switch {
	case err != nil && m.Type == Confirmable:
		e.sendEmpty(Reset, m.ID) // section 4.2
	case err != nil:
	case m.Type == Acknowledgement || m.Type == Reset:
		e.receiveReply(&m)
	case m.Code.IsRequest():
		e.receiveRequest(&m)
	case m.Code.IsResponse():
		e.receiveResponse(&m)
	case m.Type == Confirmable:
		// A ping (section 4.3), or a class that is reserved.
		e.sendEmpty(Reset, m.ID)
	}
}

func (e *Endpoint) sendEmpty(t Type, id uint16) {
	m := Message{Type: t, ID: id}
	e.config.Send(m.Append(nil))
}

// receiveReply takes an Acknowledgement, with or without an answer in it, or a Reset.
func (e *Endpoint) receiveReply(m *Message) {
	e.mu.Lock()
	t := e.sent[m.ID]
	if t == nil || m.Code != Empty && (m.Type == Reset || !m.Code.IsResponse() || t.token != string(m.Token)) {
		e.mu.Unlock()
		return // late, or nonsense
	}
	e.drop(m.ID)
	x := e.exchanges[string(m.Token)]
	e.mu.Unlock()
	if m.Type == Reset {
		t.done(ErrReset)
		return
	}
	t.done(nil)
	if m.Code != Empty && x != nil {
		x.deliver(m)
	}
}

// drop forgets a transmission. e.mu is held.
func (e *Endpoint) drop(id uint16) {
	if t := e.sent[id]; t != nil {
		t.timer.Stop()
		delete(e.sent, id)
	}
	if len(e.sent) == 0 {
		e.sent = nil
	}
}

// receiveResponse takes an answer that comes in a message of its own.
func (e *Endpoint) receiveResponse(m *Message) {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	entry, before := e.seen.note(m.ID, e.sweep)
	if before {
		e.mu.Unlock()
		e.repeat(entry)
		return
	}
	x := e.exchanges[string(m.Token)]
	if x != nil {
		e.drop(x.id) // an answer acknowledges too
	}
	reply := Message{Type: Acknowledgement, ID: m.ID}
	if x == nil {
		reply.Type = Reset // nobody waits for it: an observation that was given up
	}
	if m.Type == Confirmable || x == nil && m.Options.Has(Observe) {
		e.seen.answer(entry, reply.Append(nil))
	}
	e.mu.Unlock()
	e.repeat(entry)
	if x != nil {
		x.deliver(m)
	}
}

// repeat sends what a message was answered with, if there is anything yet.
func (e *Endpoint) repeat(entry *received) {
	e.mu.Lock()
	answer := entry.answer
	e.mu.Unlock()
	if answer != nil {
		e.config.Send(answer)
	}
}

func (e *Endpoint) receiveRequest(m *Message) {
	if e.config.Handle == nil {
		if m.Type == Confirmable {
			e.sendEmpty(Reset, m.ID)
		}
		return
	}
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return
	}
	entry, before := e.seen.note(m.ID, e.sweep)
	crowded := e.handling >= e.config.MaxHandling
	if !before && !crowded {
		e.handling++
		e.all.Add(1)
	}
	e.mu.Unlock()
	switch {
	case before:
		if m.Type == Confirmable {
			e.repeat(entry)
		}
	case crowded:
		refusal := &Message{Code: ServiceUnavailable}
		refusal.Options.AddUint(MaxAge, 1)
		e.respond(m, entry, refusal)
	default:
		go e.handle(m, entry)
	}
}

func (e *Endpoint) handle(request *Message, entry *received) {
	defer e.all.Done()
	var late *time.Timer
	if request.Type == Confirmable {
		late = time.AfterFunc(piggybackWait, func() { e.acknowledge(request, entry) })
	}
	answer := e.config.Handle(e.ctx, request)
	if late != nil {
		late.Stop()
	}
	e.mu.Lock()
	e.handling--
	e.mu.Unlock()
	if answer != nil {
		e.respond(request, entry, answer)
	}
}

// acknowledge tells the peer that the answer will come separately.
func (e *Endpoint) acknowledge(request *Message, entry *received) {
	e.mu.Lock()
	if entry.acknowledged {
		e.mu.Unlock()
		return
	}
	entry.acknowledged = true
	ack := Message{Type: Acknowledgement, ID: request.ID}
	e.seen.answer(entry, ack.Append(nil))
	e.mu.Unlock()
	e.repeat(entry)
}

// respond sends the answer to a request: in its acknowledgement while that has not been
// sent, else in a message of its own.
func (e *Endpoint) respond(request *Message, entry *received, answer *Message) {
	m := Message{Code: answer.Code, Token: request.Token, Options: answer.Options, Payload: answer.Payload}
	if request.Type == NonConfirmable {
		e.sendNon(m)
		return
	}
	e.mu.Lock()
	if !entry.acknowledged {
		entry.acknowledged = true
		m.Type, m.ID = Acknowledgement, request.ID
		b := m.Append(nil)
		e.seen.answer(entry, b)
		e.mu.Unlock()
		e.config.Send(b)
		return
	}
	e.mu.Unlock()
	e.Confirm(m, func(error) {})
}

func (e *Endpoint) sendNon(m Message) {
	e.mu.Lock()
	m.Type, m.ID = NonConfirmable, e.newID()
	e.mu.Unlock()
	e.config.Send(m.Append(nil))
}

// newID returns an unused message ID. e.mu is held.
func (e *Endpoint) newID() uint16 {
	for {
		e.nextID++
		e.issued++
		if e.sent[e.nextID] == nil {
			return e.nextID
		}
	}
}

// Confirm sends a message that is no request, such as a notification, until the peer
// acknowledges it. Its Type and ID are filled in. done is called exactly once, from any
// goroutine, with nil, ErrReset, ErrTimeout, ErrClosed or what Send returned.
func (e *Endpoint) Confirm(m Message, done func(error)) {
	e.transmit(m, done)
}

// transmit sends a Confirmable message and returns its ID.
func (e *Endpoint) transmit(m Message, done func(error)) uint16 {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		done(ErrClosed)
		return 0
	}
	m.Type, m.ID = Confirmable, e.newID()
	t := &transmission{
		token:    string(m.Token),
		datagram: m.Append(nil),
		timeout:  ackTimeout + rand.N(time.Duration(float64(ackTimeout)*(ackRandomFactor-1))),
		done:     done,
	}
	t.timer = time.AfterFunc(t.timeout, func() { e.retransmit(m.ID, t) })
	if e.sent == nil {
		e.sent = make(map[uint16]*transmission)
	}
	e.sent[m.ID] = t
	if x := e.exchanges[t.token]; x != nil && m.Code.IsRequest() {
		x.id = m.ID
	}
	e.mu.Unlock()
	if err := e.config.Send(t.datagram); err != nil {
		e.abandon(m.ID, t, err)
	}
	return m.ID
}

func (e *Endpoint) retransmit(id uint16, t *transmission) {
	e.mu.Lock()
	if e.sent[id] != t {
		e.mu.Unlock()
		return
	}
	if t.tries == maxRetransmit {
		e.mu.Unlock()
		e.abandon(id, t, ErrTimeout)
		return
	}
	t.tries++
	t.timeout *= 2
	t.timer.Reset(t.timeout)
	e.mu.Unlock()
	e.config.Send(t.datagram)
}

func (e *Endpoint) abandon(id uint16, t *transmission, err error) {
	e.mu.Lock()
	mine := e.sent[id] == t
	if mine {
		e.drop(id)
	}
	e.mu.Unlock()
	if mine {
		t.done(err)
	}
}

// sweep forgets the messages whose time is over.
func (e *Endpoint) sweep() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen.expire(e.sweep)
}
