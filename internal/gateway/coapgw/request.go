package coapgw

import (
	"errors"
	"strconv"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// A refusal is why a request goes no further.
type refusal struct {
	status onem2m.ResponseStatusCode
	code   coap.Code // 0: status' own
	reason string
	// tell has the asker told the reason: it is about the form of its request.
	tell bool
}

func malformed(reason string) *refusal {
	return &refusal{status: onem2m.StatusBadRequest, reason: reason, tell: true}
}

// checkOptions refuses a request that is no CoAP that the gateway understands, drops what
// may be ignored, and tells the dialect of the rest.
func checkOptions(m *coap.Message, fallback Dialect) (Dialect, *refusal) {
	if m.Options.Has(coap.ProxyURI) || m.Options.Has(coap.ProxyScheme) {
		return fallback, &refusal{status: onem2m.StatusNotImplemented, code: coap.ProxyingNotSupported,
			reason: "a request to a proxy", tell: true}
	}
	d, err := dialectOf(m.Options, fallback)
	if err != nil {
		return d, malformed(err.Error())
	}
	if err := m.Options.Check(define); err != nil {
		return d, &refusal{status: onem2m.StatusBadRequest, code: coap.BadOption, reason: err.Error(), tell: true}
	}
	return d, nil
}

// readRequest takes a whole request apart. The request's Content is left for the caller
// to serialise.
//
// What it returns along with a refusal holds what was read till then.
func readRequest(m *coap.Message, d Dialect) (*httpgw.Request, *primitive.Value, *refusal) {
	r := &httpgw.Request{}
	r.ID, _ = d.text(m.Options, requestID)
	r.From, r.HasFrom = d.text(m.Options, from)
	if refused := readOperation(m, d, r); refused != nil {
		return r, nil, refused
	}
	if err := readTarget(m.Options, r); err != nil {
		return r, nil, malformed(err.Error())
	}
	if refused := readQuery(m.Options, r); refused != nil {
		return r, nil, refused
	}
	var err error
	if r.Params, err = d.readParameters(m.Options, true); err != nil {
		return r, nil, malformed(err.Error())
	}
	if !isPlain(r.ID, false) {
		return r, nil, malformed("a request identifier that is absent or malformed")
	}
	if accept, ok := m.Options.Uint(coap.Accept); ok && !isJSON(accept) {
		return r, nil, &refusal{status: statusNotAcceptable, reason: "an answer in another format than JSON", tell: true}
	}
	content, refused := readContent(m, r.Operation)
	return r, content, refused
}

// readOperation finds the operation and the resource type (TS-0008 6.2.1).
func readOperation(m *coap.Message, d Dialect, r *httpgw.Request) *refusal {
	ty, hasType := m.Options.Uint(d.number(resourceType))
	switch m.Code {
	case coap.GET:
		r.Operation = policy.Retrieve
	case coap.PUT:
		r.Operation = policy.Update
	case coap.DELETE:
		r.Operation = policy.Delete
	case coap.POST:
		r.Operation = policy.Notify
		if hasType {
			r.Operation = policy.Create
		}
	default:
		return &refusal{status: onem2m.StatusOperationNotAllowed, reason: "an unknown method", tell: true}
	}
	switch {
	case hasType && r.Operation != policy.Create:
		return malformed("a resource type in an operation other than CREATE")
	case hasType && ty == 0:
		return malformed("resource type 0")
	}
	r.Type = int(ty)
	return nil
}

// readTarget makes the To parameter of the path (TS-0008 table 6.2.2.3-1).
func readTarget(o coap.Options, r *httpgw.Request) error {
	path := o.Strings(coap.URIPath)
	if len(path) == 0 {
		return errors.New("a request without a target")
	}
	for _, segment := range path {
		// A CSE that joins the segments would find another path than one that
		// doesn't. What else is no character of a name, CheckTo refuses.
		if strings.Contains(segment, "/") || len(segment) > longestText {
			return errors.New("a segment of the path that is none")
		}
	}
	switch to := strings.Join(path, "/"); {
	case path[0] == "~":
		r.To = to[1:]
	case path[0] == "_":
		r.To = "/" + to[1:]
	default:
		r.To = to
	}
	return httpgw.CheckTo(r.To)
}

// readQuery reads the parameters that travel in the query. CoAP knows no escapes there
// and one parameter for each option, but there are peers that write them as in a URL, and
// CSEs that read them so; a '%' is refused.
//
// The operation of a non-blocking request stands there too (TS-0008 6.3.2). It is taken out:
// the CSE gets the operation's own method, which it can't misread.
func readQuery(o coap.Options, r *httpgw.Request) *refusal {
	raw := strings.Join(o.Strings(coap.URIQuery), "&")
	if strings.Contains(raw, "%") {
		return malformed("an escape in a query")
	}
	var rest []string
	asked := ""
	for pair := range strings.SplitSeq(raw, "&") {
		value, ok := strings.CutPrefix(pair, "op=")
		if !ok {
			rest = append(rest, pair)
			continue
		}
		if asked != "" || value == "" {
			return malformed("an operation that is none")
		}
		asked = value
	}
	var err error
	if r.Query, err = httpgw.ParseQuery(strings.Join(rest, "&")); err != nil { // such as "OP"
		return malformed(err.Error())
	}
	if asked == "" {
		return nil
	}
	n, err := strconv.Atoi(asked)
	op := policy.Operation(n)
	if err != nil || op < policy.Create || op > policy.Notify {
		return malformed("an operation that is none")
	}
	// A POST stands for any of them. Whether there is a resource type must agree.
	posted := r.Operation == policy.Notify || r.Operation == policy.Create
	if op != r.Operation && (!posted || r.Type != 0 || op == policy.Create) {
		return malformed("an operation that is not the method's")
	}
	r.Operation = op
	return nil
}

// readContent reads the payload.
func readContent(m *coap.Message, operation policy.Operation) (*primitive.Value, *refusal) {
	hasContent := operation != policy.Retrieve && operation != policy.Delete
	switch format, ok := m.Options.Uint(coap.ContentFormat); {
	case hasContent && len(m.Payload) == 0:
		// Mandatory by TS-0001 table 8.1.2-2; more than one CSE ends without it.
		return nil, malformed("no content")
	case !hasContent && len(m.Payload) > 0:
		return nil, malformed("content in an operation that has none")
	case !hasContent:
		return nil, nil
	case ok && !isJSON(format):
		return nil, &refusal{status: statusUnsupportedMediaType, reason: "content in another format than JSON", tell: true}
	}
	content, err := primitive.Parse(m.Payload)
	if err != nil {
		return nil, malformed(err.Error())
	}
	// One known CSE looks into the payload for "rvi", and when it finds Release 5's takes
	// the originator from there too, whatever the option says and in any letter case.
	// The content of every operation is one object, whose name has a prefix; that of no
	// parameter has.
	if content.Kind() != primitive.KindObject || content.Len() != 1 {
		return nil, malformed("content that is not one object in an object")
	}
	for name := range content.Members() {
		if !strings.Contains(name, ":") {
			return nil, malformed("content whose name has no prefix")
		}
	}
	return content, nil
}

// checkRelease refuses a release whose requests carry their parameters in the payload.
func checkRelease(params *httpgw.Parameters) *refusal {
	switch params[httpgw.ReleaseVersion] {
	case "", "1", "2", "2a", "3", "4":
		return nil
	}
	return &refusal{status: statusReleaseVersionNotSupported, reason: "a release version above 4", tell: true}
}
