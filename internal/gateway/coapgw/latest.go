package coapgw

import (
	"sync"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
)

// latest passes on states of a resource, one at a time and only the newest: an observer
// wants the state, not its history (RFC 7641 section 1.3).
type latest struct {
	deliver func(*coap.Message)

	mu      sync.Mutex
	next    *coap.Message // guarded by mu
	busy    bool          // guarded by mu
	stopped bool          // guarded by mu
}

func newLatest(deliver func(*coap.Message)) *latest { return &latest{deliver: deliver} }

// put takes a state. It does not block.
func (l *latest) put(m *coap.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = m
	if !l.busy && !l.stopped {
		l.busy = true
		go l.run()
	}
}

func (l *latest) run() {
	for {
		l.mu.Lock()
		m := l.next
		l.next = nil
		if m == nil || l.stopped {
			l.busy = false
			l.mu.Unlock()
			return
		}
		l.mu.Unlock()
		l.deliver(m)
	}
}

// stop forgets the state that waits.
func (l *latest) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped, l.next = true, nil
}
