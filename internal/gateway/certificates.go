package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// certificateFiles are the files by which Entity B and its MAFs know each other.
// They are read again when they change: certificates live short, and whoever
// renews them should not have to know about the gateway.
type certificateFiles struct {
	certificate, key, ca string
	cse                  onem2m.CSEID // whom the certificate has to name
	seen                 [][]byte     // what they held when they were last good
}

// lookEvery is how often the files are looked at.
const lookEvery = 10 * time.Second

// load reads the files. changed tells whether they hold anything else than when
// they last were good.
func (f *certificateFiles) load() (pair tls.Certificate, roots *x509.CertPool, changed bool, err error) {
	var texts [][]byte
	for _, path := range []string{f.certificate, f.key, f.ca} {
		var text []byte
		if path != "" {
			if text, err = os.ReadFile(path); err != nil {
				return pair, nil, false, err
			}
		}
		texts = append(texts, text)
	}
	if slices.EqualFunc(texts, f.seen, bytes.Equal) {
		return pair, nil, false, nil
	}
	if pair, err = tls.X509KeyPair(texts[0], texts[1]); err != nil {
		return pair, nil, false, fmt.Errorf("%s and %s: %w", f.certificate, f.key, err)
	}
	if err = f.check(pair.Leaf); err != nil {
		return pair, nil, false, fmt.Errorf("%s: %w", f.certificate, err)
	}
	if f.ca != "" {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(texts[2]) {
			return pair, nil, false, fmt.Errorf("%s holds no certificate in PEM", f.ca)
		}
	}
	f.seen = texts
	return pair, roots, true, nil
}

// check finds out what the MAF would only answer as if it knew no key: that it takes
// the gateway for another CSE, or for none.
func (f *certificateFiles) check(cert *x509.Certificate) error {
	id, err := keyapi.Identity(cert)
	if err != nil {
		return err
	}
	if id != f.cse {
		return fmt.Errorf("the certificate is that of %s, and the MAF would give it no key for %s", id, f.cse)
	}
	if end := cert.NotAfter; time.Now().After(end) {
		return fmt.Errorf("the certificate ended on %s; \"maf entity-b add\" makes another one", end.UTC().Format(time.DateOnly))
	}
	return nil
}

// reload puts changed certificates to use.
func (g *Gateway) reload() {
	pair, roots, changed, err := g.files.load()
	if err == nil && changed {
		err = g.entityB.SetCertificates(pair, roots)
	}
	switch {
	case err != nil && err.Error() != g.reloadError:
		g.log.Error("the certificates can't be read again; the ones from before stay in use", "error", err.Error())
	case err == nil && changed:
		g.notAfter.Store(pair.Leaf.NotAfter.Unix())
		g.log.Info("certificates read again", "not_after", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	g.reloadError = ""
	if err != nil {
		g.reloadError = err.Error()
	}
}

// watchCertificates reloads on a signal and when files change, until ctx ends.
func (g *Gateway) watchCertificates(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-g.reloads:
		}
		g.reload()
	}
}
