package tlspsk

import (
	"slices"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// assembleAhead is how many messages may arrive ahead of those still missing:
// as many as the longest flight has.
const assembleAhead = 4

// An assembler puts DTLS handshake messages together from their fragments, in
// the order of their message_seq (RFC 6347 section 4.2.2 and 4.2.3).
//
// Anybody can send it fragments before there are keys, so what it holds is
// bounded by what messages may be long, not by what arrives: it keeps copies
// rather than the datagrams around them, and room for a hello only where one can
// come.
type assembler struct {
	next     uint16 // message_seq of the next message
	hadHello bool   // the peer's hello has been read
	held     [assembleAhead]*partialMessage
}

// A partialMessage is a message of which some octets have arrived.
type partialMessage struct {
	raw     []byte // header of the whole message, and body
	have    []byte // a bit for each octet of the body that has arrived
	missing int
}

// add takes one fragment; raw is its header and body together. It reports
// whether the fragment belongs to a message that has been read already, which
// says that the peer repeats its flight. Fragments that make no sense are
// dropped: anybody may have sent them.
func (a *assembler) add(h wire.FragmentHeader, raw []byte) (repeated bool) {
	ahead := int(int16(h.MessageSeq - a.next))
	if ahead < 0 {
		return true
	}
	if ahead >= assembleAhead || checkMessageLength(h.Type, h.Length) != nil ||
		h.Length > maxMessage && (a.hadHello || ahead > 0) {
		return false
	}
	p := a.held[ahead]
	if p == nil && h.Octets == h.Length {
		// The usual case: an unfragmented message stands in its datagram just
		// as the transcript wants it. If it is the next, it is read before the
		// datagram can be a burden.
		if ahead > 0 {
			raw = slices.Clone(raw)
		}
		a.held[ahead] = &partialMessage{raw: raw}
		return false
	}
	if p == nil {
		p = newPartialMessage(h)
		a.held[ahead] = p
	}
	p.add(h, raw[wire.DTLSHeaderLen:])
	return false
}

func newPartialMessage(h wire.FragmentHeader) *partialMessage {
	whole := h
	whole.Offset, whole.Octets = 0, h.Length
	raw := make([]byte, 0, wire.DTLSHeaderLen+h.Length)
	raw = wire.AppendFragmentHeader(raw, whole)
	return &partialMessage{raw: raw[:cap(raw)], have: make([]byte, (h.Length+7)/8), missing: h.Length}
}

func (p *partialMessage) add(h wire.FragmentHeader, body []byte) {
	if p.missing == 0 || h.Type != p.raw[0] || h.Length != len(p.raw)-wire.DTLSHeaderLen {
		return
	}
	// Of octets that arrive twice the first count; the transcript tells if
	// they were forged.
	for i, b := range body {
		at := h.Offset + i
		if bit := byte(1) << (at % 8); p.have[at/8]&bit == 0 {
			p.have[at/8] |= bit
			p.raw[wire.DTLSHeaderLen+at] = b
			p.missing--
		}
	}
}

// pop returns the next message with its header as if it had come in one
// fragment, or nil when it is not complete.
func (a *assembler) pop() []byte {
	p := a.held[0]
	if p == nil || p.missing > 0 {
		return nil
	}
	copy(a.held[:], a.held[1:])
	a.held[assembleAhead-1] = nil
	a.next++
	a.hadHello = a.hadHello || isHello(p.raw[0])
	return p.raw
}

// drop forgets what has been put together of messages to come.
func (a *assembler) drop() { a.held = [assembleAhead]*partialMessage{} }
