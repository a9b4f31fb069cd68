//go:build maf_leaky_records

package suite

import (
	"bytes"
	"crypto/sha256"
)

// What stands here does the same as constanttime.go, in the way in which one
// would write it without knowing of timing attacks. TestLeakyBuild has the tests
// run with it: those of timing must fail, and nothing else does. It is in a
// test's file so that no program can ever contain it: with the tag, the package
// compiles for its own tests only.

func Equal(a, b []byte) int {
	if len(a) != len(b) {
		return 0
	}
	for i := range a {
		if a[i] != b[i] {
			return 0
		}
	}
	return 1
}

func ctLess(a, b int) int {
	if a < b {
		return -1
	}
	return 0
}

func ctEq(a, b int) int {
	if a == b {
		return -1
	}
	return 0
}

func padding(body []byte, reserve int) (n, good int) {
	last := int(body[len(body)-1])
	if last+1 > len(body)-reserve {
		return 0, 0
	}
	if bytes.Count(body[len(body)-last-1:], []byte{byte(last)}) != last+1 {
		return 0, 0
	}
	return last + 1, 1
}

// sum hashes as much as there is, which is what Lucky Thirteen measures.
func (m *constantTimeMAC) sum(out *[cbcMACLen]byte, ad, body []byte, n int) {
	m.restore(m.inner)
	m.h.Write(ad)
	m.h.Write(body[:n])
	var sum [sha256.Size]byte
	m.h.Sum(sum[:0])
	m.restore(m.outer)
	m.h.Write(sum[:])
	m.h.Sum(out[:0])
}

func copyMAC(out *[cbcMACLen]byte, body []byte, n int) {
	copy(out[:], body[n:])
}
