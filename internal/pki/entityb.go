package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// EntityB is what an Entity B needs to ask the MAF for keys.
type EntityB struct {
	CertificatePEM []byte
	KeyPEM         secret.Key
	NotAfter       time.Time
}

// EntityB issues a CSE-ID certificate for id, which must be absolute, good for
// life from now.
//
// The CSE-ID stands in subjectAltName as the CSE's public domain name
// (TS-0001 6.5.1.1) where it has one, and as a URI in any case: a CSE-ID with a
// capital or a dot is no label of a domain name.
func (a *Authority) EntityB(id onem2m.CSEID, now time.Time, life time.Duration) (EntityB, error) {
	if !id.IsAbsolute() {
		return EntityB{}, fmt.Errorf("%s is not an absolute CSE-ID such as //sp.example.com/in-cse", id)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: id.String()},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:        []*url.URL{{Host: string(id.SP), Path: "/" + id.ID}},
	}
	if name := id.DomainName(); name != "" {
		template.DNSNames = []string{name}
	}
	der, key, err := a.issue(template, now, life)
	if err != nil {
		return EntityB{}, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return EntityB{}, err
	}
	return EntityB{certPEM(der), secret.Own(private), template.NotAfter}, nil
}
