package coapgw

import (
	"context"
	"sync"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/onem2m"
)

// A relation is a resource that a device observes, by way of an observation of the
// gateway's at the CSE.
type relation struct {
	exchange *exchange // of the registration
	token    []byte
	states   *latest
	number   uint32 // of the last notification; only the goroutine of states touches it

	mu   sync.Mutex
	end  func() // ends the observation at the CSE; nil until it has begun; guarded by mu
	over bool   // guarded by mu
}

// stop ends the relation on both sides, without a word to the device.
func (r *relation) stop() {
	r.mu.Lock()
	end := r.end
	r.end, r.over = nil, true
	r.mu.Unlock()
	r.states.stop()
	if end != nil {
		end()
	}
}

// begin sets how the observation ends. When the relation is over already, it ends at once.
func (r *relation) begin(end func()) {
	r.mu.Lock()
	over := r.over
	if !over {
		r.end = end
	}
	r.mu.Unlock()
	if over {
		end()
	}
}

// observe retrieves the resource of a GET request with an Observe option, and begins (0)
// or ends (1) to observe it (RFC 7641 section 2). observed is false when the device gets
// no notifications: it asked for none, the CSE offers none, or it has enough.
func (a *association) observe(ctx context.Context, x *exchange, register uint32) (response *httpgw.Response, observed bool, err error) {
	a.endRelation(string(x.message.Token), nil)
	cse, ok := a.server.config.Backend.(observable)
	r := &relation{exchange: x, token: x.message.Token, number: 1} // the answer to the registration
	r.states = newLatest(r.deliver)
	if register != 0 || !ok || !a.addRelation(r) {
		response, err = a.server.config.Backend.Do(ctx, x.request)
		return response, false, err
	}
	response, end, err := cse.Observe(ctx, x.request, r.notify)
	if end == nil {
		a.endRelation(string(r.token), r)
		return response, false, err
	}
	r.begin(end)
	return response, true, nil
}

func (a *association) addRelation(r *relation) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed || len(a.relations) >= a.server.config.Limits.Observations {
		return false
	}
	if a.relations == nil {
		a.relations = make(map[string]*relation)
	}
	a.relations[string(r.token)] = r
	return true
}

// endRelation ends the relation of a token; if only is not nil, only if it is that one.
func (a *association) endRelation(token string, only *relation) {
	a.mu.Lock()
	r := a.relations[token]
	if r == nil || only != nil && r != only {
		a.mu.Unlock()
		return
	}
	delete(a.relations, token)
	a.mu.Unlock()
	r.stop()
}

// notify takes a new state from the CSE, and writes what the device gets.
func (r *relation) notify(response *httpgw.Response) {
	if len(response.Content) > r.exchange.association.server.config.Limits.MaxAnswer {
		response = &httpgw.Response{Status: onem2m.StatusInternalServerError} // which ends the relation
	}
	r.states.put(r.exchange.answer(response))
}

// deliver sends a notification and waits until the device has it: while one is on its way,
// newer states take each other's place (RFC 7641 section 4.5.1).
func (r *relation) deliver(m *coap.Message) {
	a := r.exchange.association
	last := !m.Code.IsSuccess() // section 4.2
	if !last {
		r.number = (r.number + 1) & 0xffffff
		m.Options.Remove(coap.MaxAge)
		m.Options.AddUint(coap.Observe, r.number)
		m = a.blocks.Keep(r.exchange.message, m)
	}
	m.Token = r.token
	done := make(chan error, 1)
	a.endpoint.Confirm(*m, func(err error) { done <- err })
	if err := <-done; err != nil || last {
		// A Reset, or a device that is gone.
		a.endRelation(string(r.token), r)
	}
}
