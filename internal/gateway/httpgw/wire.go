package httpgw

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

const (
	create   = policy.Create
	retrieve = policy.Retrieve
	update   = policy.Update
	remove   = policy.Delete
	notify   = policy.Notify
)

var scratches = sync.Pool{New: func() any { return &scratch{out: make([]byte, 0, 1024)} }}

// methods are the methods of the operations (TS-0009 6.2.1).
var methods = map[policy.Operation]string{create: "POST", retrieve: "GET", update: "PUT", remove: "DELETE", notify: "POST"}

// appendRequest appends the head of a request. All that leaves the gateway
// towards a CSE is made here, and it makes nothing of which it has not seen
// that every reader reads it alike.
func (b *Backend) appendRequest(out []byte, r *Request) ([]byte, error) {
	if err := b.checkRequest(r); err != nil {
		return nil, err
	}
	out = append(append(out, methods[r.Operation]...), ' ')
	out = appendPath(append(out, b.prefix...), r.To)
	out = appendQuery(out, r.Query)
	out = append(out, " HTTP/1.1\r\n"...)
	out = appendField(out, "Host", b.host)
	if r.HasFrom {
		out = appendField(out, "X-M2M-Origin", r.From)
	}
	out = appendField(out, "X-M2M-RI", r.ID)
	out = appendParameters(out, &r.Params)
	out = appendField(out, "Accept", "application/json")
	if r.Operation == create {
		out = append(append(append(out, "Content-Type: application/json;ty="...), strconv.Itoa(r.Type)...), "\r\n"...)
	} else if r.Content != nil || r.Operation == notify {
		out = appendField(out, "Content-Type", "application/json")
	}
	if r.Operation != retrieve && r.Operation != remove || r.Content != nil {
		out = append(append(append(out, "Content-Length: "...), strconv.Itoa(len(r.Content))...), "\r\n"...)
	}
	if b.config.NoKeepAlive {
		out = appendField(out, "Connection", "close")
	}
	return append(out, "\r\n"...), nil
}

func appendField(out []byte, name, value string) []byte {
	return append(append(append(append(out, name...), ": "...), value...), "\r\n"...)
}

func appendParameters(out []byte, params *Parameters) []byte {
	for p, value := range params {
		if value != "" {
			out = appendField(out, parameterHeaders[p].name, value)
		}
	}
	return out
}

// checkRequest is what holds for a request of any binding.
func (b *Backend) checkRequest(r *Request) error {
	switch {
	case r.Operation < create || r.Operation > notify:
		return notCarried("operation %d", r.Operation)
	case (r.Operation == create) != (r.Type > 0) || r.Type > 1<<20:
		return notCarried("resource type %d in operation %d", r.Type, r.Operation)
	case r.HasFrom && !isPlain(r.From, longestFrom, false):
		return notCarried("a malformed originator")
	case !isPlain(r.ID, longestID, false):
		return notCarried("a malformed request identifier")
	}
	if err := CheckTo(r.To); err != nil {
		return notCarried("%w", err)
	}
	if b.isHidden(r.To) {
		return &BackendError{onem2m.StatusNotFound, errors.New("a path of the CSE that is no resource"), true}
	}
	if err := checkQuery(r.Query); err != nil {
		return notCarried("%w", err)
	}
	for p, value := range r.Params {
		header := &parameterHeaders[p]
		if value != "" && (!header.request || !isPlain(value, header.longest, header.blanks)) {
			return notCarried("a malformed %s", header.name)
		}
	}
	return nil
}

// isHidden reports whether a CSE-relative target is none of the CSE's resources.
func (b *Backend) isHidden(to string) bool {
	first, _, _ := strings.Cut(to, "/")
	for _, pattern := range b.hidden {
		start, any := strings.CutSuffix(pattern, "*")
		if len(first) >= len(start) && strings.EqualFold(first[:len(start)], start) && (any || len(first) == len(start)) {
			return true
		}
	}
	return false
}

// readResponse takes the CSE's answer to the request of an identifier apart.
// What it does not know is left behind.
func readResponse(m *http1.Message, content []byte, id string) (*Response, error) {
	r := &Response{HTTPStatus: m.Status}
	var answered string
	for i := range m.Fields {
		f := &m.Fields[i]
		if p, ok := parameterOf(f); ok {
			header := &parameterHeaders[p]
			if header.response && isPlain(f.Value, header.longest, header.blanks) {
				r.Params[p] = f.Value
			}
			continue
		}
		switch {
		case f.Is("X-M2M-RSC"):
			n, err := strconv.Atoi(f.Value)
			if err != nil || n < 1000 || n > 9999 || r.Status != 0 {
				return nil, errors.New("a malformed X-M2M-RSC")
			}
			r.Status = onem2m.ResponseStatusCode(n)
		case f.Is("X-M2M-RI"):
			answered = f.Value
		case f.Is("X-M2M-Origin") && isPlain(f.Value, longestFrom, false):
			r.From = f.Value
		case f.Is("Content-Type"):
			r.ContentType, _, _ = strings.Cut(f.Value, ";")
			r.ContentType = strings.ToLower(strings.TrimSpace(r.ContentType))
		case f.Is("Content-Location"):
			r.Location = withoutHost(f.Value)
		}
	}
	switch {
	case r.Status == 0:
		return nil, fmt.Errorf("an answer without X-M2M-RSC (HTTP status %d)", m.Status)
	case answered != "" && answered != id:
		// Perhaps the answer to somebody else.
		return nil, errors.New("an answer to another request")
	}
	if content = bytes.TrimSpace(content); len(content) > 0 && isPrimitiveType(r.ContentType) {
		r.Content = content
	} else {
		r.ContentType = "" // such as the error page of a web server
	}
	return r, nil
}

// isPrimitiveType reports whether content of this type is a representation of
// oneM2M's (TS-0004 6.7), or one that a CSE puts its debugging text in.
func isPrimitiveType(t string) bool {
	switch t {
	case "application/json", "application/xml", "application/cbor", "text/plain":
		return true
	}
	return strings.HasPrefix(t, "application/vnd.onem2m-") && isPlain(t, 100, false)
}

// isJSONType reports whether content of this type is JSON.
func isJSONType(t string) bool {
	return t == "application/json" || strings.HasPrefix(t, "application/vnd.onem2m-") && strings.HasSuffix(t, "+json")
}

// withoutHost returns the path of a URI reference: scheme and host name the
// backend, which devices can't reach and need not know. It returns "" for what is
// no path.
func withoutHost(uri string) string {
	for _, scheme := range []string{"http://", "https://"} {
		if len(uri) >= len(scheme) && strings.EqualFold(uri[:len(scheme)], scheme) {
			_, path, ok := strings.Cut(uri[len(scheme):], "/")
			if !ok {
				return ""
			}
			uri = "/" + path
		}
	}
	if !isPlain(uri, 2*longestTo, false) || strings.Contains(uri, "://") {
		return ""
	}
	return uri
}
