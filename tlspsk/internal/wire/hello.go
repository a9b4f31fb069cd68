package wire

import (
	"golang.org/x/crypto/cryptobyte"
)

const (
	maxSessionID    = 32
	compressionNull = 0
)

// A ClientHello (RFC 5246 section 7.4.1.2; RFC 6347 section 4.2.1 for the
// cookie).
type ClientHello struct {
	Version      uint16
	Random       []byte
	SessionID    []byte
	Cookie       []byte // DTLS
	CipherSuites []uint16
	// NullCompression says that the list of compression methods has null in
	// it, as it must.
	NullCompression bool
	Extensions
}

// Parse reads the body of a ClientHello. It keeps slices of body.
func (h *ClientHello) Parse(body []byte, dtls bool) error {
	*h = ClientHello{}
	s := cryptobyte.String(body)
	var suites cryptobyte.String
	var compression []byte
	if !h.parsePrefix(&s, dtls) ||
		!s.ReadUint16LengthPrefixed(&suites) || suites.Empty() || !readUint16s(suites, &h.CipherSuites) ||
		!readUint8Prefixed(&s, &compression) || len(compression) == 0 {
		return ErrMalformed
	}
	for _, c := range compression {
		h.NullCompression = h.NullCompression || c == compressionNull
	}
	return parseExtensionBlock(s, &h.Extensions, true)
}

// ParsePrefix reads the fields up to the cookie from what may be the first
// fragment of a DTLS ClientHello only: a server that keeps no state needs no
// more of it.
func (h *ClientHello) ParsePrefix(fragment []byte) error {
	*h = ClientHello{}
	s := cryptobyte.String(fragment)
	if !h.parsePrefix(&s, true) {
		return ErrMalformed
	}
	return nil
}

func (h *ClientHello) parsePrefix(s *cryptobyte.String, dtls bool) bool {
	return s.ReadUint16(&h.Version) && s.ReadBytes(&h.Random, RandomLen) &&
		readUint8Prefixed(s, &h.SessionID) && len(h.SessionID) <= maxSessionID &&
		(!dtls || readUint8Prefixed(s, &h.Cookie))
}

// Marshal returns the body of the ClientHello.
func (h *ClientHello) Marshal(dtls bool) []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, 192))
	b.AddUint16(h.Version)
	b.AddBytes(h.Random)
	addUint8Prefixed(b, h.SessionID)
	if dtls {
		addUint8Prefixed(b, h.Cookie)
	}
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
		for _, id := range h.CipherSuites {
			b.AddUint16(id)
		}
	})
	addUint8Prefixed(b, []byte{compressionNull})
	h.Extensions.append(b, true)
	return b.BytesOrPanic()
}

// A ServerHello (RFC 5246 section 7.4.1.3).
type ServerHello struct {
	Version     uint16
	Random      []byte
	SessionID   []byte
	CipherSuite uint16
	Compression uint8
	Extensions
}

// Parse reads the body of a ServerHello. It keeps slices of body.
func (h *ServerHello) Parse(body []byte) error {
	*h = ServerHello{}
	s := cryptobyte.String(body)
	if !s.ReadUint16(&h.Version) || !s.ReadBytes(&h.Random, RandomLen) ||
		!readUint8Prefixed(&s, &h.SessionID) || len(h.SessionID) > maxSessionID ||
		!s.ReadUint16(&h.CipherSuite) || !s.ReadUint8(&h.Compression) {
		return ErrMalformed
	}
	return parseExtensionBlock(s, &h.Extensions, false)
}

// Marshal returns the body of the ServerHello.
func (h *ServerHello) Marshal() []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, 96))
	b.AddUint16(h.Version)
	b.AddBytes(h.Random)
	addUint8Prefixed(b, h.SessionID)
	b.AddUint16(h.CipherSuite)
	b.AddUint8(h.Compression)
	h.Extensions.append(b, false)
	return b.BytesOrPanic()
}

// parseExtensionBlock reads the rest of a hello: nothing, or one block of
// extensions and nothing behind it.
func parseExtensionBlock(s cryptobyte.String, e *Extensions, fromClient bool) error {
	if s.Empty() {
		return nil
	}
	var block cryptobyte.String
	if !s.ReadUint16LengthPrefixed(&block) || !s.Empty() {
		return ErrMalformed
	}
	return e.parse(block, fromClient)
}

func addUint8Prefixed(b *cryptobyte.Builder, v []byte) {
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
}
