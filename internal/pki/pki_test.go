package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

var now = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)

func newAuthority(t *testing.T) *Authority {
	t.Helper()
	a, err := New("test authority", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func cse(t *testing.T, s string) onem2m.CSEID {
	t.Helper()
	id, err := onem2m.ParseCSEID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func parseOne(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		t.Fatalf("not one PEM block: %q", text)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestUsages checks who may pose as what: an Entity B never as the key API,
// the key API never as an Entity B, and neither as an authority.
func TestUsages(t *testing.T) {
	a := newAuthority(t)
	server, err := a.Server([]string{"maf.example.com", "127.0.0.1", "::1"}, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.EntityB(cse(t, "//sp.example.com/in-cse"), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		cert  *x509.Certificate
		usage x509.ExtKeyUsage
		good  bool
	}{
		{"server as server", server.Leaf, x509.ExtKeyUsageServerAuth, true},
		{"server as client", server.Leaf, x509.ExtKeyUsageClientAuth, false},
		{"entity B as client", parseOne(t, b.CertificatePEM), x509.ExtKeyUsageClientAuth, true},
		{"entity B as server", parseOne(t, b.CertificatePEM), x509.ExtKeyUsageServerAuth, false},
	} {
		verify := func(at time.Time) error {
			_, err := c.cert.Verify(x509.VerifyOptions{
				Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{c.usage}, CurrentTime: at})
			return err
		}
		if err := verify(now); (err == nil) != c.good {
			t.Errorf("%s: %v", c.name, err)
		}
		if verify(now.Add(2*time.Hour)) == nil {
			t.Errorf("%s: verifies after its end", c.name)
		}
		if c.cert.IsCA || c.cert.KeyUsage&x509.KeyUsageCertSign != 0 {
			t.Errorf("%s: may sign certificates", c.name)
		}
	}
	for _, name := range []string{"maf.example.com", "127.0.0.1", "::1"} {
		if err := server.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}

func TestEntityBNames(t *testing.T) {
	a := newAuthority(t)
	for _, c := range []struct {
		id  string
		dns []string
	}{
		{"//sp.example.com/in-cse", []string{"in-cse.sp.example.com"}},
		{"//sp.example.com/IN_CSE~1", nil}, // no domain name has these characters
	} {
		b, err := a.EntityB(cse(t, c.id), now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		cert := parseOne(t, b.CertificatePEM)
		if !slices.Equal(cert.DNSNames, c.dns) {
			t.Errorf("%s: DNS names %q", c.id, cert.DNSNames)
		}
		if len(cert.URIs) != 1 || cert.URIs[0].String() != c.id {
			t.Errorf("%s: URIs %v", c.id, cert.URIs)
		}
		if _, err := tls.X509KeyPair(b.CertificatePEM, b.KeyPEM.Bytes()); err != nil {
			t.Errorf("%s: %v", c.id, err)
		}
	}
	if _, err := a.EntityB(cse(t, "/in-cse"), now, time.Hour); err == nil {
		t.Error("a certificate for a CSE-ID without its service provider")
	}
	if _, err := a.EntityB(cse(t, "//sp.example.com/in-cse"), now, 2*caLife); err == nil {
		t.Error("a certificate outlives its authority")
	}
}

func TestMarshal(t *testing.T) {
	a := newAuthority(t)
	text, err := a.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := again.EntityB(cse(t, "//sp.example.com/in-cse"), now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, err = parseOne(t, b.CertificatePEM).Verify(x509.VerifyOptions{
		Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, CurrentTime: now})
	if err != nil {
		t.Errorf("the authority is another after Marshal and Parse: %v", err)
	}

	leaf := append(b.CertificatePEM, b.KeyPEM.Bytes()...)
	if _, err := Parse(leaf); err == nil || !strings.Contains(err.Error(), "not an authority") {
		t.Errorf("an Entity B's certificate was taken for an authority: %v", err)
	}
	if _, err := Parse(a.CertificatePEM()); err == nil {
		t.Error("an authority without its key was accepted")
	}
}
