package mafd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi/keyserver"
	"github.com/onem2m-maf/maf/internal/pki"
)

// keyAPITLS returns the TLS configuration of the key API: from the files that
// are configured, and from mafd's own authority for those that are not.
func (c *Config) keyAPITLS(ca *pki.Authority) (*tlsInUse, error) {
	cert, clients, err := c.keyAPIFiles()
	if err != nil {
		return nil, err
	}
	if clients == nil {
		clients = ca.Pool()
	}
	if cert != nil {
		return &tlsInUse{config: keyAPIConfig(cert, clients), shown: func() *tls.Certificate { return cert }}, nil
	}
	own := &ownCertificate{ca: ca, names: c.keyAPINames(), now: time.Now}
	first, err := own.get(nil)
	if err != nil {
		return nil, err
	}
	t := keyAPIConfig(first, clients)
	t.Certificates = nil
	t.GetCertificate = own.get
	return &tlsInUse{config: t, shown: own.shown}, nil
}

// keyAPIConfig is the key server's, with the protocols that net/http would add to
// a configuration that it knew of; see liveTLS.
func keyAPIConfig(cert *tls.Certificate, clients *x509.CertPool) *tls.Config {
	t := keyserver.TLSConfig(cert, clients)
	t.NextProtos = []string{"h2", "http/1.1"}
	return t
}

// keyAPIFiles reads the files that the configuration names, nil for those that
// it doesn't.
func (c *Config) keyAPIFiles() (*tls.Certificate, *x509.CertPool, error) {
	var cert *tls.Certificate
	if c.KeyAPI.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(c.KeyAPI.Certificate, c.KeyAPI.Key)
		if err != nil {
			return nil, nil, fmt.Errorf("keyapi.certificate and keyapi.key: %w", err)
		}
		cert = &pair
	}
	if c.KeyAPI.ClientCA == "" {
		return cert, nil, nil
	}
	text, err := os.ReadFile(c.KeyAPI.ClientCA)
	if err != nil {
		return nil, nil, fmt.Errorf("keyapi.client_ca: %w", err)
	}
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(text) {
		return nil, nil, fmt.Errorf("keyapi.client_ca: %s holds no certificate in PEM", c.KeyAPI.ClientCA)
	}
	return cert, clients, nil
}

// keyAPINames is what Entity Bs may call the key API: the MAF's names, this
// machine's, and the addresses where it listens.
func (c *Config) keyAPINames() []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	for _, fqdn := range c.FQDNs {
		names = append(names, fqdn.String())
	}
	for _, address := range c.KeyAPI.Listen {
		h := host(address)
		if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
			names = append(names, machineNames()...)
		} else {
			names = append(names, h)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// machineNames are this machine's name and addresses, as far as it knows them.
func machineNames() []string {
	var names []string
	if name, err := os.Hostname(); err == nil {
		names = append(names, name)
	}
	addresses, _ := net.InterfaceAddrs() // without, the other names remain
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok {
			names = append(names, n.IP.String())
		}
	}
	return names
}

// serverCertLife is short, since making the next one costs nothing.
const serverCertLife = 30 * 24 * time.Hour

// ownCertificate is the key API's certificate from mafd's own authority. It
// lives in memory only, and is replaced at half its life.
type ownCertificate struct {
	ca    *pki.Authority
	names []string
	now   func() time.Time

	mu      sync.Mutex
	current *tls.Certificate // guarded by mu
	renew   time.Time        // guarded by mu
}

// shown returns the certificate in use.
func (o *ownCertificate) shown() *tls.Certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.current
}

// get is a tls.Config's GetCertificate.
func (o *ownCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	// A clock that was set back shows a certificate that is not good yet.
	if o.current != nil && now.Before(o.renew) && !now.Before(o.current.Leaf.NotBefore) {
		return o.current, nil
	}
	cert, err := o.ca.Server(o.names, now, serverCertLife)
	if err != nil {
		return nil, fmt.Errorf("issuing the key API's certificate: %w", err)
	}
	o.current, o.renew = cert, now.Add(serverCertLife/2)
	return cert, nil
}
