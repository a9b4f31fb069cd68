package suite

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/pion/dtls/v3/pkg/crypto/ccm"
)

// Known answers from elsewhere: testdata/published.json has vectors that were
// published, each with its source, and openssl.json what OpenSSL computes
// (kat_openssl_test.go).

// octets are in hexadecimal in the files.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

type sealedVector struct {
	Source, Suite                     string
	TagLength                         int
	Key, Nonce, AD, Plaintext, Sealed octets
}

type publishedVectors struct {
	PRF []struct {
		Source, Hash, Label string
		Secret, Seed, Out   octets
	}
	// Keys are master secrets and key blocks. The extended master secret has a
	// session hash; NIST's vectors for the plain one have randoms of its own for
	// each of the two steps.
	Keys []struct {
		Source, Hash                         string
		Premaster, SessionHash               octets
		HelloClientRandom, HelloServerRandom octets
		ClientRandom, ServerRandom           octets
		Master, KeyBlock                     octets
	}
	// AEAD names the suite that has it. CCM has nonces of 13 octets, which no
	// suite has.
	AEAD, CCM []sealedVector
}

func published(t *testing.T) publishedVectors {
	t.Helper()
	b, err := os.ReadFile("testdata/published.json")
	if err != nil {
		t.Fatal(err)
	}
	var v publishedVectors
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	if len(v.PRF) == 0 || len(v.Keys) == 0 || len(v.AEAD) == 0 || len(v.CCM) == 0 {
		t.Fatal("vectors are missing")
	}
	return v
}

// withHash returns a suite on the hash.
func withHash(t *testing.T, name string) *Suite {
	t.Helper()
	switch name {
	case "SHA-256":
		return ByID(PSK_AES_128_GCM_SHA256)
	case "SHA-384":
		return ByID(PSK_AES_256_GCM_SHA384)
	}
	t.Fatalf("no suite on %s", name)
	return nil
}

func TestPRF(t *testing.T) {
	for _, v := range published(t).PRF {
		got := make([]byte, len(v.Out))
		prf := withHash(t, v.Hash).NewPRF(v.Secret)
		for range 2 { // a PRF may be used again
			prf.Expand(got, v.Label, v.Seed)
			if !bytes.Equal(got, v.Out) {
				t.Errorf("%s: PRF = %x", v.Source, got)
			}
		}
	}
}

func TestPublishedKeys(t *testing.T) {
	for _, v := range published(t).Keys {
		s := withHash(t, v.Hash)
		var sessionHash []byte // nil, not empty, for the plain master secret
		if len(v.SessionHash) > 0 {
			sessionHash = v.SessionHash
		}
		master := s.MasterSecret(v.Premaster, sessionHash, v.HelloClientRandom, v.HelloServerRandom)
		if !bytes.Equal(master, v.Master) {
			t.Errorf("%s: master secret %x", v.Source, master)
		}
		block := make([]byte, len(v.KeyBlock))
		s.NewPRF(v.Master).Expand(block, "key expansion", v.ServerRandom, v.ClientRandom)
		if !bytes.Equal(block, v.KeyBlock) {
			t.Errorf("%s: key block %x", v.Source, block)
		}
	}
}

func TestPublishedAEAD(t *testing.T) {
	vectors := published(t)
	for _, v := range vectors.AEAD {
		found := false
		for _, id := range Preferred() {
			if s := ByID(id); s.Name == v.Suite {
				found = true
				a, err := s.aead(v.Key)
				v.check(t, a, err)
			}
		}
		if !found {
			t.Errorf("%s: no suite is called %s", v.Source, v.Suite)
		}
	}
	for _, v := range vectors.CCM {
		block, err := aes.NewCipher(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ccm.NewCCM(block, v.TagLength, len(v.Nonce))
		v.check(t, a, err)
	}
}

// check seals and opens the vector, and opens none that is altered.
func (v *sealedVector) check(t *testing.T, a cipher.AEAD, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", v.Source, err)
	}
	if got := a.Seal(nil, v.Nonce, v.Plaintext, v.AD); !bytes.Equal(got, v.Sealed) {
		t.Errorf("%s: sealed %x", v.Source, got)
	}
	if got, err := a.Open(nil, v.Nonce, v.Sealed, v.AD); err != nil || !bytes.Equal(got, v.Plaintext) {
		t.Errorf("%s: opened %x, %v", v.Source, got, err)
	}
	for i := range v.Sealed {
		altered := bytes.Clone(v.Sealed)
		altered[i] ^= 0x80
		if _, err := a.Open(nil, v.Nonce, altered, v.AD); err == nil {
			t.Errorf("%s: opened with octet %d altered", v.Source, i)
		}
	}
}
