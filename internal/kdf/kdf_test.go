package kdf

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/onem2m"
)

// The vectors were made with the OpenSSL 3.0 command line, for a master secret
// of 000102..2f, a client random of 32 times c1 and a server random of 32 times
// 5e, and then cut by hand after 16 octets:
//
//	openssl kdf -keylen 48 -kdfopt digest:SHA256 \
//	    -kdfopt hexsecret:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f \
//	    -kdfopt seed:EXPORTER-oneM2M-Connection \
//	    -kdfopt hexseed:c1c1c1...c1 -kdfopt hexseed:5e5e5e...5e TLS1-PRF
//
// and the same with digest:SHA384.
var vectors = []struct {
	name     string
	hash     func() hash.Hash
	relative string
	kc       string
}{
	{"SHA256", sha256.New,
		"E989300AB098CAD0E8BF6AF3B18D7333",
		"d3dc372622f0ae568bb46fa23143f48f40c50739d2377fa1cd549df716c31c12"},
	{"SHA384", sha512.New384,
		"1FEE10D7843B5FC67445748452756C2C",
		"f18945c898d06f572a67333e8e8fb2ffce7cf47c307df8637508f36d5086fa7e"},
}

// exporter is RFC 5705 4 over RFC 5246 5, with this package's label and length,
// so that the vectors witness those too and not only where the cut is.
func exporter(h func() hash.Hash) []byte {
	master := make([]byte, 48)
	for i := range master {
		master[i] = byte(i)
	}
	seed := ConnectionLabel + strings.Repeat("\xc1", 32) + strings.Repeat("\x5e", 32)
	mac := func(in []byte) []byte {
		m := hmac.New(h, master)
		m.Write(in)
		return m.Sum(nil)
	}
	var out []byte
	for a := mac([]byte(seed)); len(out) < ConnectionLength; a = mac(a) {
		out = append(out, mac(append(bytes.Clone(a), seed...))...)
	}
	return out[:ConnectionLength]
}

func TestConnectionVectors(t *testing.T) {
	for _, v := range vectors {
		exported := exporter(v.hash)
		id, kc, err := Connection(exported)
		if err != nil {
			t.Fatal(err)
		}
		clear(exported) // what Connection returned must be its own
		if id.String() != v.relative {
			t.Errorf("%s: RelativeKcId %v, want %s", v.name, id, v.relative)
		}
		if got := hex.EncodeToString(kc.Bytes()); got != v.kc {
			t.Errorf("%s: Kc differs from the vector", v.name)
		}
		kcID := onem2m.KcID{Relative: id, FQDN: "maf.example.com"}.String()
		if kcID != v.relative+"@maf.example.com" {
			t.Errorf("%s: KcId %s", v.name, kcID)
		}
	}
}

func TestConnectionWrongLength(t *testing.T) {
	for _, n := range []int{0, 16, 32, 47, 49, 96} {
		if _, kc, err := Connection(make([]byte, n)); err == nil || !kc.IsZero() {
			t.Errorf("%d octets were split (%v)", n, err)
		}
	}
}
