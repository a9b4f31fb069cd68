package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrProtocol is wrapped by the error for a CONNECT of another protocol or
// version than MQTT 3.1.1, which a server answers with UnacceptableProtocol
// before it closes (3.1.2.2).
var ErrProtocol = errors.New("mqtt: protocol is not MQTT 3.1.1")

// errShort is a packet that ends within a field.
var errShort = errors.New("ends early")

// Parse reads a packet from the first octet of its fixed header and all that
// follows the remaining length. The packet shares memory with body. Errors hold
// nothing of the packet's text.
func Parse(first byte, body []byte) (Packet, error) {
	t, flags := Type(first>>4), first&0x0f
	if t != TypePublish && flags != t.flags() {
		return nil, fmt.Errorf("mqtt: %v with reserved flags %#x (2.2.2)", t, flags)
	}
	r := &reader{b: body}
	var p Packet
	switch t {
	case TypeConnect:
		p = r.connect()
	case TypeConnack:
		p = r.connack()
	case TypePublish:
		p = r.publish(flags)
	case TypePuback, TypePubrec, TypePubrel, TypePubcomp, TypeUnsuback:
		p = &Ack{Kind: t, ID: r.id()}
	case TypeSubscribe:
		p = r.subscribe()
	case TypeSuback:
		p = r.suback()
	case TypeUnsubscribe:
		p = r.unsubscribe()
	case TypePingreq, TypePingresp, TypeDisconnect:
		p = Signal(t)
	default:
		return nil, fmt.Errorf("mqtt: packet type %d is reserved (2.2.1)", t)
	}
	if len(r.b) > 0 {
		r.fail(errors.New("has octets after its end"))
	}
	if r.err != nil {
		return nil, fmt.Errorf("mqtt: %v: %w", t, r.err)
	}
	return p, nil
}

// A reader takes fields from the front of b. After the first error it gives
// zero values, and nothing is left in b.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.fail(errShort)
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *reader) octet() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// id reads a packet identifier, which is never 0 (2.3.1).
func (r *reader) id() uint16 {
	id := r.uint16()
	if id == 0 {
		r.fail(errors.New("has packet identifier 0 (2.3.1)"))
	}
	return id
}

func (r *reader) binary() []byte { return r.take(int(r.uint16())) }

// text reads a UTF-8 string (1.5.3).
func (r *reader) text() string {
	b := r.binary()
	if !validText(b) {
		r.fail(errors.New("has a string with invalid UTF-8, or a control or non-character (1.5.3)"))
		return ""
	}
	return string(b)
}

// validText reports whether b is what 1.5.3 lets a string be. Control characters
// and non-characters are those that a sender should not, and so need not, use:
// a receiver may close the connection for them. A log line, and a C string,
// would end at some of them.
func validText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, c := range string(b) {
		if unicode.IsControl(c) || c&0xfffe == 0xfffe || c >= 0xfdd0 && c <= 0xfdef {
			return false
		}
	}
	return true
}

func (r *reader) qos(b byte) byte {
	if b > 2 {
		r.fail(errors.New("has a QoS that does not exist"))
	}
	return b
}

// topic reads a topic name: not empty, and without wildcards (4.7).
func (r *reader) topic() string {
	s := r.text()
	if s == "" || strings.ContainsAny(s, "+#") {
		r.fail(errors.New("has an empty topic name, or one with wildcards (4.7)"))
	}
	return s
}

// filter reads a topic filter: wildcards fill whole levels, and '#' is the last
// (4.7.1).
func (r *reader) filter() string {
	s := r.text()
	if s == "" {
		r.fail(errors.New("has an empty topic filter (4.7.3)"))
	}
	levels := strings.Split(s, "/")
	for i, level := range levels {
		if level == "+" || level == "#" && i == len(levels)-1 {
			continue
		}
		if strings.ContainsAny(level, "+#") {
			r.fail(errors.New("has a topic filter with a misplaced wildcard (4.7.1)"))
		}
	}
	return s
}

// The connect flags (3.1.2.3).
const (
	flagReserved = 1 << iota
	flagCleanSession
	flagWill
	_
	_
	flagWillRetain
	flagPassword
	flagUsername
	flagWillQoS = 3 << 3
)

func (r *reader) connect() Packet {
	// Older and later versions have other names or other levels. Their CONNECT
	// goes on differently, so it is not read further.
	name, level := string(r.binary()), r.octet()
	if r.err == nil && (name != "MQTT" || level != 4) {
		r.fail(ErrProtocol)
	}
	flags := r.octet()
	p := &Connect{CleanSession: flags&flagCleanSession != 0, KeepAlive: r.uint16(), ClientID: r.text()}
	if flags&flagReserved != 0 {
		r.fail(errors.New("has the reserved connect flag (3.1.2.3)"))
	}
	if flags&flagWill != 0 {
		p.Will = &Will{
			QoS:    r.qos(flags & flagWillQoS >> 3),
			Retain: flags&flagWillRetain != 0,
			Topic:  r.topic(), Payload: r.binary(),
		}
	} else if flags&(flagWillQoS|flagWillRetain) != 0 {
		r.fail(errors.New("has flags of a will without a will (3.1.2.6)"))
	}
	if p.HasUsername = flags&flagUsername != 0; p.HasUsername {
		p.Username = r.text()
	}
	if p.HasPassword = flags&flagPassword != 0; p.HasPassword {
		if !p.HasUsername {
			r.fail(errors.New("has a password without a user name (3.1.2.9)"))
		}
		p.Password = r.binary()
	}
	return p
}

func (r *reader) connack() Packet {
	flags, code := r.octet(), ConnackCode(r.octet())
	if flags > 1 || code > NotAuthorized || flags == 1 && code != Accepted {
		r.fail(errors.New("has reserved flags or codes (3.2.2)"))
	}
	return &Connack{SessionPresent: flags == 1, Code: code}
}

func (r *reader) publish(flags byte) Packet {
	p := &Publish{Dup: flags&8 != 0, QoS: r.qos(flags >> 1 & 3), Retain: flags&1 != 0, Topic: r.topic()}
	switch {
	case p.QoS > 0:
		p.ID = r.id()
	case p.Dup:
		r.fail(errors.New("has DUP at QoS 0 (3.3.1.1)"))
	}
	p.Payload = r.take(len(r.b))
	return p
}

func (r *reader) subscribe() Packet {
	p := &Subscribe{ID: r.id()}
	for more := true; more; more = len(r.b) > 0 {
		p.Filters = append(p.Filters, Filter{Topic: r.filter(), QoS: r.qos(r.octet())})
	}
	return p
}

func (r *reader) suback() Packet {
	p := &Suback{ID: r.id(), Codes: r.take(len(r.b))}
	if len(p.Codes) == 0 {
		r.fail(errShort)
	}
	for _, code := range p.Codes {
		if code > 2 && code != SubscribeFailure {
			r.fail(errors.New("has a reserved return code (3.9.3)"))
		}
	}
	return p
}

func (r *reader) unsubscribe() Packet {
	p := &Unsubscribe{ID: r.id()}
	for more := true; more; more = len(r.b) > 0 {
		p.Topics = append(p.Topics, r.filter())
	}
	return p
}
