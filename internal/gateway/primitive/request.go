package primitive

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Request is a request primitive as MQTT and the polling channel carry it
// (TS-0004 8.2.2).
type Request struct {
	Operation int    // op: 1 CREATE to 5 NOTIFY
	To        string // to
	From      string // fr, as written: it may be anything
	HasFrom   bool
	RequestID string // rqi
	Type      int    // ty, 0 when absent
	Content   *Value // pc, nil when absent
	Rest      *Value // an object of the other members, all of them known ones
	// Wrapped tells that the primitive stands in an object as its only member
	// "m2m:rqp", as some peers write it. Value does as it says.
	Wrapped bool
}

// A Response is a response primitive.
type Response struct {
	Status    int    // rsc
	RequestID string // rqi
	To, From  string // to and fr; "" when absent
	Content   *Value // pc, nil when absent
	Rest      *Value // an object of the other members, all of them known ones
	Wrapped   bool   // as in Request, in "m2m:rsp"
}

// The short names of the parameters that a primitive's other fields do not hold
// (TS-0004 table 8.2.2-1). "rol" is what early texts call "rids". The parameters
// that name a second identity, such as the service user and the authorization
// signatures, are left out on purpose: nothing here can vouch for them.
var (
	restOfRequest = []string{"rol", "rids", "ot", "rqet", "rset", "oet", "rt", "rp", "rcn", "ec", "da", "gid", "fc", "drt",
		"tkns", "tids", "ltids", "tqi", "rvi", "vsi", "sqi"}
	restOfResponse = []string{"ot", "rqet", "rset", "ec", "cnst", "cnot", "ati", "tqf", "rvi", "vsi"}
)

const (
	maxTo        = 2048
	maxRequestID = 256
)

// ParseRequest takes a request primitive apart.
//
// It refuses a member that it does not know, which includes a known one's long
// name ("from") and other letter case ("FR"): there are CSEs that read those.
// Numbers may be given as strings ("op":"1", as a widespread client does); they
// go on as numbers.
func ParseRequest(v *Value) (*Request, error) {
	v, wrapped := unwrap(v, "m2m:rqp")
	r := &Request{Rest: objectFor(v.Len()), Wrapped: wrapped}
	if v.Kind() != KindObject {
		return nil, fmt.Errorf("%w: a request primitive is an object", ErrSyntax)
	}
	for name, value := range v.Members() {
		var err error
		switch name {
		case "op":
			r.Operation, err = number(name, value, 1, 5)
		case "ty":
			r.Type, err = number(name, value, 1, 1<<16)
		case "to":
			r.To, err = text(name, value, maxTo)
		case "rqi":
			r.RequestID, err = text(name, value, maxRequestID)
		case "fr":
			if r.From, r.HasFrom = value.Str(); !r.HasFrom {
				err = fmt.Errorf("%w: fr is no string", ErrSyntax)
			}
		case "pc":
			r.Content, err = content(value)
		case "rcn":
			var n int
			n, err = number(name, value, 0, 1<<16)
			r.Rest.Set(name, Number(int64(n)))
		default:
			if !slices.Contains(restOfRequest, name) {
				err = fmt.Errorf("%w: unknown parameter %q", ErrSyntax, short(name))
			}
			r.Rest.Set(name, value)
		}
		if err != nil {
			return nil, err
		}
	}
	if r.Operation == 0 || r.To == "" || r.RequestID == "" {
		return nil, fmt.Errorf("%w: op, to and rqi are mandatory", ErrSyntax)
	}
	return r, nil
}

// Value returns the primitive as JSON. It shares Content and the members of
// Rest with r.
func (r *Request) Value() *Value {
	v := objectFor(6 + r.Rest.Len())
	v.Set("op", Number(int64(r.Operation)))
	v.Set("to", String(r.To))
	if r.HasFrom {
		v.Set("fr", String(r.From))
	}
	v.Set("rqi", String(r.RequestID))
	if r.Type != 0 {
		v.Set("ty", Number(int64(r.Type)))
	}
	addRest(v, r.Rest, restOfRequest)
	if r.Content != nil {
		v.Set("pc", r.Content)
	}
	return wrap(v, "m2m:rqp", r.Wrapped)
}

