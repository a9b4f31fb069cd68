package suite

import (
	"bytes"
	"errors"
	"testing"
)

// FuzzOpen: what is sealed opens to what it was, and nothing else opens, be it of
// the fuzzer's making or sealed and altered in one place.
func FuzzOpen(f *testing.F) {
	for i := range Preferred() {
		f.Add(uint8(i), true, uint64(1), uint8(23), []byte(nil), []byte("ping"), uint16(0))
		f.Add(uint8(i), false, uint64(1)<<48|7, uint8(25), []byte("four"), make([]byte, 100), uint16(40))
	}
	f.Fuzz(func(t *testing.T, n uint8, etm bool, seq uint64, typ uint8, id, content []byte, at uint16) {
		if len(id) > 255 || len(content) > 1<<14 {
			return // records hold no more
		}
		s := ByID(Preferred()[int(n)%len(Preferred())])
		master := s.NewPRF(make([]byte, MasterSecretLen))
		random := make([]byte, RandomLen)
		seal, open, err := s.Protections(master, random, random, etm)
		if err != nil {
			t.Fatal(err)
		}
		h := Header{Seq: seq, Type: typ, Version: 0x0303, ConnectionID: id}
		refuse := func(what string, fragment []byte) {
			if _, err := open.Open(h, bytes.Clone(fragment)); !errors.Is(err, ErrOpen) {
				t.Errorf("%s: %s: %v", s.Name, what, err)
			}
		}
		refuse("thin air", content)

		// The other direction has other keys; the same ones open it.
		fragment := seal.Seal(nil, h, content)
		refuse("reflected", fragment)
		if open, _, err = s.Protections(master, random, random, etm); err != nil {
			t.Fatal(err)
		}
		got, err := open.Open(h, bytes.Clone(fragment))
		if err != nil || !bytes.Equal(got, content) {
			t.Fatalf("%s: %x, %v", s.Name, got, err)
		}
		refuse("cut", fragment[:int(at)%len(fragment)])
		fragment[int(at)%len(fragment)] ^= 1 << (at % 8)
		refuse("altered", fragment)
	})
}
