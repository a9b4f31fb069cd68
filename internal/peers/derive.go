package peers

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
)

// Export derives what both sides should have exported, from the pre-shared key and the
// recorded handshake alone: RFC 4279 2 (or RFC 5489 2, with the Diffie-Hellman secret z) for the
// premaster secret, RFC 5246 8.1 or RFC 7627 4 for the master secret, RFC 5705 4 for the
// rest. z is nil for plain PSK.
func (h *Handshake) Export(psk, z []byte, label string, length int) []byte {
	newHash := sha256.New
	if h.Suite == 0x00A9 { // the one suite here on SHA-384
		newHash = sha512.New384
	}
	if z == nil {
		z = make([]byte, len(psk))
	}
	premaster := append(vector16(z), vector16(psk)...)
	randoms := append(append([]byte(nil), h.ClientRandom...), h.ServerRandom...)
	masterLabel, seed := "master secret", randoms
	if h.EMS {
		transcript := newHash()
		transcript.Write(h.Transcript)
		masterLabel, seed = "extended master secret", transcript.Sum(nil)
	}
	master := prf(newHash, premaster, masterLabel, seed, 48)
	return prf(newHash, master, label, randoms, length)
}

// SharedSecret works out the ECDHE secret of the recorded handshake from the random octets
// that one side drew while it ran: the private key is the run of 32 of them that belongs to a
// public key on the wire. It fails for plain PSK, and when that side got its key elsewhere.
func (h *Handshake) SharedSecret(drawn []byte) ([]byte, error) {
	curve := map[uint16]ecdh.Curve{29: ecdh.X25519(), 23: ecdh.P256()}[h.Curve]
	if curve == nil {
		return nil, errors.New("no ECDHE on a curve known here")
	}
	for at := 0; at+32 <= len(drawn); at++ {
		private, err := curve.NewPrivateKey(drawn[at : at+32])
		if err != nil {
			continue
		}
		own, other := private.PublicKey().Bytes(), h.ServerPoint
		if bytes.Equal(own, h.ServerPoint) {
			other = h.ClientPoint
		} else if !bytes.Equal(own, h.ClientPoint) {
			continue
		}
		public, err := curve.NewPublicKey(other)
		if err != nil {
			return nil, err
		}
		return private.ECDH(public)
	}
	return nil, errors.New("no private key among the octets drawn")
}

func vector16(b []byte) []byte {
	return append([]byte{byte(len(b) >> 8), byte(len(b))}, b...)
}

// prf is the PRF of RFC 5246 5.
func prf(newHash func() hash.Hash, secret []byte, label string, seed []byte, length int) []byte {
	mac := func(parts ...[]byte) []byte {
		m := hmac.New(newHash, secret)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	labelled := append([]byte(label), seed...)
	var out []byte
	for a := mac(labelled); len(out) < length; a = mac(a) {
		out = append(out, mac(a, labelled)...)
	}
	return out[:length]
}
