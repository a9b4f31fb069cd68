package coapgw

import (
	"errors"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

// newAnswer writes a response: the CSE's to a device, or a device's to the CSE. id is the
// request identifier as the asker wrote it.
func newAnswer(r *httpgw.Response, d Dialect, operation policy.Operation, id string) *coap.Message {
	m := &coap.Message{Code: codeOf(r.Status, operation)}
	m.Options.AddUint(d.number(statusCode), uint32(r.Status))
	if isPlain(id, false) && len(id) <= longestText {
		m.Options.AddString(d.number(requestID), id)
	}
	d.addParameters(&m.Options, &r.Params)
	// The answer depends on who asks, which no cache would know (TS-0008 6.4).
	m.Options.AddUint(coap.MaxAge, 0)
	for segment := range strings.SplitSeq(strings.Trim(r.Location, "/"), "/") {
		if segment != "" && len(segment) <= 255 && m.Code == coap.Created {
			m.Options.AddString(coap.LocationPath, segment)
		}
	}
	if len(r.Content) > 0 {
		m.Payload = r.Content
		if format, ok := contentFormat(r.ContentType); ok {
			m.Options.AddUint(coap.ContentFormat, format)
		}
	}
	return m
}

// newRefusal writes the gateway's own response. Its payload is a diagnostic message (RFC
// 7252 section 5.5.2).
func newRefusal(r *refusal, d Dialect, request *httpgw.Request) *coap.Message {
	response := &httpgw.Response{Status: r.status}
	release := request.Params[httpgw.ReleaseVersion]
	if isPlain(release, false) {
		response.Params[httpgw.ReleaseVersion] = release
	}
	m := newAnswer(response, d, request.Operation, request.ID)
	if r.code != 0 {
		m.Code = r.code
	}
	text := r.status.String()
	if r.tell {
		text += ": " + r.reason
	}
	m.Payload = []byte(text)
	return m
}

// readAnswer takes a response apart: the CSE's, or a device's. An answer that could be
// another request's, or read in two ways, is an error.
func readAnswer(m *coap.Message, d Dialect, operation policy.Operation, id string) (*httpgw.Response, error) {
	if err := m.Options.Check(define); err != nil {
		return nil, err
	}
	d, err := dialectOf(m.Options, d)
	if err != nil {
		return nil, err
	}
	r := &httpgw.Response{Status: statusOf(m, d, operation)}
	if r.Status == 0 {
		return nil, errors.New("an answer with a malformed status")
	}
	if answered, ok := d.text(m.Options, requestID); ok && answered != id {
		return nil, errors.New("an answer to another request")
	}
	if r.Params, err = d.readParameters(m.Options, false); err != nil {
		return nil, err
	}
	r.Location = location(m.Options)
	if format, ok := m.Options.Uint(coap.ContentFormat); len(m.Payload) > 0 && (m.Code.IsSuccess() || ok) {
		r.Content = m.Payload
		r.ContentType = "application/json"
		if ok {
			r.ContentType = mediaType(format)
		}
	}
	return r, nil
}

// location returns the path of a created resource. Some CSEs write it into one option, or
// write a URI there with their own address, which is nothing for devices to know.
func location(o coap.Options) string {
	path := strings.Join(o.Strings(coap.LocationPath), "/")
	if _, rest, ok := strings.Cut(path, "://"); ok {
		_, path, _ = strings.Cut(rest, "/")
	}
	if path == "" || !isPlain(path, false) {
		return ""
	}
	return "/" + strings.TrimLeft(path, "/")
}

// unreachable is the status for a CSE or a device that can't be asked.
const unreachable = onem2m.StatusTargetNotReachable