// ParseResponse takes a response primitive apart. Unlike ParseRequest it drops
// members that it does not know: they come from the CSE or go no further than
// to it, and the originator of a request is not among them.
func ParseResponse(v *Value) (*Response, error) {
	v, wrapped := unwrap(v, "m2m:rsp")
	r := &Response{Rest: objectFor(v.Len()), Wrapped: wrapped}
	if v.Kind() != KindObject {
		return nil, fmt.Errorf("%w: a response primitive is an object", ErrSyntax)
	}
	for name, value := range v.Members() {
		var err error
		switch name {
		case "rsc":
			r.Status, err = number(name, value, 1000, 6999)
		case "rqi":
			r.RequestID, err = text(name, value, maxRequestID)
		case "to":
			r.To, err = text(name, value, maxTo)
		case "fr":
			r.From, err = text(name, value, maxTo)
		case "pc":
			r.Content = value
		default:
			if slices.Contains(restOfResponse, name) {
				r.Rest.Set(name, value)
			}
		}
		if err != nil {
			return nil, err
		}
	}
	if r.Status == 0 || r.RequestID == "" {
		return nil, fmt.Errorf("%w: rsc and rqi are mandatory", ErrSyntax)
	}
	return r, nil
}

// Value returns the primitive as JSON. It shares Content and the members of
// Rest with r.
func (r *Response) Value() *Value {
	v := objectFor(5 + r.Rest.Len())
	v.Set("rsc", Number(int64(r.Status)))
	v.Set("rqi", String(r.RequestID))
	if r.To != "" {
		v.Set("to", String(r.To))
	}
	if r.From != "" {
		v.Set("fr", String(r.From))
	}
	addRest(v, r.Rest, restOfResponse)
	if r.Content != nil {
		v.Set("pc", r.Content)
	}
	return wrap(v, "m2m:rsp", r.Wrapped)
}

// objectFor returns an object with room for n members.
func objectFor(n int) *Value {
	return &Value{kind: KindObject, members: make([]member, 0, n)}
}

// addRest adds those members of rest that may stand there, so that a field and
// a member can never say two things.
func addRest(v, rest *Value, known []string) {
	for name, value := range rest.Members() {
		if slices.Contains(known, name) {
			v.Set(name, value)
		}
	}
}

func unwrap(v *Value, name string) (*Value, bool) {
	if v.Kind() == KindObject && v.Len() == 1 {
		if inner := v.Get(name); inner != nil {
			return inner, true
		}
	}
	return v, false
}

func wrap(v *Value, name string, wrapped bool) *Value {
	if !wrapped {
		return v
	}
	outer := Object()
	outer.Set(name, v)
	return outer
}

// number reads an integer from lo to hi, as a number or as a string of its
// decimal digits without leading zeros.
func number(name string, v *Value, lo, hi int64) (int, error) {
	n, ok := v.Int()
	if s, isString := v.Str(); isString {
		var err error
		n, err = strconv.ParseInt(s, 10, 64)
		ok = err == nil && strconv.FormatInt(n, 10) == s
	}
	if !ok || n < lo || n > hi {
		return 0, fmt.Errorf("%w: %s is no number from %d to %d", ErrSyntax, name, lo, hi)
	}
	return int(n), nil
}

// text reads a string of visible characters.
func text(name string, v *Value, most int) (string, error) {
	s, ok := v.Str()
	bad := strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f })
	if !ok || s == "" || len(s) > most || bad {
		return "", fmt.Errorf("%w: %s is no string of 1 to %d visible characters", ErrSyntax, name, most)
	}
	return s, nil
}

// content reads the content of a request. The empty string, which some clients
// send for none, is none.
func content(v *Value) (*Value, error) {
	if s, ok := v.Str(); ok && s == "" {
		return nil, nil
	}
	if v.Kind() != KindObject {
		return nil, fmt.Errorf("%w: pc is no object", ErrSyntax)
	}
	return v, nil
}
