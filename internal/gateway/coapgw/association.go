package coapgw

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// longestDatagram is the largest that is taken from a device. A block of 1024 octets with
// its options is smaller; what is larger than that has no place in one message.
const longestDatagram = 2048

// An association is one device's. Its one goroutine reads.
type association struct {
	server   *Server
	conn     *saef.Conn
	peer     *policy.Peer
	name     string
	endpoint *coap.Endpoint
	blocks   coap.Blocks
	dialect  atomic.Uint32 // that of the device's last request
	asking   chan struct{} // the one place for a request to the device
	queue    chan struct{} // places for those that wait for it, too

	mu        sync.Mutex
	closed    bool                 // guarded by mu
	relations map[string]*relation // what the device observes, by token; guarded by mu
}

func newAssociation(s *Server, c *saef.Conn) *association {
	a := &association{
		server: s,
		conn:   c,
		peer:   s.config.Rules.Peer(c.Association()),
		blocks: coap.Blocks{SZX: s.szx, Max: s.config.Limits.MaxContent},
		asking: make(chan struct{}, 1),
		queue:  make(chan struct{}, longestQueue),
	}
	a.name = a.peer.String()
	a.endpoint = coap.NewEndpoint(coap.Config{
		Send: func(b []byte) error {
			_, err := c.Write(b)
			return err
		},
		Handle:      a.handle,
		MaxHandling: s.config.Limits.Requests,
	})
	return a
}

// read takes what the device sends until the association ends: by either side, by a
// revocation, or because nothing has come for long.
func (a *association) read() {
	b := make([]byte, longestDatagram)
	for {
		a.conn.SetReadDeadline(time.Now().Add(a.server.config.Limits.IdleTimeout))
		n, err := a.conn.Read(b)
		switch {
		case err == nil:
			a.endpoint.Receive(b[:n])
		case errors.Is(err, io.ErrShortBuffer):
			// Too large for one message. Whatever it was, it isn't acknowledged.
		default:
			return
		}
	}
}

// close ends everything of the association, at the CSE too.
func (a *association) close() {
	a.conn.Close()
	a.mu.Lock()
	a.closed = true
	relations := a.relations
	a.relations = nil
	a.mu.Unlock()
	for _, r := range relations {
		r.stop()
	}
	a.endpoint.Close()
	a.blocks.Close()
}

// handle answers a message of the device's.
func (a *association) handle(ctx context.Context, m *coap.Message) *coap.Message {
	d, refused := checkOptions(m, Dialect(a.dialect.Load()))
	if refused == nil {
		a.dialect.Store(uint32(d))
		return a.blocks.Serve(ctx, m, func(ctx context.Context, whole *coap.Message) *coap.Message {
			return a.request(ctx, whole, d)
		})
	}
	x := &exchange{association: a, dialect: d, message: m, request: &httpgw.Request{}, begun: time.Now()}
	x.id, _ = d.text(m.Options, requestID)
	return x.refuse(refused)
}

// An exchange is one request of the device's.
type exchange struct {
	association *association
	dialect     Dialect
	message     *coap.Message
	request     *httpgw.Request
	id          string // the request identifier as the device wrote it
	begun       time.Time
	entry       access.Entry
}

// request decides about a whole request, and asks the CSE.
func (a *association) request(ctx context.Context, m *coap.Message, d Dialect) *coap.Message {
	x := &exchange{association: a, dialect: d, message: m, begun: time.Now()}
	r, content, refused := readRequest(m, d)
	x.request, x.id = r, r.ID
	if refused == nil {
		refused = checkRelease(&r.Params)
	}
	if refused == nil && a.server.isDraining() {
		refused = &refusal{status: unreachable, code: coap.ServiceUnavailable, reason: "the gateway is shutting down"}
	}
	if refused != nil {
		return x.refuse(refused)
	}
	question := &policy.Request{Operation: r.Operation, Type: r.Type, From: r.From, HasFrom: r.HasFrom, To: r.To, Content: content}
	x.note()
	verdict := a.peer.Check(question)
	if !verdict.Allowed {
		return x.refuse(&refusal{status: verdict.Status, reason: verdict.Reason})
	}
	r.From, r.HasFrom = verdict.From, verdict.HasFrom
	if verdict.Learns {
		// What would have the answer come later, or hold less than the AE-ID. And a
		// device that goes meanwhile must not leave an AE at the CSE that nobody may
		// speak as.
		r.Query = slices.DeleteFunc(r.Query, func(p httpgw.QueryParam) bool { return p.Name == "rcn" || p.Name == "rt" })
		r.Params[httpgw.NotificationURI], r.Params[httpgw.OperationExecution] = "", ""
		ctx = a.server.ctx
	}
	if err := a.server.config.Notifications.outward(a.conn.Association().KmID, r, content); err != nil {
		return x.refuse(malformed(err.Error()))
	}
	if content != nil {
		r.Content = content.Append(nil)
	}
	if id := a.conn.Association().KmID; a.server.enter(id) {
		defer a.server.leave(id)
	} else {
		return x.refuse(&refusal{status: unreachable, code: coap.ServiceUnavailable, reason: "too many requests at once", tell: true})
	}
	r.ID = a.server.config.Backend.RequestID(a.name, r.From, x.id)
	return x.ask(ctx, question, verdict)
}

