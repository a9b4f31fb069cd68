// Package pki is the small certificate authority that mafd makes for itself at
// its first start, so that the key API has mutual TLS from the first minute.
//
// It signs two kinds of certificate: the key API server's, and those of Entity
// Bs. They differ in extended key usage, so that an Entity B can't pose as the
// MAF to another Entity B. There is no revocation: a certificate that leaked
// is good until it expires. A deployment that needs more configures its own
// authority instead (keyapi.certificate, keyapi.key, keyapi.client_ca).
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"time"
)

// caLife is how long the authority's own certificate is good for. Replacing
// it means to visit every Entity B, and its key never leaves the machine.
const caLife = 20 * 365 * 24 * time.Hour

// backdate is how far notBefore lies in the past: clocks of gateways differ.
const backdate = 5 * time.Minute

// Authority is a certificate authority with its signing key. It is immutable
// and safe for concurrent use.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// New makes an authority with a fresh P-256 key. The name is for people only.
func New(name string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // signs no further authorities
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{cert, key}, nil
}

// Parse reads what Marshal wrote.
func Parse(private []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(private, private)
	if err != nil {
		return nil, err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the authority's key is not an ECDSA key")
	}
	if !pair.Leaf.IsCA {
		return nil, errors.New("the certificate is not an authority's")
	}
	return &Authority{pair.Leaf, key}, nil
}

// Marshal returns certificate and private key as one PEM text. One, so that a
// crash between two files can't leave an authority without its other half.
func (a *Authority) Marshal() ([]byte, error) {
	key, err := keyPEM(a.key)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return append(a.CertificatePEM(), key...), nil
}

// CertificatePEM returns the authority's certificate, which everyone who
// verifies its signatures needs and anyone may see.
func (a *Authority) CertificatePEM() []byte { return certPEM(a.cert.Raw) }

// NotAfter returns when the authority ends.
func (a *Authority) NotAfter() time.Time { return a.cert.NotAfter }

// Pool returns a certificate pool holding just this authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Server issues a certificate for the key API server, good for life from now.
// Each name is a DNS name or an IP address.
func (a *Authority) Server(names []string, now time.Time, life time.Duration) (*tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "mafd key API"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, key, err := a.issue(template, now, life)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}

// issue signs template, completed, for a fresh P-256 key.
func (a *Authority) issue(template *x509.Certificate, now time.Time, life time.Duration) ([]byte, *ecdsa.PrivateKey, error) {
	template.NotBefore = now.Add(-backdate)
	template.NotAfter = now.Add(life)
	if template.NotAfter.After(a.cert.NotAfter) {
		return nil, nil, fmt.Errorf("a certificate until %s would outlive its authority, which ends %s",
			template.NotAfter.Format(time.DateOnly), a.cert.NotAfter.Format(time.DateOnly))
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true // and IsCA false: says outright that it may not sign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	return der, key, err
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	defer clear(der)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
