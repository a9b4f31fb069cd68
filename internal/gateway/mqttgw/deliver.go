package mqttgw

import (
	"errors"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// toPeer decides about a message that the broker delivers. The broker delivers
// what the peer has subscribed to, which was checked; this second check holds
// when a subscription has outlived the identity that it was allowed for, and when
// the broker is shared with others.
func (a *association) toPeer(name string, payload []byte) ([]byte, error) {
	t, ok := parseTopic(name)
	if !ok || !a.names.mayRead(t) {
		return nil, errors.New("a message on a topic that the peer may not read")
	}
	v, err := primitive.Parse(payload)
	if err != nil {
		return nil, err
	}
	if t.kind == kindReq {
		a.asked(v, len(payload))
	} else {
		a.answered(v, len(payload))
	}
	a.server.contacts.inward(v)
	return v.Append(nil), nil
}

// asked notes a request of the CSE's, so that the peer may answer it.
func (a *association) asked(v *primitive.Value, size int) {
	inner := unwrap(v, "m2m:rqp")
	x := exchange{begun: time.Now(), entry: access.Entry{ToDevice: true, Out: int64(size)}}
	x.requestID, _ = inner.Get("rqi").Str()
	x.entry.From, _ = inner.Get("fr").Str()
	x.entry.To, _ = inner.Get("to").Str()
	op, _ := inner.Get("op").Int()
	x.entry.Operation = operationName(int(op))
	x.entry.From, x.entry.To = clip(x.entry.From), clip(x.entry.To)
	if x.requestID == "" || len(x.requestID) > maxRequestID {
		return
	}
	if old, up := a.toDevice.add(x, a.limits.Exchanges); up {
		a.record(old.entry, old.begun)
	}
}

// answered takes note of a response of the CSE's, and gives it the request
// identifier that the peer knows.
func (a *association) answered(v *primitive.Value, size int) {
	inner := unwrap(v, "m2m:rsp")
	id, _ := inner.Get("rqi").Str()
	own, ok := a.inwardID(id)
	if !ok {
		return // not an answer to a request; or to one that the CSE could not read
	}
	resp, err := primitive.ParseResponse(v) // which knows that some CSEs write numbers as strings
	inner.Set("rqi", primitive.String(own))
	x, ok := a.toCSE.take(id)
	if !ok {
		return // a second answer, or one to an earlier connection
	}
	if err == nil {
		x.entry.Status = onem2m.ResponseStatusCode(resp.Status)
	}
	x.entry.Out = int64(size)
	if err == nil && x.learn != nil {
		if err = a.peer.Learn(x.learn, x.entry.Status, resp.Content); err != nil {
			// No success: the device could not speak as the AE.
			x.entry.Status = onem2m.StatusInternalServerError
			inner.Set("rsc", primitive.Number(int64(x.entry.Status)))
			inner.Delete("pc")
		}
	}
	if err != nil {
		a.log.Error("nothing was learned from an answer of the CSE's", "error", err)
	}
	a.record(x.entry, x.begun)
}

// unwrap returns the primitive in v: some peers put it into an object, as its
// only member.
func unwrap(v *primitive.Value, name string) *primitive.Value {
	if inner := v.Get(name); inner != nil && v.Len() == 1 {
		return inner
	}
	return v
}
