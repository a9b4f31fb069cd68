package peers

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A Handshake is what a full PSK handshake showed on the wire, read by a parser that shares
// nothing with the engine under test.
type Handshake struct {
	Suite                      uint16
	ClientRandom, ServerRandom []byte
	EMS, EtM                   bool   // what the ServerHello agreed to
	ServerName                 string // of the ClientHello
	Identity                   []byte
	Curve                      uint16         // of the ServerKeyExchange; 0: none
	ServerPoint, ClientPoint   []byte         // ephemeral public keys
	Transcript                 []byte         // ClientHello to ClientKeyExchange, as RFC 7627 hashes them
	Fragmented                 map[uint8]bool // DTLS: message types that came in more than one piece
}

// Handshake message types and extension numbers.
const (
	ClientHello       = 1
	ServerHello       = 2
	ServerKeyExchange = 12
	ServerHelloDone   = 14
	ClientKeyExchange = 16

	extServerName           = 0
	extEncryptThenMAC       = 22
	extExtendedMasterSecret = 23
)

// ReadHandshake reads the handshake out of what a relay recorded.
func ReadHandshake(network string, chunks []Chunk) (*Handshake, error) {
	h := &Handshake{Fragmented: make(map[uint8]bool)}
	var messages map[uint8][]byte
	var err error
	if network == "tcp" {
		messages, err = streamMessages(chunks)
	} else {
		messages, err = h.datagramMessages(chunks)
	}
	if err != nil {
		return nil, err
	}
	for _, kind := range []uint8{ClientHello, ServerHello, ServerKeyExchange, ServerHelloDone, ClientKeyExchange} {
		h.Transcript = append(h.Transcript, messages[kind]...)
	}
	header := 4
	if network == "udp" {
		header = 12
	}
	body := func(kind uint8) *reader {
		m := messages[kind]
		if len(m) < header {
			return &reader{bad: true}
		}
		return &reader{rest: m[header:]}
	}
	if !h.readClientHello(network, body(ClientHello)) || !h.readServerHello(body(ServerHello)) {
		return nil, errors.New("hellos missing or malformed")
	}
	if messages[ServerKeyExchange] != nil && !h.readServerKeyExchange(body(ServerKeyExchange)) {
		return nil, errors.New("malformed ServerKeyExchange")
	}
	if !h.readClientKeyExchange(body(ClientKeyExchange)) {
		return nil, errors.New("ClientKeyExchange missing or malformed")
	}
	return h, nil
}

// streamMessages joins each direction's handshake records up to its ChangeCipherSpec, and cuts
// them into messages.
func streamMessages(chunks []Chunk) (map[uint8][]byte, error) {
	messages := make(map[uint8][]byte)
	for _, fromClient := range []bool{true, false} {
		var stream, handshake []byte
		for _, c := range chunks {
			if c.FromClient == fromClient {
				stream = append(stream, c.Data...)
			}
		}
		for len(stream) >= 5 && stream[0] == 22 {
			n := 5 + int(binary.BigEndian.Uint16(stream[3:]))
			if n > len(stream) {
				return nil, errors.New("record cut short")
			}
			handshake = append(handshake, stream[5:n]...)
			stream = stream[n:]
		}
		for len(handshake) >= 4 {
			n := 4 + int(binary.BigEndian.Uint32(handshake)&0xffffff)
			if n > len(handshake) {
				return nil, errors.New("message cut short")
			}
			messages[handshake[0]] = handshake[:n]
			handshake = handshake[n:]
		}
	}
	return messages, nil
}

