// Package suite holds the pre-shared-key cipher suites of TLS 1.2 and DTLS 1.2:
// their parameters, the pseudorandom function and key derivation of RFC 5246,
// and the protection of records.
package suite

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"github.com/pion/dtls/v3/pkg/crypto/ccm"
	"golang.org/x/crypto/chacha20poly1305"
)

// The suites' identifiers in the IANA registry.
const (
	PSK_AES_128_GCM_SHA256         uint16 = 0x00A8 // RFC 5487
	PSK_AES_256_GCM_SHA384         uint16 = 0x00A9 // RFC 5487
	PSK_AES_128_CBC_SHA256         uint16 = 0x00AE // RFC 5487
	ECDHE_PSK_AES_128_CBC_SHA256   uint16 = 0xC037 // RFC 5489
	PSK_AES_128_CCM                uint16 = 0xC0A4 // RFC 6655
	PSK_AES_128_CCM_8              uint16 = 0xC0A8 // RFC 6655
	PSK_CHACHA20_POLY1305          uint16 = 0xCCAB // RFC 7905
	ECDHE_PSK_CHACHA20_POLY1305    uint16 = 0xCCAC // RFC 7905
	ECDHE_PSK_AES_128_GCM_SHA256   uint16 = 0xD001 // RFC 8442
	ECDHE_PSK_AES_128_CCM_SHA256   uint16 = 0xD005 // RFC 8442
	maxNonce                              = 12
	gcmSaltLen, gcmExplicitLen            = 4, 8 // RFC 5288 section 3, RFC 6655 section 3
	ccmTagLen, ccm8TagLen                 = 16, 8
	cbcIVLen, cbcMACLen, cbcMACKey        = 16, 32, 32
	chachaIVLen                           = 12 // RFC 7905 section 2
	aes128KeyLen, aes256KeyLen            = 16, 32
)

// A Suite is one cipher suite. Suites are immutable.
type Suite struct {
	ID    uint16
	Name  string // as registered
	ECDHE bool   // ECDHE_PSK key exchange rather than plain PSK

	hash   func() hash.Hash
	macLen int // of the CBC suites; 0 for AEAD
	keyLen int
	ivLen  int // octets of the key block that are the implicit nonce part

	// aead makes the AEAD of one direction; nil for CBC.
	aead func(key []byte) (cipher.AEAD, error)
	// explicit is the number of nonce octets that travel in each record.
	explicit int
}

// CBC reports whether the suite is MAC and block cipher rather than AEAD, so
// that encrypt-then-MAC (RFC 7366) applies to it.
func (s *Suite) CBC() bool { return s.aead == nil }

// NewHash returns a new instance of the hash that the suite's PRF and
// handshake transcript use.
func (s *Suite) NewHash() hash.Hash { return s.hash() }

// ByID returns the suite with this identifier, or nil.
func ByID(id uint16) *Suite {
	switch id {
	case PSK_AES_128_CBC_SHA256:
		return cbc(id, "TLS_PSK_WITH_AES_128_CBC_SHA256", false)
	case PSK_AES_128_CCM_8:
		return ccmSuite(id, "TLS_PSK_WITH_AES_128_CCM_8", false, ccm8TagLen)
	case PSK_AES_128_CCM:
		return ccmSuite(id, "TLS_PSK_WITH_AES_128_CCM", false, ccmTagLen)
	case PSK_AES_128_GCM_SHA256:
		return gcm(id, "TLS_PSK_WITH_AES_128_GCM_SHA256", false, sha256.New, aes128KeyLen)
	case PSK_AES_256_GCM_SHA384:
		return gcm(id, "TLS_PSK_WITH_AES_256_GCM_SHA384", false, sha512.New384, aes256KeyLen)
	case PSK_CHACHA20_POLY1305:
		return chacha(id, "TLS_PSK_WITH_CHACHA20_POLY1305_SHA256", false)
	case ECDHE_PSK_AES_128_CBC_SHA256:
		return cbc(id, "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256", true)
	case ECDHE_PSK_AES_128_GCM_SHA256:
		return gcm(id, "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256", true, sha256.New, aes128KeyLen)
	case ECDHE_PSK_AES_128_CCM_SHA256:
		return ccmSuite(id, "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256", true, ccmTagLen)
	case ECDHE_PSK_CHACHA20_POLY1305:
		return chacha(id, "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256", true)
	}
	return nil
}

// Preferred lists all suites in the order in which we prefer them: forward
// secrecy first, so that a master key stolen later opens no recorded session;
// then AEAD before CBC; the 8-octet tag of CCM_8 last among AEADs.
func Preferred() []uint16 {
	return []uint16{
		ECDHE_PSK_AES_128_GCM_SHA256,
		ECDHE_PSK_CHACHA20_POLY1305,
		ECDHE_PSK_AES_128_CCM_SHA256,
		ECDHE_PSK_AES_128_CBC_SHA256,
		PSK_AES_128_GCM_SHA256,
		PSK_AES_256_GCM_SHA384,
		PSK_CHACHA20_POLY1305,
		PSK_AES_128_CCM,
		PSK_AES_128_CCM_8,
		PSK_AES_128_CBC_SHA256,
	}
}

func cbc(id uint16, name string, ecdhe bool) *Suite {
	// The key block holds no IV: in TLS 1.2 each record carries its own
	// (RFC 5246 section 6.2.3.2).
	return &Suite{ID: id, Name: name, ECDHE: ecdhe, hash: sha256.New,
		macLen: cbcMACLen, keyLen: aes128KeyLen}
}

func gcm(id uint16, name string, ecdhe bool, h func() hash.Hash, keyLen int) *Suite {
	return &Suite{ID: id, Name: name, ECDHE: ecdhe, hash: h,
		keyLen: keyLen, ivLen: gcmSaltLen, explicit: gcmExplicitLen,
		aead: func(key []byte) (cipher.AEAD, error) {
			b, err := aes.NewCipher(key)
			if err != nil {
				return nil, err
			}
			return cipher.NewGCM(b)
		}}
}

func ccmSuite(id uint16, name string, ecdhe bool, tagLen int) *Suite {
	return &Suite{ID: id, Name: name, ECDHE: ecdhe, hash: sha256.New,
		keyLen: aes128KeyLen, ivLen: gcmSaltLen, explicit: gcmExplicitLen,
		aead: func(key []byte) (cipher.AEAD, error) {
			b, err := aes.NewCipher(key)
			if err != nil {
				return nil, err
			}
			return ccm.NewCCM(b, tagLen, maxNonce)
		}}
}

func chacha(id uint16, name string, ecdhe bool) *Suite {
	return &Suite{ID: id, Name: name, ECDHE: ecdhe, hash: sha256.New,
		keyLen: chacha20poly1305.KeySize, ivLen: chachaIVLen, aead: chacha20poly1305.New}
}
