package keyapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
)

// san is a subjectAltName entry as it stands in a certificate, so that the test
// can say what Go's own encoder would not write.
type san struct {
	tag   int
	value string
}

func dns(name string) san { return san{2, name} }
func uri(text string) san { return san{6, text} }

// withSANs makes a certificate and parses it the way crypto/tls does. ok is
// false when Go's parser itself refuses it.
func withSANs(t *testing.T, sans ...san) (cert *x509.Certificate, ok bool) {
	t.Helper()
	var names []asn1.RawValue
	for _, s := range sans {
		names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: s.tag, Bytes: []byte(s.value)})
	}
	value, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "other-cse.sp.example.com"}}
	if len(sans) > 0 {
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err = x509.ParseCertificate(der)
	return cert, err == nil
}

func TestIdentity(t *testing.T) {
	const cse = "//sp.example.com/in-cse"
	for _, c := range []struct {
		sans []san
		want string // "" when refused
	}{
		{[]san{dns("in-cse.sp.example.com")}, cse},
		{[]san{dns("IN-CSE.SP.example.com")}, cse}, // domain names have no case, so never //sp.example.com/IN-CSE
		{[]san{dns("in-cse.localhost")}, "//localhost/in-cse"},
		{[]san{uri("//sp.example.com/in-cse")}, cse},
		{[]san{uri("//SP.example.com/in-cse")}, cse},
		{[]san{uri("//sp.example.com/In_CSE.~1")}, "//sp.example.com/In_CSE.~1"},
		{[]san{uri("//sp.example.com/in-cse"), dns("in-cse.sp.example.com")}, cse},
		{[]san{dns("in-cse.sp.example.com"), dns("in-cse.sp.example.com")}, cse},
		{[]san{dns("in-cse.sp.example.com"), dns("localhost")}, cse},
		{[]san{dns("in-cse.sp.example.com"), uri("https://cse.example.com/")}, cse},
		{[]san{dns("in-cse.sp.example.com"), uri("spiffe://example.com/cse")}, cse},

		{nil, ""}, // the common name never counts
		{[]san{dns("localhost")}, ""},
		{[]san{uri("https://sp.example.com/in-cse")}, ""},
		{[]san{uri("/in-cse")}, ""}, // whose?
		{[]san{uri("//sp.example.com")}, ""},
		{[]san{uri("//sp.example.com/")}, ""},
		{[]san{uri("//sp.example.com/in-cse/")}, ""},
		{[]san{uri("//sp.example.com/in-cse/Cmeter7")}, ""}, // an AE-ID certificate
		{[]san{uri("//sp.example.com/in%2Dcse")}, ""},
		{[]san{uri("//sp.example.com/%69n-cse")}, ""},
		{[]san{uri("//sp.example.com/in-cse?")}, ""},
		{[]san{uri("//sp.example.com/in-cse?a=b")}, ""},
		{[]san{uri("//sp.example.com/in-cse#a")}, ""},
		{[]san{uri("//sp.example.com:443/in-cse")}, ""},
		{[]san{uri("//user@sp.example.com/in-cse")}, ""},
		{[]san{uri("//sp.example.com./in-cse")}, ""},
		{[]san{uri("//sp.example.com/../in-cse")}, ""},
		{[]san{uri("//10.0.0.1/in-cse")}, ""},
		{[]san{dns("*.sp.example.com")}, ""},
		{[]san{dns("in-*.sp.example.com")}, ""},
		{[]san{dns("in-cse.*.example.com")}, ""},
		{[]san{dns("in-cse.sp.example.com"), dns("*.sp.example.com")}, ""},
		{[]san{dns("in-cse.sp.example.com\x00.evil.example")}, ""},
		{[]san{dns("in-cse.sp.example.com.")}, ""},
		{[]san{dns(" in-cse.sp.example.com")}, ""},
		{[]san{dns("in_cse.sp.example.com")}, ""},
		{[]san{dns("10.0.0.1")}, ""},
		{[]san{dns("in-cse.sp.example.com"), dns("mn-cse.sp.example.com")}, ""},
		{[]san{dns("in-cse.sp.example.com"), dns("in-cse.other.example")}, ""},
		{[]san{dns("in-cse.sp.example.com"), uri("//sp.example.com/In-cse")}, ""},
		{[]san{uri("//sp.example.com/in-cse"), uri("//sp.example.com/mn-cse")}, ""},
	} {
		cert, ok := withSANs(t, c.sans...)
		if !ok {
			if c.want != "" {
				t.Errorf("%v: not even Go's parser takes it", c.sans)
			}
			continue
		}
		id, err := Identity(cert)
		if (err == nil) != (c.want != "") || id.String() != c.want {
			t.Errorf("%v: %q, %v; want %q", c.sans, id, err, c.want)
		}
	}
}
