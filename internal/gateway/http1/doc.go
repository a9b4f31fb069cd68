// Package http1 reads HTTP/1.1 messages strictly: what two readers could take
// differently is an error (RFC 9112). It is small because the gateway's needs
// are: whole messages, one at a time, from a peer that is on one connection.
//
// net/http is not used since it forgives what a gate must not (folded lines,
// Content-Length beside Transfer-Encoding, a bare LF), hides how a header was
// written, and holds two buffers for every idle connection.
package http1

import (
	"fmt"
	"strings"
)

const (
	// MaxHead is the longest head of a message, with its last line's end.
	MaxHead = 8 << 10
	// maxFields bounds the header fields of a message.
	maxFields = 64
)

// A Field is a header field as it was written, its value without surrounding
// white space.
type Field struct{ Name, Value string }

// Is reports whether the field has this name, in any letter case.
func (f *Field) Is(name string) bool {
	return len(f.Name) == len(name) && strings.EqualFold(f.Name, name)
}

// A Message is the head of a request or of a response. It may be used again for
// the next one.
type Message struct {
	Method, Target string // of a request
	Status         int    // of a response
	Fields         []Field
	// Close tells that the sender will send nothing more on this connection.
	Close bool
	// ExpectContinue tells that the sender waits for 100 Continue before it
	// sends the body.
	ExpectContinue bool

	length int64 // of the body, or chunked or untilClose
}

const (
	chunked    = -1
	untilClose = -2
)

// HasBody reports whether a body follows, which may be empty.
func (m *Message) HasBody() bool { return m.length != 0 }

// An Error is a message that is not taken. Status is HTTP's for it.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return "http: " + e.Reason }

func refuse(status int, format string, args ...any) *Error {
	return &Error{status, fmt.Sprintf(format, args...)}
}
