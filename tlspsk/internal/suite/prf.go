package suite

import (
	"crypto/hmac"
	"encoding/binary"
	"hash"
)

// Lengths fixed by RFC 5246.
const (
	MasterSecretLen = 48 // section 8.1
	VerifyDataLen   = 12 // section 7.4.9
	RandomLen       = 32 // section 7.4.1.2
)

// A PRF is the pseudorandom function of RFC 5246 section 5 under one secret.
// Keeping it keyed saves two hash blocks on every use. It is not safe for
// concurrent use.
type PRF struct {
	mac hash.Hash
	a   []byte // A(i)
	buf []byte // the last, partly used block
}

// NewPRF returns the suite's PRF keyed with secret.
func (s *Suite) NewPRF(secret []byte) *PRF {
	mac := hmac.New(s.hash, secret)
	b := make([]byte, 2*mac.Size())
	return &PRF{mac: mac, a: b[:0:mac.Size()], buf: b[mac.Size():mac.Size()]}
}

// Expand fills out with P_hash(secret, label || seed...).
func (p *PRF) Expand(out []byte, label string, seed ...[]byte) {
	write := func() {
		p.mac.Write([]byte(label))
		for _, s := range seed {
			p.mac.Write(s)
		}
	}
	p.mac.Reset()
	write()
	p.a = p.mac.Sum(p.a[:0])
	for len(out) > 0 {
		p.mac.Reset()
		p.mac.Write(p.a)
		write()
		p.buf = p.mac.Sum(p.buf[:0])
		n := copy(out, p.buf)
		if out = out[n:]; len(out) == 0 {
			break
		}
		p.mac.Reset()
		p.mac.Write(p.a)
		p.a = p.mac.Sum(p.a[:0])
	}
	clear(p.a)
	clear(p.buf)
}

// PremasterSecret builds the premaster secret of RFC 4279 section 2. For plain
// PSK other is nil, and as many zero octets as the key has stand in its place;
// for ECDHE_PSK (RFC 5489 section 2) it is the ECDH shared secret. The caller
// wipes the result.
func PremasterSecret(psk, other []byte) []byte {
	n := len(other)
	if other == nil {
		n = len(psk)
	}
	b := make([]byte, 0, 4+n+len(psk))
	b = binary.BigEndian.AppendUint16(b, uint16(n))
	if other == nil {
		b = append(b, make([]byte, n)...)
	} else {
		b = append(b, other...)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(psk)))
	return append(b, psk...)
}

// MasterSecret derives the master secret: from the session hash when that is
// given (the extended master secret, RFC 7627 section 4), and otherwise from
// the two randoms (RFC 5246 section 8.1).
func (s *Suite) MasterSecret(premaster, sessionHash, clientRandom, serverRandom []byte) []byte {
	out := make([]byte, MasterSecretLen)
	key := s.hmacKey(premaster)
	defer clear(key[:cap(key)])
	prf := s.NewPRF(key)
	if sessionHash != nil {
		prf.Expand(out, "extended master secret", sessionHash)
	} else {
		prf.Expand(out, "master secret", clientRandom, serverRandom)
	}
	return out
}

// longestPSK is the length in octets up to which the time of a handshake does
// not depend on that of the pre-shared key.
const longestPSK = 64

// hmacKey returns the key of one block or less that HMAC makes of premaster, after
// hashing as many blocks as for the longest one. The caller wipes it, up to its
// capacity.
//
// HMAC hashes keys that are longer than a block, and no others (RFC 2104
// section 3). Left to itself, it would make the time of a handshake tell the
// length of the client's key, and so tell clients from identities that do not
// exist, for which a server takes a key of some length of its own.
func (s *Suite) hmacKey(premaster []byte) []byte {
	h := s.hash()
	block := make([]byte, h.BlockSize())
	// Behind what it hashes, the hash needs room for one octet and for the
	// length, which is an eighth of a block.
	blocks := func(n int) int { return (n+len(block)/8)/len(block) + 1 }
	for range blocks(4+2*longestPSK) - blocks(len(premaster)) {
		h.Write(block)
	}
	h.Reset()
	h.Write(premaster)
	key := h.Sum(make([]byte, 0, len(block)))
	if len(premaster) <= len(block) {
		key = append(key[:0], premaster...)
	}
	// The hash remembers what did not fill a block, even over a Reset.
	h.Reset()
	h.Write(block[:len(block)-1])
	return key
}

// VerifyData computes the content of a Finished message (RFC 5246 section
// 7.4.9) from the hash of the transcript before it.
func VerifyData(master *PRF, client bool, transcript []byte) []byte {
	label := "server finished"
	if client {
		label = "client finished"
	}
	out := make([]byte, VerifyDataLen)
	master.Expand(out, label, transcript)
	return out
}

// Export is the exporter of RFC 5705. A nil context is no context, which is
// not the same as an empty one (section 4).
func Export(master *PRF, out []byte, label string, context, clientRandom, serverRandom []byte) {
	if context == nil {
		master.Expand(out, label, clientRandom, serverRandom)
		return
	}
	var n [2]byte
	binary.BigEndian.PutUint16(n[:], uint16(len(context)))
	master.Expand(out, label, clientRandom, serverRandom, n[:], context)
}

// Protections derives the key block (RFC 5246 section 6.3) and returns the
// protection of the records that the client writes and of those that the
// server writes. The key block itself is wiped.
func (s *Suite) Protections(master *PRF, clientRandom, serverRandom []byte, encryptThenMAC bool) (client, server Protection, err error) {
	block := make([]byte, 2*(s.macLen+s.keyLen+s.ivLen))
	defer clear(block)
	master.Expand(block, "key expansion", serverRandom, clientRandom)
	rest := block
	take := func(n int) []byte {
		b := rest[:n:n]
		rest = rest[n:]
		return b
	}
	clientMAC, serverMAC := take(s.macLen), take(s.macLen)
	clientKey, serverKey := take(s.keyLen), take(s.keyLen)
	clientIV, serverIV := take(s.ivLen), take(s.ivLen)
	if client, err = s.protection(clientMAC, clientKey, clientIV, encryptThenMAC); err != nil {
		return nil, nil, err
	}
	server, err = s.protection(serverMAC, serverKey, serverIV, encryptThenMAC)
	return client, server, err
}

func (s *Suite) protection(mac, key, iv []byte, encryptThenMAC bool) (Protection, error) {
	if s.CBC() {
		return newCBCProtection(mac, key, encryptThenMAC)
	}
	a, err := s.aead(key)
	if err != nil {
		return nil, err
	}
	p := &aeadProtection{aead: a, explicit: s.explicit}
	copy(p.iv[:], iv)
	return p, nil
}
