package keyapi

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"github.com/onem2m-maf/maf/onem2m"
)

// Identity returns the CSE-ID that an Entity B's verified certificate carries, in
// its absolute form. Only subjectAltName counts:
//
//   - A DNS name of two labels or more is a CSE's public domain name (TS-0003
//     10.1.1.7, TS-0001 6.5.1.1): "in-cse.sp.example.com" is
//     "//sp.example.com/in-cse". Domain names have no letter case and CSE-IDs
//     do, so a name only ever gives a CSE-ID in lower case.
//   - A URI that is an absolute CSE-ID as it stands, "//sp.example.com/in-cse",
//     is that CSE-ID. It reaches those with capitals, dots, '_' or '~', which
//     have no domain name. (It is a reference without a scheme, as the
//     standard writes its identifiers and the AE-IDs in certificates. OpenSSL:
//     subjectAltName = URI://sp.example.com/in-cse)
//
// Both may stand side by side. All of them together must give exactly one
// CSE-ID: a certificate of two has no single owner to hold to account, and the
// asker must not get to choose. Other URIs and single-label names are passed
// over. A certificate with a wildcard is refused (10.1.1.7): it would be
// everybody's.
//
// An AE-ID certificate (10.1.1.5) for an AE-ID under a CSE gives no CSE-ID. One
// for "//sp.example.com/Smeter7" reads like a CSE-ID; the service provider
// hands out both from one space of names, so no CSE has that one, and no key
// was issued for it.
func Identity(cert *x509.Certificate) (onem2m.CSEID, error) {
	var found onem2m.CSEID
	add := func(id onem2m.CSEID) error {
		if !found.IsZero() && found != id {
			return fmt.Errorf("the certificate names two CSE-IDs, %s and %s", found, id)
		}
		found = id
		return nil
	}
	for _, name := range cert.DNSNames {
		if strings.Contains(name, "*") {
			return onem2m.CSEID{}, errors.New("the certificate holds a wildcard")
		}
		id, err := onem2m.ParseCSEDomainName(name)
		if err != nil {
			continue
		}
		if err := add(id); err != nil {
			return onem2m.CSEID{}, err
		}
	}
	for _, uri := range cert.URIs {
		id, err := onem2m.ParseCSEID(uri.String())
		if err != nil || !id.IsAbsolute() {
			continue
		}
		if err := add(id); err != nil {
			return onem2m.CSEID{}, err
		}
	}
	if found.IsZero() {
		return onem2m.CSEID{}, errors.New("the certificate's subjectAltName holds no CSE-ID, neither as a domain name such as " +
			"in-cse.sp.example.com nor as a URI such as //sp.example.com/in-cse")
	}
	return found, nil
}
