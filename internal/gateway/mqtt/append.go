package mqtt

import (
	"encoding/binary"
	"errors"
	"math"
)

// maxRemaining is the largest remaining length that there is (2.2.3).
const maxRemaining = 1<<28 - 1

// Append appends the encoding of p to b. It fails, and returns b as it was, when
// a text is too long for its length field. It does not look for what else
// the standard forbids: a packet is as good as its fields.
func Append(b []byte, p Packet) ([]byte, error) {
	if tooLong(p) {
		return b, errors.New("mqtt: a field of " + p.Type().String() + " is longer than its length field can say")
	}
	body := p.appendBody(nil)
	if len(body) > maxRemaining {
		return b, errors.New("mqtt: " + p.Type().String() + " is longer than the protocol allows")
	}
	b = append(b, firstOctet(p))
	b = appendRemaining(b, len(body))
	return append(b, body...), nil
}

func firstOctet(p Packet) byte {
	flags := p.Type().flags()
	if p, ok := p.(*Publish); ok {
		flags = p.QoS<<1 | bit(p.Dup, 8) | bit(p.Retain, 1)
	}
	return byte(p.Type())<<4 | flags
}

// appendRemaining appends a remaining length in its shortest form (2.2.3).
func appendRemaining(b []byte, n int) []byte {
	for ; n > 0x7f; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// tooLong reports whether a text of p does not fit its two octets of length.
func tooLong(p Packet) bool {
	long := func(s string) bool { return len(s) > math.MaxUint16 }
	switch p := p.(type) {
	case *Connect:
		return long(p.ClientID) || long(p.Username) || len(p.Password) > math.MaxUint16 ||
			p.Will != nil && (long(p.Will.Topic) || len(p.Will.Payload) > math.MaxUint16)
	case *Publish:
		return long(p.Topic)
	case *Subscribe:
		for _, f := range p.Filters {
			if long(f.Topic) {
				return true
			}
		}
	case *Unsubscribe:
		for _, t := range p.Topics {
			if long(t) {
				return true
			}
		}
	}
	return false
}

func bit(set bool, value byte) byte {
	if set {
		return value
	}
	return 0
}

func appendText[T string | []byte](b []byte, s T) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func (p *Connect) appendBody(b []byte) []byte {
	flags := bit(p.CleanSession, flagCleanSession) | bit(p.HasUsername, flagUsername) | bit(p.HasPassword, flagPassword)
	if p.Will != nil {
		flags |= flagWill | p.Will.QoS<<3 | bit(p.Will.Retain, flagWillRetain)
	}
	b = append(appendText(b, "MQTT"), 4, flags)
	b = binary.BigEndian.AppendUint16(b, p.KeepAlive)
	b = appendText(b, p.ClientID)
	if p.Will != nil {
		b = appendText(b, p.Will.Topic)
		b = appendText(b, p.Will.Payload)
	}
	if p.HasUsername {
		b = appendText(b, p.Username)
	}
	if p.HasPassword {
		b = appendText(b, p.Password)
	}
	return b
}

func (p *Connack) appendBody(b []byte) []byte {
	return append(b, bit(p.SessionPresent, 1), byte(p.Code))
}

func (p *Publish) appendBody(b []byte) []byte {
	b = appendText(b, p.Topic)
	if p.QoS > 0 {
		b = binary.BigEndian.AppendUint16(b, p.ID)
	}
	return append(b, p.Payload...)
}

func (p *Ack) appendBody(b []byte) []byte { return binary.BigEndian.AppendUint16(b, p.ID) }

func (p *Subscribe) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, p.ID)
	for _, f := range p.Filters {
		b = append(appendText(b, f.Topic), f.QoS)
	}
	return b
}

func (p *Suback) appendBody(b []byte) []byte {
	return append(binary.BigEndian.AppendUint16(b, p.ID), p.Codes...)
}

func (p *Unsubscribe) appendBody(b []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, p.ID)
	for _, t := range p.Topics {
		b = appendText(b, t)
	}
	return b
}

func (Signal) appendBody(b []byte) []byte { return b }
