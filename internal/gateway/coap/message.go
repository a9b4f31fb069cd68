package coap

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Type is what a message is to the message layer (RFC 7252 section 3).
type Type uint8

// The four types.
const (
	Confirmable Type = iota
	NonConfirmable
	Acknowledgement
	Reset
)

// Code is a method or a response code: three bits of class, five of detail.
type Code uint8

// The codes that this package or the gateway knows by name.
const (
	Empty  Code = 0
	GET    Code = 0<<5 | 1
	POST   Code = 0<<5 | 2
	PUT    Code = 0<<5 | 3
	DELETE Code = 0<<5 | 4

	Created  Code = 2<<5 | 1
	Deleted  Code = 2<<5 | 2
	Valid    Code = 2<<5 | 3
	Changed  Code = 2<<5 | 4
	Content  Code = 2<<5 | 5
	Continue Code = 2<<5 | 31

	BadRequest               Code = 4 << 5
	BadOption                Code = 4<<5 | 2
	Forbidden                Code = 4<<5 | 3
	NotFound                 Code = 4<<5 | 4
	MethodNotAllowed         Code = 4<<5 | 5
	NotAcceptable            Code = 4<<5 | 6
	RequestEntityIncomplete  Code = 4<<5 | 8
	RequestEntityTooLarge    Code = 4<<5 | 13
	UnsupportedContentFormat Code = 4<<5 | 15

	InternalServerError  Code = 5 << 5
	NotImplemented       Code = 5<<5 | 1
	BadGateway           Code = 5<<5 | 2
	ServiceUnavailable   Code = 5<<5 | 3
	GatewayTimeout       Code = 5<<5 | 4
	ProxyingNotSupported Code = 5<<5 | 5
)

// Class returns the code's class: 0 of requests; 2, 4 and 5 of responses.
func (c Code) Class() int { return int(c >> 5) }

// IsRequest reports whether c is a method.
func (c Code) IsRequest() bool { return c != Empty && c.Class() == 0 }

// IsResponse reports whether c is a response code.
func (c Code) IsResponse() bool { return c.Class() == 2 || c.Class() == 4 || c.Class() == 5 }

// IsSuccess reports whether c is a response code of class 2.
func (c Code) IsSuccess() bool { return c.Class() == 2 }

// String returns the code as RFC 7252 writes it: "2.05".
func (c Code) String() string { return fmt.Sprintf("%d.%02d", c.Class(), c&0x1f) }

// Message is one CoAP message.
type Message struct {
	Type  Type
	Code  Code
	ID    uint16
	Token []byte // at most 8 octets
	// Options stand in ascending order of their numbers; those of one number in
	// the order of their meaning.
	Options Options
	Payload []byte
}

const (
	version    = 1
	marker     = 0xff
	maxToken   = 8
	maxOptions = 64
)

// ErrFormat is wrapped by every error of Parse.
var ErrFormat = errors.New("coap: message format")

// Parse reads a message, which goes on referring to b. It looks at the format only:
// what the options mean is Check's.
//
// When it fails and b begins with the header of a message, the result has its Type and ID,
// for a Reset.
func Parse(b []byte) (Message, error) {
	m := Message{Type: Reset}
	if len(b) < 4 || b[0]>>6 != version {
		// RFC 7252 section 3: unknown versions are ignored in silence.
		return m, fmt.Errorf("%w: no header", ErrFormat)
	}
	m.Type = Type(b[0] >> 4 & 3)
	m.Code = Code(b[1])
	m.ID = binary.BigEndian.Uint16(b[2:])
	tkl := int(b[0] & 15)
	switch {
	case m.Code == Empty && (tkl != 0 || len(b) != 4):
		return m, fmt.Errorf("%w: an empty message that isn't", ErrFormat)
	case tkl > maxToken:
		return m, fmt.Errorf("%w: token of %d octets", ErrFormat, tkl)
	case 4+tkl > len(b):
		return m, fmt.Errorf("%w: token cut off", ErrFormat)
	}
	if tkl > 0 {
		m.Token = b[4 : 4+tkl]
	}
	var err error
	m.Options, m.Payload, err = parseOptions(b[4+tkl:])
	return m, err
}

func parseOptions(b []byte) (options Options, payload []byte, err error) {
	number := 0
	for len(b) > 0 {
		if b[0] == marker {
			if len(b) == 1 {
				return nil, nil, fmt.Errorf("%w: a marker and no payload", ErrFormat)
			}
			return options, b[1:], nil
		}
		if len(options) == maxOptions {
			return nil, nil, fmt.Errorf("%w: more than %d options", ErrFormat, maxOptions)
		}
		delta, length := int(b[0]>>4), int(b[0]&15)
		b = b[1:]
		if delta, b, err = extended(delta, b); err != nil {
			return nil, nil, err
		}
		if length, b, err = extended(length, b); err != nil {
			return nil, nil, err
		}
		if number += delta; number > 0xffff {
			return nil, nil, fmt.Errorf("%w: option number above 65535", ErrFormat)
		}
		if length > len(b) {
			return nil, nil, fmt.Errorf("%w: option %d cut off", ErrFormat, number)
		}
		options = append(options, Option{uint16(number), b[:length:length]})
		b = b[length:]
	}
	return options, nil, nil
}

// extended reads what nibble n of an option's first octet stands for. Each number has
// one form, since the longer ones begin where the shorter end.
func extended(n int, b []byte) (int, []byte, error) {
	switch {
	case n < 13:
		return n, b, nil
	case n == 13 && len(b) >= 1:
		return int(b[0]) + 13, b[1:], nil
	case n == 14 && len(b) >= 2:
		return int(binary.BigEndian.Uint16(b)) + 269, b[2:], nil
	}
	return 0, nil, fmt.Errorf("%w: option header", ErrFormat)
}

// Append appends the message's encoding to b. The message must be one that Parse could
// have returned.
func (m *Message) Append(b []byte) []byte {
	b = append(b, version<<6|byte(m.Type)<<4|byte(len(m.Token)), byte(m.Code))
	b = binary.BigEndian.AppendUint16(b, m.ID)
	b = append(b, m.Token...)
	last := 0
	for _, o := range m.Options {
		delta := int(o.Number) - last
		last = int(o.Number)
		b = append(b, nibble(delta)<<4|nibble(len(o.Value)))
		b = appendExtended(b, delta)
		b = appendExtended(b, len(o.Value))
		b = append(b, o.Value...)
	}
	if len(m.Payload) > 0 {
		b = append(b, marker)
		b = append(b, m.Payload...)
	}
	return b
}

func nibble(n int) byte {
	switch {
	case n < 13:
		return byte(n)
	case n < 269:
		return 13
	}
	return 14
}

func appendExtended(b []byte, n int) []byte {
	switch {
	case n < 13:
		return b
	case n < 269:
		return append(b, byte(n-13))
	}
	return binary.BigEndian.AppendUint16(b, uint16(n-269))
}
