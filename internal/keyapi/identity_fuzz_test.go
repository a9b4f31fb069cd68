package keyapi

import (
	"crypto/x509"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzIdentity: a certificate is that of one CSE, named absolutely, whatever the
// order of its names, or of none.
func FuzzIdentity(f *testing.F) {
	f.Add("in-cse.sp.example.com", "//sp.example.com/in-cse")
	f.Add("in-cse.sp.example.com\nmn-cse.sp.example.com", "")
	f.Add("*.sp.example.com", "//sp.example.com/in-cse")
	f.Add("localhost", "https://sp.example.com/in-cse\n//sp.example.com/in-cse\n//sp.example.com/Smeter7")
	f.Fuzz(func(t *testing.T, names, uris string) {
		cert := &x509.Certificate{DNSNames: strings.Split(names, "\n")}
		for text := range strings.SplitSeq(uris, "\n") {
			if u, err := url.Parse(text); err == nil {
				cert.URIs = append(cert.URIs, u)
			}
		}
		id, err := Identity(cert)
		slices.Reverse(cert.DNSNames)
		slices.Reverse(cert.URIs)
		again, errAgain := Identity(cert)
		if (err == nil) != (errAgain == nil) || err == nil && id != again {
			t.Errorf("%v (%v), in the other order %v (%v)", id, err, again, errAgain)
		}
		if err == nil && !id.IsAbsolute() {
			t.Errorf("%v is not absolute", id)
		}
		if err == nil && strings.Contains(names, "*") {
			t.Errorf("%v, from a wildcard", id)
		}
	})
}
