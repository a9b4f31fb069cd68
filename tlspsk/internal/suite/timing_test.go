package suite

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding"
	"fmt"
	"hash"
	"slices"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/timing"
)

// variants is how many inputs of each class there are, so that a class is not
// known by an accident of one input.
const variants = 64

// inputs holds the inputs of both classes.
type inputs [2][variants][]byte

// examine measures op on copies of the inputs at one and the same place.
func examine(t *testing.T, in *inputs, op func(input []byte)) {
	t.Helper()
	next := 0
	buf := make([]byte, len(in[0][0]))
	v := timing.Examine(20_000, func(class int) time.Duration {
		next = (next + 1) % variants
		copy(buf, in[class][next])
		begin := time.Now()
		op(buf)
		return time.Since(begin)
	})
	if v.Leaks() {
		t.Errorf("the time tells the classes apart: %v", v)
	} else {
		t.Log(v)
	}
}

// A body makes what a forger may make a record decrypt to.
type body func(size int) []byte

// withPadding is a body that ends with n octets of right padding, and random
// octets where the MAC would be.
func withPadding(n int) body {
	return func(size int) []byte {
		b := randomBody(size)
		copy(b[size-n:], bytes.Repeat([]byte{byte(n - 1)}, n))
		if n < size && b[size-n-1] == byte(n-1) {
			b[size-n-1]++ // the padding ends here
		}
		return b
	}
}

// wrongPadding is a body whose last octet announces n octets of padding, of
// which the one before the last is wrong.
func wrongPadding(n int) body {
	return func(size int) []byte {
		b := withPadding(n)(size)
		b[size-2] ^= 1
		return b
	}
}

func randomBody(size int) []byte {
	b := make([]byte, size)
	rand.Read(b)
	return b
}

// TestTiming: a record that does not authenticate takes one and the same time,
// whatever it decrypts to.
func TestTiming(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements are left out with -short")
	}
	for _, c := range []struct {
		name    string
		size    int // of the decrypted record, without the IV
		classes [2]body
	}{
		// Vaudenay 2002: whether the padding is right.
		{"padding right or wrong", 320, [2]body{withPadding(256), wrongPadding(256)}},
		// Canvel et al. 2003: how long it is.
		{"padding of 1 or 256", 320, [2]body{withPadding(1), withPadding(256)}},
		// Lucky Thirteen, 2013: whether the hash takes one block more or less.
		// It takes 13 octets of header, 240 less the padding of this record, and
		// 9 of its own: 4 blocks with 6 octets of padding, 5 with fewer.
		{"one block of the hash more or less", 272, [2]body{withPadding(5), withPadding(6)}},
		{"one block more or less, wrong padding", 272, [2]body{withPadding(32), wrongPadding(32)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, open := pair(t, ByID(PSK_AES_128_CBC_SHA256), false)
			h := Header{Seq: 1, Type: 23, Version: 0x0303}
			var in inputs
			for class, make := range c.classes {
				for i := range in[class] {
					in[class][i] = encrypted(open.(*cbcProtection), make(c.size))
				}
			}
			examine(t, &in, func(fragment []byte) {
				if _, err := open.Open(h, fragment); err == nil {
					t.Fatal("a random record is authentic")
				}
			})
		})
	}
	t.Run("MAC wrong at its first or last octet", testTimingMAC)
	t.Run("Finished wrong at its first or last octet", func(t *testing.T) { testTimingEqual(t, VerifyDataLen) })
	t.Run("MAC compared", func(t *testing.T) { testTimingEqual(t, cbcMACLen) })
}

// encrypted is a record that decrypts to body.
func encrypted(p *cbcProtection, body []byte) []byte {
	fragment := append(randomBody(cbcIVLen), body...)
	cipher.NewCBCEncrypter(p.block, fragment[:cbcIVLen]).CryptBlocks(fragment[cbcIVLen:], body)
	return fragment
}

// testTimingMAC: a forger must not find out how many octets of a MAC are right.
func testTimingMAC(t *testing.T) {
	const size = 64
	for _, etm := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypt-then-MAC=%v", etm), func(t *testing.T) {
			seal, open := pair(t, ByID(PSK_AES_128_CBC_SHA256), etm)
			h := Header{Seq: 1, Type: 23, Version: 0x0303}
			var in inputs
			for class := range in {
				for i := range in[class] {
					fragment := seal.Seal(nil, h, randomBody(size))
					spoil := 0 // the MAC's first octet
					if class == 1 {
						spoil = cbcMACLen - 1
					}
					if etm {
						fragment[len(fragment)-cbcMACLen+spoil] ^= 1
					} else {
						p := open.(*cbcProtection)
						plain := bytes.Clone(fragment[cbcIVLen:])
						cipher.NewCBCDecrypter(p.block, fragment[:cbcIVLen]).CryptBlocks(plain, plain)
						plain[size+spoil] ^= 1
						fragment = encrypted(p, plain)
					}
					in[class][i] = fragment
				}
			}
			examine(t, &in, func(fragment []byte) {
				if _, err := open.Open(h, fragment); err == nil {
					t.Fatal("a spoiled record is authentic")
				}
			})
		})
	}
}

