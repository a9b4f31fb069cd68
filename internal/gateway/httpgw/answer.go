package httpgw

import (
	"net/http"
	"strconv"

	"github.com/onem2m-maf/maf/onem2m"
)

// An answer is what a device gets.
type answer struct {
	status      onem2m.ResponseStatusCode
	http        int
	id, from    string
	params      *Parameters
	location    string
	contentType string
	content     []byte
}

// appendAnswer appends the head of an answer, after which the content follows.
func appendAnswer(b []byte, a *answer, keepAlive bool) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(a.http), 10)
	// TS-0009 6.3.3 wants no reason phrase, but there are clients that take the
	// next line for it.
	b = append(append(append(b, ' '), http.StatusText(a.http)...), "\r\nX-M2M-RSC: "...)
	b = append(strconv.AppendInt(b, int64(a.status), 10), "\r\n"...)
	if a.id != "" {
		b = appendField(b, "X-M2M-RI", a.id)
	}
	if a.from != "" {
		b = appendField(b, "X-M2M-Origin", a.from)
	}
	b = appendParameters(b, a.params)
	if a.location != "" {
		b = appendField(b, "Content-Location", a.location)
	}
	if len(a.content) > 0 {
		b = appendField(b, "Content-Type", a.contentType)
	}
	if a.http != http.StatusNoContent {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(a.content)), 10), "\r\n"...)
	}
	if !keepAlive {
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}
