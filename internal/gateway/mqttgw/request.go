package mqttgw

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// maxRequestID bounds request identifiers, which are kept while a request waits.
const maxRequestID = 128

// A refusal is why a message of the peer's does not go on.
type refusal struct {
	status onem2m.ResponseStatusCode
	reason string // for the log
	// What the answer needs. A zero topic says that there is nowhere to send it.
	answer    topic
	requestID string
	wrapped   bool
	release   *primitive.Value // rvi, nil when absent
	entry     access.Entry
}

// fromPeer decides about a message that the peer publishes. What it returns is
// made anew from what was read and checked.
func (a *association) fromPeer(name string, payload []byte) (topic, []byte, *exchange, *refusal) {
	t, ok := parseTopic(name)
	switch {
	case ok && (t.kind == kindReq || t.kind == kindRegReq):
		out, x, refused := a.request(t, payload)
		return t, out, x, refused
	case ok && t.kind == kindResp:
		out, refused := a.response(t, payload)
		return t, out, nil, refused
	}
	return t, nil, nil, &refusal{
		status: onem2m.StatusOriginatorNotAuthenticated, reason: "a topic that no peer may publish to",
		entry: access.Entry{To: clip(name)},
	}
}

// request decides about a request to the CSE.
func (a *association) request(t topic, payload []byte) ([]byte, *exchange, *refusal) {
	no := &refusal{status: onem2m.StatusBadRequest, answer: a.answerTopic(t)}
	refuse := func(status onem2m.ResponseStatusCode, reason string) ([]byte, *exchange, *refusal) {
		no.status, no.reason = status, reason
		return nil, nil, no
	}
	if t.format != formatJSON {
		return refuse(onem2m.StatusBadRequest, "a serialisation other than JSON")
	}
	v, err := primitive.Parse(payload)
	if err != nil {
		return refuse(onem2m.StatusBadRequest, err.Error())
	}
	req, err := primitive.ParseRequest(v)
	if err != nil {
		no.requestID, no.wrapped = peekRequestID(v)
		return refuse(onem2m.StatusBadRequest, err.Error())
	}
	no.requestID, no.wrapped, no.release = req.RequestID, req.Wrapped, req.Rest.Get("rvi")
	no.entry = access.Entry{Operation: operationName(req.Operation), From: clip(req.From), To: clip(req.To)}
	if req.RequestID == "" || len(req.RequestID) > maxRequestID {
		no.requestID = clip(req.RequestID)
		return refuse(onem2m.StatusBadRequest, "a request identifier that is empty or too long")
	}
	if err := checkTarget(req.To); err != nil {
		return refuse(onem2m.StatusBadRequest, err.Error())
	}
	asked := &policy.Request{
		Operation: policy.Operation(req.Operation), Type: req.Type,
		From: req.From, HasFrom: req.HasFrom, To: req.To, Content: req.Content,
	}
	verdict := a.peer.Check(asked)
	if !verdict.Allowed {
		return refuse(verdict.Status, verdict.Reason)
	}
	if status, reason := a.checkTopic(t, asked, verdict); reason != "" {
		return refuse(status, reason)
	}

	if err := a.server.contacts.outward(a.names, req.Content, req.Rest); err != nil {
		return refuse(onem2m.StatusBadRequest, err.Error())
	}
	x := &exchange{begun: time.Now(), entry: no.entry}
	if verdict.Learns {
		x.learn = asked
		// What would have the answer come later, or hold less than the AE-ID.
		for _, name := range []string{"rcn", "rt", "fc", "oet"} {
			req.Rest.Delete(name)
		}
	}
	req.From, req.HasFrom = verdict.From, verdict.HasFrom
	req.RequestID = a.outwardID(req, verdict.Learns)
	x.requestID = req.RequestID
	return req.Value().Append(nil), x, nil
}

// checkTopic checks that the topic of an allowed request agrees with it. A CSE
// may take the originator from either: one that is open reads it from the topic
// when "fr" is empty.
func (a *association) checkTopic(t topic, r *policy.Request, v policy.Verdict) (onem2m.ResponseStatusCode, string) {
	if !a.names.isCSE(t.receiver) {
		return onem2m.StatusBadRequest, "a topic whose receiver is not the CSE"
	}
	registers := r.Operation == policy.Create && (r.Type == typeAE || r.Type == typeRemoteCSE)
	if t.kind == kindRegReq {
		if !registers {
			return onem2m.StatusBadRequest, "a request on the topic of registrations that is none"
		}
		if !a.names.ownOrCredential(t.originator) {
			return onem2m.StatusOriginatorNotAuthenticated, "a topic with another's Credential-ID"
		}
		return 0, ""
	}
	own, ok := a.names.own(t.originator)
	if !ok {
		return onem2m.StatusOriginatorNotAuthenticated, "a topic with another's identity"
	}
	// A CSE forwards the requests of others, and an AE that registers need not
	// say as whom.
	if !a.peer.CSEID().IsZero() || registers {
		return 0, ""
	}
	if from, ok := a.names.aeID(v.From); !ok || from.String() != own {
		return onem2m.StatusOriginatorNotAuthenticated, "a topic of one AE-ID with a request of another"
	}
	return 0, ""
}

// Resource types that are registrations.
const (
	typeAE        = 2
	typeRemoteCSE = 16
)