// ask sends the request to the CSE and makes its answer the device's.
func (x *exchange) ask(ctx context.Context, question *policy.Request, verdict policy.Verdict) *coap.Message {
	a := x.association
	var response *httpgw.Response
	var err error
	observed := false
	if register, ok := x.message.Options.Uint(coap.Observe); ok && x.request.Operation == policy.Retrieve {
		response, observed, err = a.observe(ctx, x, register)
	} else {
		response, err = a.server.config.Backend.Do(ctx, x.request)
	}
	if err != nil {
		return x.refuse(unanswered(err))
	}
	if refused := x.learn(question, verdict, response); refused != nil {
		return x.refuse(refused)
	}
	if len(response.Content) > a.server.config.Limits.MaxAnswer {
		a.endRelation(string(x.message.Token), nil)
		return x.refuse(&refusal{status: onem2m.StatusInternalServerError, reason: "an answer that is too large", tell: true})
	}
	answer := x.answer(response)
	if observed {
		answer.Options.Remove(coap.MaxAge)
		answer.Options.AddUint(coap.Observe, 1)
	}
	x.record(response, len(answer.Payload))
	return answer
}

// answer writes the CSE's response as the device's.
func (x *exchange) answer(response *httpgw.Response) *coap.Message {
	if n := x.association.server.config.Notifications; n != nil {
		n.inward(response)
	}
	return newAnswer(response, x.dialect, x.request.Operation, x.id)
}

// learn has the rules take note of the answer to a registration.
func (x *exchange) learn(question *policy.Request, verdict policy.Verdict, response *httpgw.Response) *refusal {
	var content *primitive.Value
	if verdict.Learns && isJSONType(response.ContentType) {
		var err error
		if content, err = primitive.Parse(response.Content); err != nil {
			return &refusal{status: unreachable, code: coap.BadGateway, reason: "the CSE's answer to a registration: " + err.Error()}
		}
	}
	if err := x.association.peer.Learn(question, response.Status, content); err != nil {
		x.association.server.config.Log.Error("can't keep what a registration told", "binding", "coap", "peer", x.association.name, "err", err)
		return &refusal{status: onem2m.StatusInternalServerError, reason: err.Error()}
	}
	return nil
}

// unanswered is the refusal for a CSE that can't be asked. What is wrong with it is nothing
// for devices to know.
func unanswered(err error) *refusal {
	var e *httpgw.BackendError
	if !errors.As(err, &e) {
		return &refusal{status: unreachable, code: coap.BadGateway, reason: err.Error()}
	}
	r := &refusal{status: e.Status, reason: e.Error(), tell: e.NotSent && e.Status != unreachable}
	if e.Status == unreachable {
		r.code = coap.ServiceUnavailable // 4.04 would be about the resource
	}
	return r
}

// note keeps of a request what the access log gets, bounded.
func (x *exchange) note() {
	const longest = 256
	r := x.request
	x.entry.Operation = operationName(r.Operation)
	x.entry.From, x.entry.To = r.From[:min(len(r.From), longest)], r.To[:min(len(r.To), longest)]
}

// refuse makes a refusal the answer, and records it.
func (x *exchange) refuse(r *refusal) *coap.Message {
	if x.entry.Operation == "" {
		x.note()
	}
	x.entry.Refused, x.entry.Reason = true, r.reason
	x.request.ID = x.id
	m := newRefusal(r, x.dialect, x.request)
	x.record(&httpgw.Response{Status: r.status}, len(m.Payload))
	return m
}

func (x *exchange) record(response *httpgw.Response, out int) {
	a := x.association
	x.entry.Binding, x.entry.Peer, x.entry.KcID = "coap", a.name, a.conn.Association().KcID
	x.entry.Status, x.entry.Duration = response.Status, time.Since(x.begun)
	x.entry.In, x.entry.Out = int64(len(x.message.Payload)), int64(out)
	a.server.config.Recorder.Record(x.entry)
}

func operationName(o policy.Operation) string {
	switch o {
	case policy.Create:
		return "CREATE"
	case policy.Retrieve:
		return "RETRIEVE"
	case policy.Update:
		return "UPDATE"
	case policy.Delete:
		return "DELETE"
	case policy.Notify:
		return "NOTIFY"
	}
	return ""
}
