// Package wire encodes and parses the records and handshake messages of TLS
// 1.2 (RFC 5246) and DTLS 1.2 (RFC 6347), as far as pre-shared keys need them.
//
// Parsers refuse trailing octets, duplicate extensions and lengths that do not
// fit, and keep slices of their input rather than copies.
package wire

import (
	"errors"

	"golang.org/x/crypto/cryptobyte"
)

// Protocol versions on the wire.
const (
	VersionTLS12  uint16 = 0x0303
	VersionDTLS10 uint16 = 0xfeff // in the record header of a DTLS ClientHello
	VersionDTLS12 uint16 = 0xfefd
)

// A ContentType is the type of a record (RFC 5246 section 6.2.1).
type ContentType = uint8

// The content types.
const (
	ChangeCipherSpec ContentType = 20
	Alert            ContentType = 21
	Handshake        ContentType = 22
	ApplicationData  ContentType = 23
	ConnectionID     ContentType = 25 // tls12_cid, RFC 9146 section 4
)

// A MessageType is the type of a handshake message (RFC 5246 section 7.4).
type MessageType = uint8

// The handshake message types.
const (
	TypeHelloRequest       MessageType = 0
	TypeClientHello        MessageType = 1
	TypeServerHello        MessageType = 2
	TypeHelloVerifyRequest MessageType = 3
	TypeServerKeyExchange  MessageType = 12
	TypeServerHelloDone    MessageType = 14
	TypeClientKeyExchange  MessageType = 16
	TypeFinished           MessageType = 20
)

// Lengths of headers and limits of records.
const (
	RecordHeaderLen     = 5  // TLS
	DTLSRecordHeaderLen = 13 // RFC 6347 section 4.1
	HeaderLen           = 4  // of a TLS handshake message
	DTLSHeaderLen       = 12 // of a DTLS handshake message or fragment
	RandomLen           = 32
	MaxPlaintext        = 1 << 14       // octets in a record, RFC 5246 section 6.2.1
	MaxCiphertext       = 1<<14 + 1<<11 // section 6.2.3
)

// ErrMalformed says that a message does not parse.
var ErrMalformed = errors.New("malformed message")

// ErrDuplicateExtension says that a hello has two extensions of one type,
// which RFC 5246 section 7.4.1.4 forbids.
var ErrDuplicateExtension = errors.New("extension repeated")

// readUint8Prefixed reads a vector with a one-octet length as a []byte.
func readUint8Prefixed(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint8LengthPrefixed((*cryptobyte.String)(out))
}

// readUint16Prefixed reads a vector with a two-octet length as a []byte.
func readUint16Prefixed(s *cryptobyte.String, out *[]byte) bool {
	return s.ReadUint16LengthPrefixed((*cryptobyte.String)(out))
}
