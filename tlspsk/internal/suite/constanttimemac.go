package suite

import (
	"crypto/sha256"
	"encoding"
	"errors"
	"hash"
)

// maxPadding is the most octets that padding can take, its length octet
// included (RFC 5246 section 6.2.3.2).
const maxPadding = 256

// constantTimeMAC computes HMAC-SHA-256 over a header and a prefix of a buffer
// whose length is secret.
//
// SHA-256 works on blocks of 64 octets. The blocks that certainly lie within
// the message are hashed as they are. For each block that may be the last one
// we build, with masks, what it holds if it is: message, 0x80, zeros, and the
// length; feed it to the hash; and keep the resulting state if it was the last
// one. The state is read with the hash's own state export: after a whole
// number of blocks it is the digest of what was fed.
type constantTimeMAC struct {
	inner, outer []byte // exported states after the padded key's block
	h            hash.Hash
	state        []byte // scratch for exported states
}

const (
	blockLen   = sha256.BlockSize
	blockShift = 6 // a division of a secret would take time that depends on it
	// The exported state starts with a 4-octet tag, then the 8 state words.
	// TestConstantTimeMAC notices if that ever changes.
	stateOffset = 4
)

func newConstantTimeMAC(key []byte) (*constantTimeMAC, error) {
	m := &constantTimeMAC{h: sha256.New()}
	var err error
	if m.inner, err = m.padState(key, 0x36); err != nil {
		return nil, err
	}
	m.outer, err = m.padState(key, 0x5c)
	return m, err
}

// padState returns the state after the key XOR the pad of RFC 2104.
func (m *constantTimeMAC) padState(key []byte, pad byte) ([]byte, error) {
	if len(key) > blockLen {
		return nil, errors.New("MAC key longer than a block")
	}
	var block [blockLen]byte
	copy(block[:], key)
	for i := range block {
		block[i] ^= pad
	}
	m.h.Reset()
	m.h.Write(block[:])
	clear(block[:])
	return m.h.(encoding.BinaryAppender).AppendBinary(nil)
}

func (m *constantTimeMAC) restore(state []byte) {
	if err := m.h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state); err != nil {
		panic("suite: sha256 does not take its own state back: " + err.Error())
	}
}