// testTimingEqual is about the comparison by which Finished messages and MACs
// are checked, for values of n octets. It is so short that it is done many
// times for one measurement.
func testTimingEqual(t *testing.T, n int) {
	const times = 64
	want := randomBody(n)
	var in inputs
	for class := range in {
		for i := range in[class] {
			got := bytes.Clone(want)
			got[class*(n-1)] ^= byte(1 + i)
			in[class][i] = got
		}
	}
	examine(t, &in, func(got []byte) {
		for range times {
			if Equal(got, want) != 0 {
				t.Fatal("what differs is equal")
			}
		}
	})
}

// TestTimingAEAD: a forger must not find out how many octets of a tag are right.
// The ciphers are others' code, which no leaky build replaces.
func TestTimingAEAD(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements are left out with -short")
	}
	for _, id := range Preferred() {
		s := ByID(id)
		if s.CBC() || s.ECDHE {
			continue
		}
		t.Run(s.Name, func(t *testing.T) {
			seal, open := pair(t, s, false)
			h := Header{Seq: 1, Type: 23, Version: 0x0303}
			var in inputs
			for class := range in {
				for i := range in[class] {
					fragment := seal.Seal(nil, h, randomBody(16))
					tag := len(fragment) - (seal.Overhead() - s.explicit)
					if class == 1 {
						tag = len(fragment) - 1
					}
					fragment[tag] ^= 1
					in[class][i] = fragment
				}
			}
			examine(t, &in, func(fragment []byte) {
				if _, err := open.Open(h, fragment); err == nil {
					t.Fatal("a spoiled record is authentic")
				}
			})
		})
	}
}

// TestSameWork needs no clock: the hash is given the same amounts in the same
// steps, whatever the padding.
func TestSameWork(t *testing.T) {
	key := bytes.Repeat([]byte{7}, cbcMACKey)
	for size := 48; size <= 48+320; size += aes.BlockSize {
		var first []string
		for pad := 0; pad <= min(maxPadding, size-cbcMACLen); pad++ {
			m, err := newConstantTimeMAC(key)
			if err != nil {
				t.Fatal(err)
			}
			watched := &watchedHash{Hash: m.h}
			m.h = watched
			var out [cbcMACLen]byte
			m.sum(&out, make([]byte, 13), make([]byte, size), size-cbcMACLen-pad)
			if pad == 0 {
				first = watched.steps
			} else if !slices.Equal(first, watched.steps) {
				t.Fatalf("record of %d octets: with %d octets of padding the hash's work is\n%v\nand without\n%v", size, pad, watched.steps, first)
			}
		}
	}
}

// TestSameWorkForAnyKey: the hash's work for a master secret does not depend on
// the length of the pre-shared key.
func TestSameWorkForAnyKey(t *testing.T) {
	for _, id := range Preferred() {
		watched := *ByID(id)
		var compressions int
		original := watched.hash
		watched.hash = func() hash.Hash { return &countingHash{Hash: original(), total: &compressions} }
		work := func(n int) int {
			compressions = 0
			var shared []byte
			if watched.ECDHE {
				shared = make([]byte, 32)
			}
			premaster := PremasterSecret(make([]byte, n), shared)
			watched.MasterSecret(premaster, make([]byte, 32), nil, nil)
			return compressions
		}
		for n := 1; n <= longestPSK; n++ {
			if got, want := work(n), work(longestPSK); got != want || got == 0 {
				t.Errorf("%s: %d blocks for a key of %d octets, %d for one of %d", watched.Name, got, n, want, longestPSK)
			}
		}
		if work(4*longestPSK) <= work(longestPSK) {
			t.Errorf("%s: a key of %d octets takes no more: this test sees nothing", watched.Name, 4*longestPSK)
		}
	}
}

// A countingHash counts the blocks that a hash goes through.
type countingHash struct {
	hash.Hash
	written int // since Reset
	total   *int
}

func (h *countingHash) Reset() {
	h.Hash.Reset()
	h.written = 0
}

func (h *countingHash) Write(b []byte) (int, error) {
	size := h.BlockSize()
	*h.total += (h.written+len(b))/size - h.written/size
	h.written += len(b)
	return h.Hash.Write(b)
}

func (h *countingHash) Sum(b []byte) []byte {
	size := h.BlockSize()
	*h.total += (h.written%size+size/8)/size + 1
	return h.Hash.Sum(b)
}

// A watchedHash notes what is asked of a hash.
type watchedHash struct {
	hash.Hash
	steps []string
}

func (h *watchedHash) note(format string, args ...any) {
	h.steps = append(h.steps, fmt.Sprintf(format, args...))
}

func (h *watchedHash) Write(b []byte) (int, error) {
	h.note("write %d", len(b))
	return h.Hash.Write(b)
}

func (h *watchedHash) Sum(b []byte) []byte {
	h.note("sum")
	return h.Hash.Sum(b)
}

func (h *watchedHash) AppendBinary(b []byte) ([]byte, error) {
	h.note("state")
	return h.Hash.(encoding.BinaryAppender).AppendBinary(b)
}

func (h *watchedHash) UnmarshalBinary(b []byte) error {
	h.note("restore")
	return h.Hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(b)
}

// TestLeakyBuild: with naive code in the place of constanttime.go the tests of
// timing fail, every one.
func TestLeakyBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements are left out with -short")
	}
	timing.CheckLeakyBuild(t, "maf_leaky_records", "TestTiming", "TestSameWork")
}
