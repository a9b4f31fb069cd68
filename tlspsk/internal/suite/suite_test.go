package suite

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
)

// RFC 4279 section 2 and RFC 5489 section 2, spelled out.
func TestPremasterSecret(t *testing.T) {
	psk := []byte{1, 2, 3}
	if got := PremasterSecret(psk, nil); !bytes.Equal(got, []byte{0, 3, 0, 0, 0, 0, 3, 1, 2, 3}) {
		t.Errorf("plain: %x", got)
	}
	if got := PremasterSecret(psk, []byte{9, 8}); !bytes.Equal(got, []byte{0, 2, 9, 8, 0, 3, 1, 2, 3}) {
		t.Errorf("ECDHE: %x", got)
	}
}

// pair returns both ends of one direction.
func pair(t testing.TB, s *Suite, etm bool) (seal, open Protection) {
	t.Helper()
	master := make([]byte, MasterSecretLen)
	rand.Read(master)
	r := make([]byte, RandomLen)
	var err error
	if seal, _, err = s.Protections(s.NewPRF(master), r, r, etm); err != nil {
		t.Fatal(err)
	}
	if open, _, err = s.Protections(s.NewPRF(master), r, r, etm); err != nil {
		t.Fatal(err)
	}
	return seal, open
}

func eachProtection(t *testing.T, f func(t *testing.T, s *Suite, etm bool)) {
	for _, id := range Preferred() {
		s := ByID(id)
		t.Run(s.Name, func(t *testing.T) { f(t, s, false) })
		if s.CBC() {
			t.Run(s.Name+"/encrypt-then-MAC", func(t *testing.T) { f(t, s, true) })
		}
	}
}

func TestSealOpen(t *testing.T) {
	eachProtection(t, func(t *testing.T, s *Suite, etm bool) {
		seal, open := pair(t, s, etm)
		for seq, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 255, 256, 257, 511, 1000, 16384} {
			plaintext := make([]byte, n)
			rand.Read(plaintext)
			h := Header{Seq: uint64(seq), Type: 23, Version: 0x0303}
			if seq%2 == 1 {
				h = Header{Seq: uint64(seq), Type: 25, Version: 0xfefd, ConnectionID: []byte("8 octets")}
			}
			fragment := seal.Seal([]byte("head"), h, plaintext)[4:]
			if got := len(fragment) - n; got > seal.Overhead() {
				t.Errorf("%d octets of overhead, more than the %d promised", got, seal.Overhead())
			}
			got, err := open.Open(h, bytes.Clone(fragment))
			if err != nil || !bytes.Equal(got, plaintext) {
				t.Fatalf("%d octets: %v", n, err)
			}
			refuse := func(what string, h Header, f []byte) {
				t.Helper()
				if _, err := open.Open(h, bytes.Clone(f)); !errors.Is(err, ErrOpen) {
					t.Errorf("%d octets, %s: %v", n, what, err)
				}
			}
			for what, other := range map[string]Header{
				"another sequence number": {Seq: h.Seq + 1, Type: h.Type, Version: h.Version, ConnectionID: h.ConnectionID},
				"another type":            {Seq: h.Seq, Type: 22, Version: h.Version, ConnectionID: h.ConnectionID},
				"another version":         {Seq: h.Seq, Type: h.Type, Version: h.Version ^ 1, ConnectionID: h.ConnectionID},
				"another connection ID":   {Seq: h.Seq, Type: h.Type, Version: h.Version, ConnectionID: []byte("other")},
			} {
				refuse(what, other, fragment)
			}
			refuse("cut", h, fragment[:len(fragment)-1])
			refuse("empty", h, nil)
			for range 50 {
				i := randInt(len(fragment))
				altered := bytes.Clone(fragment)
				altered[i] ^= byte(1 << randInt(8))
				refuse(fmt.Sprintf("octet %d altered", i), h, altered)
			}
		}
	})
}

func randInt(n int) int {
	var b [4]byte
	rand.Read(b[:])
	return int(uint32(b[0])<<16|uint32(b[1])<<8|uint32(b[2])) % n
}

// Every record length and every padding length, right and wrong, gives what
// the plain algorithm gives.
func TestConstantTimeMAC(t *testing.T) {
	key := bytes.Repeat([]byte{7}, cbcMACKey)
	m, err := newConstantTimeMAC(key)
	if err != nil {
		t.Fatal(err)
	}
	for size := 48; size <= 48+320; size += 16 {
		body := make([]byte, size)
		rand.Read(body)
		for pad := 1; pad <= min(maxPadding, size-cbcMACLen); pad++ {
			n := size - cbcMACLen - pad
			var got [cbcMACLen]byte
			for _, adLen := range []int{13, 31, 64, 278} { // without and with connection IDs
				ad := make([]byte, adLen)
				rand.Read(ad)
				ref := hmac.New(sha256.New, key)
				ref.Write(ad)
				ref.Write(body[:n])
				m.sum(&got, ad, body, n)
				if !bytes.Equal(got[:], ref.Sum(nil)) {
					t.Fatalf("size %d, padding %d, %d octets of header: MAC differs from crypto/hmac's", size, pad, adLen)
				}
			}
			copyMAC(&got, body, n)
			if !bytes.Equal(got[:], body[n:n+cbcMACLen]) {
				t.Fatalf("size %d, padding %d: copied the wrong octets", size, pad)
			}
		}
	}
}

func TestPadding(t *testing.T) {
	plain := func(body []byte, reserve int) (int, int) {
		last := int(body[len(body)-1])
		if last+1 > len(body)-reserve {
			return 0, 0
		}
		for _, b := range body[len(body)-last-1:] {
			if int(b) != last {
				return 0, 0
			}
		}
		return last + 1, 1
	}
	for _, size := range []int{48, 64, 256, 288, 304, 320} {
		for last := range 256 {
			body := bytes.Repeat([]byte{byte(last)}, size)
			for wrong := -1; wrong < size; wrong++ {
				if wrong >= 0 {
					body[size-1-wrong] ^= 0x10
				}
				for _, reserve := range []int{0, cbcMACLen} {
					n, good := padding(body, reserve)
					if wantN, want := plain(body, reserve); n != wantN || good != want {
						t.Fatalf("size %d, last %d, octet %d wrong: %d, %d, want %d, %d", size, last, wrong, n, good, wantN, want)
					}
				}
				if wrong >= 0 {
					body[size-1-wrong] ^= 0x10
				}
			}
		}
	}
}

func TestMasks(t *testing.T) {
	for a := -3; a <= 3; a++ {
		for b := -3; b <= 3; b++ {
			if (ctLess(a, b) == -1) != (a < b) || (ctEq(a, b) == -1) != (a == b) {
				t.Errorf("%d, %d: less %d, equal %d", a, b, ctLess(a, b), ctEq(a, b))
			}
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, id := range Preferred() {
		s := ByID(id)
		if s.ECDHE {
			continue
		}
		for _, etm := range []bool{false, true} {
			if etm && !s.CBC() {
				continue
			}
			for _, n := range []int{16, 1024} {
				b.Run(fmt.Sprintf("%s/etm=%v/%d", s.Name, etm, n), func(b *testing.B) {
					seal, open := pair(b, s, etm)
					h := Header{Seq: 1, Type: 23, Version: 0x0303}
					fragment := seal.Seal(nil, h, make([]byte, n))
					buf := make([]byte, len(fragment))
					b.SetBytes(int64(n))
					b.ReportAllocs()
					for b.Loop() {
						copy(buf, fragment)
						if _, err := open.Open(h, buf); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
