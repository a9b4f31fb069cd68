package wire

import "golang.org/x/crypto/cryptobyte"

// namedCurve is the only way left of naming a group (RFC 8422 section 5.4).
const namedCurve = 3

// A HelloVerifyRequest asks a DTLS client to come again with the cookie
// (RFC 6347 section 4.2.1).
type HelloVerifyRequest struct {
	Version uint16
	Cookie  []byte
}

// Parse reads the body of a HelloVerifyRequest.
func (m *HelloVerifyRequest) Parse(body []byte) error {
	s := cryptobyte.String(body)
	if !s.ReadUint16(&m.Version) || !readUint8Prefixed(&s, &m.Cookie) || !s.Empty() {
		return ErrMalformed
	}
	return nil
}

// Append appends the body of the HelloVerifyRequest to dst. The cookie must
// be shorter than 256 octets.
func (m *HelloVerifyRequest) Append(dst []byte) []byte {
	dst = append(dst, byte(m.Version>>8), byte(m.Version), byte(len(m.Cookie)))
	return append(dst, m.Cookie...)
}

// A ServerKeyExchange carries the identity hint (RFC 4279 section 2) and, for
// ECDHE_PSK, the server's ephemeral key (RFC 5489 section 2).
type ServerKeyExchange struct {
	Hint      []byte
	Group     uint16
	PublicKey []byte
}

// Parse reads the body of a ServerKeyExchange.
func (m *ServerKeyExchange) Parse(body []byte, ecdhe bool) error {
	*m = ServerKeyExchange{}
	s := cryptobyte.String(body)
	if !readUint16Prefixed(&s, &m.Hint) {
		return ErrMalformed
	}
	if ecdhe {
		var curveType uint8
		if !s.ReadUint8(&curveType) || curveType != namedCurve ||
			!s.ReadUint16(&m.Group) || !readUint8Prefixed(&s, &m.PublicKey) || len(m.PublicKey) == 0 {
			return ErrMalformed
		}
	}
	if !s.Empty() {
		return ErrMalformed
	}
	return nil
}

// Marshal returns the body of the ServerKeyExchange.
func (m *ServerKeyExchange) Marshal(ecdhe bool) []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, 80))
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Hint) })
	if ecdhe {
		b.AddUint8(namedCurve)
		b.AddUint16(m.Group)
		addUint8Prefixed(b, m.PublicKey)
	}
	return b.BytesOrPanic()
}

// A ClientKeyExchange carries the identity and, for ECDHE_PSK, the client's
// ephemeral key.
type ClientKeyExchange struct {
	Identity  []byte
	PublicKey []byte
}

// Parse reads the body of a ClientKeyExchange.
func (m *ClientKeyExchange) Parse(body []byte, ecdhe bool) error {
	*m = ClientKeyExchange{}
	s := cryptobyte.String(body)
	if !readUint16Prefixed(&s, &m.Identity) {
		return ErrMalformed
	}
	if ecdhe && (!readUint8Prefixed(&s, &m.PublicKey) || len(m.PublicKey) == 0) {
		return ErrMalformed
	}
	if !s.Empty() {
		return ErrMalformed
	}
	return nil
}

// Marshal returns the body of the ClientKeyExchange.
func (m *ClientKeyExchange) Marshal(ecdhe bool) []byte {
	b := cryptobyte.NewBuilder(make([]byte, 0, 3+len(m.Identity)+80))
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(m.Identity) })
	if ecdhe {
		addUint8Prefixed(b, m.PublicKey)
	}
	return b.BytesOrPanic()
}