// datagramMessages puts together the messages of epoch 0. The first ClientHello and the
// HelloVerifyRequest are no part of the transcript (RFC 6347 4.2.1): the second ClientHello
// takes the first one's place. Each message gets the header it has in one piece, as the
// transcript wants it (4.2.6).
func (h *Handshake) datagramMessages(chunks []Chunk) (map[uint8][]byte, error) {
	messages := make(map[uint8][]byte)
	missing := make(map[uint8]map[int]bool) // offsets not seen yet, by message type
	for _, c := range chunks {
		for data := c.Data; len(data) >= 13; {
			n := 13 + int(binary.BigEndian.Uint16(data[11:]))
			if n > len(data) {
				return nil, errors.New("record cut short")
			}
			kind, epoch, record := data[0], binary.BigEndian.Uint16(data[3:]), data[13:n]
			data = data[n:]
			for kind == 22 && epoch == 0 && len(record) >= 12 {
				var f fragment
				if f, record = readFragment(record); f.body == nil {
					return nil, errors.New("fragment cut short")
				}
				m := messages[f.kind]
				if m == nil || binary.BigEndian.Uint16(m[4:]) < f.number {
					m = f.whole()
					messages[f.kind] = m
					missing[f.kind] = make(map[int]bool)
					for i := range f.length {
						missing[f.kind][i] = true
					}
				}
				if binary.BigEndian.Uint16(m[4:]) != f.number || len(m) != 12+f.length {
					continue // an older one, sent again
				}
				copy(m[12+f.offset:], f.body)
				for i := range f.body {
					delete(missing[f.kind], f.offset+i)
				}
				if len(f.body) < f.length {
					h.Fragmented[f.kind] = true
				}
			}
		}
	}
	for kind := range messages {
		if len(missing[kind]) > 0 {
			return nil, fmt.Errorf("message of type %d is not whole", kind)
		}
	}
	return messages, nil
}

// fragment is a piece of a DTLS handshake message.
type fragment struct {
	kind           uint8
	number         uint16
	length, offset int
	body           []byte
}

func readFragment(record []byte) (f fragment, rest []byte) {
	f.kind = record[0]
	f.length = int(binary.BigEndian.Uint32(record) & 0xffffff)
	f.number = binary.BigEndian.Uint16(record[4:])
	f.offset = int(binary.BigEndian.Uint32(record[5:]) & 0xffffff)
	n := int(binary.BigEndian.Uint32(record[8:]) & 0xffffff)
	if n > len(record)-12 || f.offset+n > f.length {
		return f, nil
	}
	f.body = record[12 : 12+n]
	return f, record[12+n:]
}

// whole makes room for the message, under the header that it has when it comes in one piece.
func (f fragment) whole() []byte {
	m := make([]byte, 12+f.length)
	binary.BigEndian.PutUint32(m, uint32(f.kind)<<24|uint32(f.length))
	binary.BigEndian.PutUint16(m[4:], f.number)
	binary.BigEndian.PutUint32(m[8:], uint32(f.length)) // also zeroes the offset's last octet, which is zero
	return m
}

func (h *Handshake) readClientHello(network string, r *reader) bool {
	r.take(2)
	h.ClientRandom = r.take(32)
	r.vector(1)
	if network == "udp" {
		r.vector(1) // cookie
	}
	r.vector(2)
	r.vector(1)
	for kind, data := range r.extensions() {
		if kind == extServerName {
			list := &reader{rest: data}
			list.take(3) // list length, host_name
			h.ServerName = string(list.vector(2))
		}
	}
	return !r.bad
}

func (h *Handshake) readServerHello(r *reader) bool {
	r.take(2)
	h.ServerRandom = r.take(32)
	r.vector(1)
	h.Suite = r.uint16()
	r.take(1)
	extensions := r.extensions()
	_, h.EMS = extensions[extExtendedMasterSecret]
	_, h.EtM = extensions[extEncryptThenMAC]
	return !r.bad
}

func (h *Handshake) readServerKeyExchange(r *reader) bool {
	r.vector(2) // identity hint
	if len(r.rest) > 0 {
		r.take(1) // named_curve
		h.Curve = r.uint16()
		h.ServerPoint = r.vector(1)
	}
	return !r.bad
}

func (h *Handshake) readClientKeyExchange(r *reader) bool {
	h.Identity = r.vector(2)
	if len(r.rest) > 0 {
		h.ClientPoint = r.vector(1)
	}
	return !r.bad
}

// reader takes a message apart; once it lacks octets it stays bad.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return make([]byte, min(n, 64))
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) uint16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }

// vector reads a length of n octets, and as many octets as it says.
func (r *reader) vector(n int) []byte {
	size := 0
	for _, b := range r.take(n) {
		size = size<<8 | int(b)
	}
	return r.take(size)
}

func (r *reader) extensions() map[uint16][]byte {
	found := make(map[uint16][]byte)
	if len(r.rest) == 0 {
		return found
	}
	list := &reader{rest: r.vector(2)}
	for len(list.rest) > 0 && !list.bad {
		kind := list.uint16()
		found[kind] = list.vector(2)
	}
	r.bad = r.bad || list.bad
	return found
}
