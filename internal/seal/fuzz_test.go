package seal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

// FuzzOpen: no box opens that the keyset has not sealed, nor for another row.
func FuzzOpen(f *testing.F) {
	k, _ := create(f)
	sealed, err := k.Seal([]byte("secret"), []byte("row 1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, []byte("row 2"), []byte("secret"), uint16(7))
	f.Add([]byte{}, []byte{}, []byte{}, uint16(0))
	f.Fuzz(func(t *testing.T, box, ad, plaintext []byte, at uint16) {
		if _, err := k.Open(box, ad); !errors.Is(err, ErrOpen) {
			t.Fatalf("a box out of thin air: %v", err)
		}
		box, err := k.Seal(plaintext, ad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(box, ad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("%x, %v", got, err)
		}
		if _, err := k.Open(box, append(bytes.Clone(ad), 0)); !errors.Is(err, ErrOpen) {
			t.Errorf("opened for another row: %v", err)
		}
		box[int(at)%len(box)] ^= 1 << (at % 8)
		if _, err := k.Open(box, ad); !errors.Is(err, ErrOpen) {
			t.Errorf("opened although it was altered: %v", err)
		}
	})
}

// FuzzKeyset: a keyset file is one that seals and opens, or an error that tells
// nothing of it.
func FuzzKeyset(f *testing.F) {
	_, path := create(f)
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(file))
	f.Add(strings.Replace(string(file), "ENABLED", "DISABLED", 1))
	f.Add(strings.Replace(string(file), "XChaCha20Poly1305", "AesGcm", 1))
	f.Add(`{"format":"maf-keyset-1","kek":"file","keys":[],"keyset":{"encryptedKeyset":"AAAA"}}`)
	f.Add(`{"format":"maf-keyset-2"}`)
	f.Add("{}")
	f.Fuzz(func(t *testing.T, file string) {
		r, err := File{}.parse(context.Background(), []byte(file))
		if err != nil {
			if len(file) > 60 && strings.Contains(err.Error(), file[:20]) {
				t.Errorf("the error quotes the file: %v", err)
			}
			return
		}
		k := new(Keyset)
		k.ring.Store(r)
		box, err := k.Seal([]byte("secret"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.Open(box, nil); err != nil || string(got) != "secret" {
			t.Errorf("%q, %v", got, err)
		}
	})
}
