package suite

import (
	"crypto/cipher"
	"encoding/binary"
	"errors"
)

// A Header is what the protection of a record authenticates beside its
// content (RFC 5246 section 6.2.3.3).
type Header struct {
	// Seq is the record's sequence number; in DTLS the epoch in the upper 16
	// bits and the sequence number in the lower 48 (RFC 6347 section 4.1.2.1).
	Seq     uint64
	Type    uint8
	Version uint16
	// ConnectionID, when not empty, is that of a DTLS record whose Type is
	// tls12_cid (RFC 9146 section 4).
	ConnectionID []byte
}

// append appends the additional data for a fragment of n octets to dst.
func (h Header) append(dst []byte, n int) []byte {
	if len(h.ConnectionID) == 0 {
		dst = binary.BigEndian.AppendUint64(dst, h.Seq)
		dst = append(dst, h.Type)
		dst = binary.BigEndian.AppendUint16(dst, h.Version)
		return binary.BigEndian.AppendUint16(dst, uint16(n))
	}
	// RFC 9146 section 5.3 (5.1 and 5.2 for MACs). The first octets can't be a
	// sequence number, so no record can pass for one of the other kind.
	dst = binary.BigEndian.AppendUint64(dst, 1<<64-1)
	dst = append(dst, h.Type, byte(len(h.ConnectionID)), h.Type)
	dst = binary.BigEndian.AppendUint16(dst, h.Version)
	dst = binary.BigEndian.AppendUint64(dst, h.Seq)
	dst = append(dst, h.ConnectionID...)
	return binary.BigEndian.AppendUint16(dst, uint16(n))
}

// A Protection seals the records of one direction, or opens them. Seal and
// Open may each be called by one goroutine at a time.
type Protection interface {
	// Overhead is by how much a sealed fragment may exceed its plaintext.
	Overhead() int
	// Seal appends the protected fragment to dst.
	Seal(dst []byte, h Header, plaintext []byte) []byte
	// Open decrypts the fragment in place and returns the plaintext within
	// it. Whatever is wrong with a fragment, it returns ErrOpen: the peer must
	// not learn what (RFC 5246 section 6.2.3.2).
	Open(h Header, fragment []byte) ([]byte, error)
}

// ErrOpen says that a record failed authentication or was malformed.
var ErrOpen = errors.New("record failed authentication")

// aeadProtection is GCM (RFC 5288), CCM (RFC 6655) and ChaCha20-Poly1305
// (RFC 7905). The first two send the sequence number as the explicit part of
// the nonce, which makes it unique; the third XORs it into the IV.
type aeadProtection struct {
	aead     cipher.AEAD
	iv       [maxNonce]byte
	explicit int
	// Scratch that would escape to the heap on each record otherwise.
	nonce [maxNonce]byte
	ad    []byte
}

func (p *aeadProtection) Overhead() int { return p.explicit + p.aead.Overhead() }

func (p *aeadProtection) Seal(dst []byte, h Header, plaintext []byte) []byte {
	if p.explicit > 0 {
		dst = binary.BigEndian.AppendUint64(dst, h.Seq)
		p.setNonce(dst[len(dst)-gcmExplicitLen:])
	} else {
		p.setXORNonce(h.Seq)
	}
	p.ad = h.append(p.ad[:0], len(plaintext))
	return p.aead.Seal(dst, p.nonce[:], plaintext, p.ad)
}

func (p *aeadProtection) Open(h Header, fragment []byte) ([]byte, error) {
	n := len(fragment) - p.Overhead()
	if n < 0 {
		return nil, ErrOpen
	}
	if p.explicit > 0 {
		p.setNonce(fragment[:p.explicit])
	} else {
		p.setXORNonce(h.Seq)
	}
	p.ad = h.append(p.ad[:0], n)
	sealed := fragment[p.explicit:]
	plaintext, err := p.aead.Open(sealed[:0], p.nonce[:], sealed, p.ad)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

func (p *aeadProtection) setNonce(explicit []byte) {
	copy(p.nonce[:gcmSaltLen], p.iv[:])
	copy(p.nonce[gcmSaltLen:], explicit)
}

func (p *aeadProtection) setXORNonce(seq uint64) {
	p.nonce = p.iv
	b := p.nonce[maxNonce-8:]
	binary.BigEndian.PutUint64(b, binary.BigEndian.Uint64(b)^seq)
}
