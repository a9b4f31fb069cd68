//go:build !maf_leaky_records

package suite

import (
	"crypto/subtle"
	"encoding"
	"encoding/binary"
)

// Whatever could tell a secret by its time stands in this file: the tests of
// timing put naive code in its place (leaky_test.go, which no program can
// contain), to show that they would notice.
//
// The functions take secrets in ints and compute on them without branches or
// indices that depend on them. Lengths are far below 2^31, so the differences'
// sign bits are right.

// Equal returns 1 when a and b are equal and 0 otherwise, in a time that
// depends on their lengths only.
func Equal(a, b []byte) int { return subtle.ConstantTimeCompare(a, b) }

// ctLess returns all ones when a < b, and 0 otherwise.
func ctLess(a, b int) int { return int(int64(a)-int64(b)) >> 63 }

// ctEq returns all ones when a == b, and 0 otherwise.
func ctEq(a, b int) int {
	x := int64(a ^ b)
	return int(^((x | -x) >> 63))
}

// padding returns the number of octets of padding at the end of body,
// including the length octet, and 1, when every octet of it is right and it
// leaves at least reserve octets before it; otherwise 0 and 0. It reads the
// same octets in any case. Body must be longer than reserve.
func padding(body []byte, reserve int) (n, good int) {
	last := int(body[len(body)-1])
	ok := ^ctLess(len(body)-reserve, last+1)
	for i := range min(maxPadding, len(body)) {
		b := int(body[len(body)-1-i])
		inside := ^ctLess(last, i) // i <= last
		ok &= ^inside | ctEq(b, last)
	}
	return ok & (last + 1), ok & 1
}

// sum computes the MAC over ad and body[:n]. Everything but n's value is
// public: n is known to lie at most maxPadding below len(body)-cbcMACLen.
func (m *constantTimeMAC) sum(out *[cbcMACLen]byte, ad, body []byte, n int) {
	longest := len(ad) + len(body) - cbcMACLen
	shortest := max(len(ad), longest-maxPadding)
	length := len(ad) + n // secret

	m.restore(m.inner)
	whole := shortest / blockLen // blocks that lie within any message
	if n := whole * blockLen; n > 0 {
		m.h.Write(ad[:min(n, len(ad))])
		m.h.Write(body[:max(0, n-len(ad))])
	}
	var bits [8]byte
	binary.BigEndian.PutUint64(bits[:], uint64(blockLen+length)*8)
	last := (length + 8) >> blockShift // index of the block that ends the message; secret
	*out = [cbcMACLen]byte{}
	for j := whole; j <= (longest+8)/blockLen; j++ {
		isLast := ctEq(j, last)
		block := paddedBlock(j, ad, body, length, isLast, &bits)
		m.h.Write(block[:])
		m.state, _ = m.h.(encoding.BinaryAppender).AppendBinary(m.state[:0])
		for i := range out {
			out[i] |= m.state[stateOffset+i] & byte(isLast)
		}
	}
	m.restore(m.outer)
	m.h.Write(out[:])
	m.h.Sum(out[:0])
}

// paddedBlock returns block j of the hash's input when the message is the
// first length octets of ad || body.
func paddedBlock(j int, ad, body []byte, length, isLast int, bits *[8]byte) (block [blockLen]byte) {
	for i := range block {
		pos := j*blockLen + i
		var b byte
		if pos < len(ad) {
			b = ad[pos]
		} else if pos-len(ad) < len(body) {
			b = body[pos-len(ad)]
		}
		b &= byte(ctLess(pos, length))
		b |= 0x80 & byte(ctEq(pos, length))
		if i >= blockLen-len(bits) {
			b |= bits[i-(blockLen-len(bits))] & byte(isLast)
		}
		block[i] = b
	}
	return block
}

// copyMAC copies the MAC at the secret offset n of body. Every octet where the
// MAC may stand is read once, in order; the copy is then rotated into place.
func copyMAC(out *[cbcMACLen]byte, body []byte, n int) {
	start := max(0, len(body)-cbcMACLen-maxPadding)
	var rotated [cbcMACLen]byte
	rotation := 0
	for i := start; i < len(body); i++ {
		slot := (i - start) % cbcMACLen
		inside := ^ctLess(i, n) & ctLess(i, n+cbcMACLen)
		rotated[slot] |= body[i] & byte(inside)
		rotation |= slot & ctEq(i, n)
	}
	for i := range out {
		var b byte
		want := (rotation + i) & (cbcMACLen - 1)
		for slot := range rotated {
			b |= rotated[slot] & byte(ctEq(slot, want))
		}
		out[i] = b
	}
}