// response decides about a response of the peer's to a request of the CSE's.
// Only who was sent a request may answer it: CSEs find the request by its
// identifier alone, so another device that knew or guessed it could answer too.
func (a *association) response(t topic, payload []byte) ([]byte, *refusal) {
	refuse := func(reason string) ([]byte, *refusal) {
		return nil, &refusal{reason: reason, entry: access.Entry{ToDevice: true, To: clip(t.receiver)}}
	}
	if _, own := a.names.own(t.receiver); !own || !a.names.isCSE(t.originator) || t.format != formatJSON {
		return refuse("a response on a topic that is not the peer's")
	}
	v, err := primitive.Parse(payload)
	if err != nil {
		return refuse(err.Error())
	}
	resp, err := primitive.ParseResponse(v)
	if err != nil {
		return refuse(err.Error())
	}
	x, ok := a.toDevice.take(resp.RequestID)
	if !ok {
		return refuse("a response to a request that the peer was not sent")
	}
	x.entry.Status, x.entry.In = onem2m.ResponseStatusCode(resp.Status), int64(len(payload))
	a.record(x.entry, x.begun)
	resp.From = "" // who answers is the one who was asked
	return resp.Value().Append(nil), nil
}

// answerTopic returns the topic on which the peer is told that a request on t is
// refused: one that it may read, or none.
func (a *association) answerTopic(t topic) topic {
	answer := t.answer()
	answer.format = formatJSON
	if !a.names.isCSE(answer.receiver) {
		answer.receiver = a.names.cseNames[0]
	}
	if a.names.mayRead(answer) {
		return answer
	}
	// Another's identity in the topic: the peer hears of it on its own.
	for _, name := range a.names.ownNames() {
		if answer.originator = name; a.names.mayRead(answer) {
			return answer
		}
	}
	return topic{}
}

// payload returns the response primitive that tells of the refusal.
func (r *refusal) payload() []byte {
	resp := &primitive.Response{
		Status: int(r.status), RequestID: r.requestID, Rest: primitive.Object(), Wrapped: r.wrapped,
	}
	if r.release != nil {
		resp.Rest.Set("rvi", r.release)
	}
	return resp.Value().Append(nil)
}

// peekRequestID takes the identifier from what is no request primitive, so that
// its refusal finds the asker.
func peekRequestID(v *primitive.Value) (id string, wrapped bool) {
	if inner := v.Get("m2m:rqp"); inner != nil {
		v, wrapped = inner, true
	}
	id, _ = v.Get("rqi").Str()
	return clip(id), wrapped
}

// requestPrefix returns what is put in front of a peer's request identifiers on
// their way to the CSE. It is a function of the master key's name, so that a
// duplicate, or an answer after a reconnection, still finds its request.
func requestPrefix(id onem2m.KmID) string {
	sum := sha256.Sum256([]byte(id.String()))
	return hex.EncodeToString(sum[:8])
}

// outwardID returns the request identifier that the CSE gets: the prefix, '-' and
// the peer's own. A CSE that answers a repeated identifier from its memory, as
// some do, must not take it for another device's.
//
// Where the answer decides an AE-ID there are '.' and a hash of the request in
// between. Nothing but the identifier ties an answer to a request here, and the
// peer chooses it: without the hash, the answer to another request of the peer's
// under the same identifier, such as one that a CSE of its own gave, could pass
// for the registration's.
func (a *association) outwardID(r *primitive.Request, learns bool) string {
	if !learns {
		return a.prefix + "-" + r.RequestID
	}
	sum := sha256.Sum256(r.Value().Append(nil))
	return a.prefix + "." + hex.EncodeToString(sum[:16]) + "-" + r.RequestID
}

// inwardID is outwardID's inverse. ok is false when the CSE answers no request
// of the peer's.
func (a *association) inwardID(id string) (own string, ok bool) {
	rest, ok := strings.CutPrefix(id, a.prefix)
	if !ok {
		return "", false
	}
	if own, ok := strings.CutPrefix(rest, "-"); ok {
		return own, true
	}
	const hash = 2 * 16
	if len(rest) < 1+hash+1 || rest[0] != '.' || rest[1+hash] != '-' {
		return "", false
	}
	return rest[1+hash+1:], true
}

// checkTarget refuses a To that a CSE which makes a URL of it could read
// otherwise: TS-0001's identifiers are of RFC 3986's unreserved characters, with
// a '/' between them and one or two in front.
func checkTarget(to string) error {
	if len(to) > 1024 {
		return errors.New("a target that is too long")
	}
	rest := strings.TrimPrefix(strings.TrimPrefix(to, "/"), "/")
	for segment := range strings.SplitSeq(rest, "/") {
		if segment == "." || segment == ".." || !isName(segment) || strings.ContainsAny(segment, ":@") {
			return errors.New("a target that is no resource identifier")
		}
	}
	return nil
}

func operationName(op int) string {
	names := [...]string{"", "CREATE", "RETRIEVE", "UPDATE", "DELETE", "NOTIFY"}
	if op > 0 && op < len(names) {
		return names[op]
	}
	return ""
}

// clip bounds a text of the peer's for logs.
func clip(s string) string {
	if len(s) > maxRequestID {
		return strings.ToValidUTF8(s[:maxRequestID], "")
	}
	return s
}
