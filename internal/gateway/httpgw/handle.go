package httpgw

import (
	"errors"
	"fmt"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// A refusal is why a request does not reach the CSE, or no answer the device.
type refusal struct {
	status onem2m.ResponseStatusCode
	http   int // 0: status' own
	reason string
	// tell has the peer told the reason: it is about the form of its request.
	tell bool
}

const badRequest = onem2m.StatusBadRequest

func malformed(reason string) *refusal { return &refusal{badRequest, 0, reason, true} }

// handle decides on the request in x, and asks the CSE.
func (d *deviceConn) handle(x *exchange) (*answer, *refusal) {
	content, refused := x.translate()
	if refused != nil {
		return nil, refused
	}
	r := &x.request
	question := &policy.Request{Operation: r.Operation, Type: r.Type, From: r.From, HasFrom: r.HasFrom, To: r.To, Content: content}
	verdict := d.peer.Check(question)
	if !verdict.Allowed {
		return nil, &refusal{verdict.Status, 0, verdict.Reason, false}
	}
	r.From, r.HasFrom = verdict.From, verdict.HasFrom
	if verdict.Learns {
		// What would have the answer come later, or hold less than the AE-ID.
		r.Query, r.Params[NotificationURI] = nil, ""
	}
	if refused := d.replaceContacts(r, content); refused != nil {
		return nil, refused
	}
	if content != nil {
		x.content = content.Append(x.content[:0])
		r.Content = x.content
		// It has done its work, and need not be kept for as long as the CSE may take.
		content, question.Content = nil, nil
	}
	id := r.ID
	r.ID = d.server.config.Backend.RequestID(d.name, r.From, id)
	r.room = x.answer
	response, err := d.ask(r, verdict.Learns)
	r.ID = id
	if err != nil {
		return nil, unanswered(err)
	}
	if refused := d.learn(verdict, question, response); refused != nil {
		return nil, refused
	}
	if cap(response.Content) > cap(x.answer) {
		x.answer = response.Content // to be used again
	}
	d.translateBack(response)
	return &answer{status: response.Status, http: response.HTTPStatus, id: id, from: response.From, params: &response.Params,
		location: response.Location, contentType: response.ContentType, content: response.Content}, nil
}

// unanswered is the refusal for a CSE that can't be asked. What is wrong with it
// is nothing for devices to know.
func unanswered(err error) *refusal {
	var e *BackendError
	if !errors.As(err, &e) {
		return &refusal{onem2m.StatusInternalServerError, 0, err.Error(), false}
	}
	return &refusal{e.Status, 0, e.Error(), e.Status == badRequest}
}

// learn has the rules take note of the answer. A registration whose outcome they
// can't keep is not passed on as a success: the device would be turned away the
// next time, without knowing why.
func (d *deviceConn) learn(v policy.Verdict, q *policy.Request, r *Response) *refusal {
	var content *primitive.Value
	if v.Learns && r.Status == onem2m.StatusCreated && isJSONType(r.ContentType) {
		var err error
		if content, err = primitive.Parse(r.Content); err != nil {
			return &refusal{onem2m.StatusTargetNotReachable, 0, fmt.Sprintf("the CSE's answer to a registration: %v", err), false}
		}
	}
	if err := d.peer.Learn(q, r.Status, content); err != nil {
		d.server.config.Log.Error("can't keep what a registration told", "binding", "http", "peer", d.name, "err", err)
		return &refusal{onem2m.StatusInternalServerError, 0, err.Error(), false}
	}
	return nil
}

// refused makes a refusal the answer, and notes it.
func (x *exchange) refused(r *refusal) *answer {
	x.entry.Refused, x.entry.Reason = true, r.reason
	a := &answer{status: r.status, http: r.http, id: x.request.ID, params: &Parameters{}}
	a.params[ReleaseVersion] = x.request.Params[ReleaseVersion]
	if a.http == 0 {
		a.http = r.status.HTTPStatus()
	}
	text := r.status.String()
	if r.tell {
		text += ": " + r.reason
	}
	debug := primitive.Object()
	debug.Set("m2m:dbg", primitive.String(text))
	if x.head.Method != "HEAD" { // its reader does not look for content
		a.contentType, a.content = "application/json", debug.Append(nil)
	}
	return a
}

// note keeps of a request what the access log gets, bounded.
func note(e *access.Entry, r *Request, to string) {
	const longest = 256
	e.Operation = operationNames[r.Operation]
	e.From, e.To = r.From[:min(len(r.From), longest)], to[:min(len(to), longest)]
}

var operationNames = map[policy.Operation]string{create: "CREATE", retrieve: "RETRIEVE", update: "UPDATE", remove: "DELETE", notify: "NOTIFY"}
