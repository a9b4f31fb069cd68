package keyserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

const hex32 = "00112233445566778899AABBCCDDEEFF"

// keys is a Releaser that holds one key per last digit of the KcId.
type keys struct{ t *testing.T }

// single is a Releaser that has one answer.
type single authority.Released

func (s single) Release(context.Context, onem2m.CSEID, onem2m.KcID) (authority.Released, error) {
	return authority.Released(s), nil
}

var (
	inCSE    = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
	otherCSE = onem2m.CSEID{SP: "sp.example.com", ID: "other-cse"}
)

func keyID(last string) onem2m.KcID {
	id, err := onem2m.ParseKcID(hex32[:31] + last + "@maf.example.com")
	if err != nil {
		panic(err)
	}
	return id
}

func (k keys) Release(ctx context.Context, idB onem2m.CSEID, id onem2m.KcID) (authority.Released, error) {
	if _, ok := ctx.Deadline(); !ok {
		k.t.Error("Release runs without a deadline")
	}
	if !idB.IsAbsolute() {
		k.t.Errorf("Release is asked by %q", idB)
	}
	released := authority.Released{
		KcID: id, Kc: secret.New(bytes.Repeat([]byte("k"), 32)), Expires: time.Now().Add(time.Hour), Lifetime: time.Hour,
		KmID: onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"},
	}
	switch id {
	case keyID("1"): // with an AE-ID
		released.AEID = onem2m.AEID{SP: "sp.example.com", CSE: "in-cse", Stem: "Cmeter7"}
	case keyID("2"): // with a CSE-ID
		released.CSEID = onem2m.CSEID{SP: "sp.example.com", ID: "mn-cse"}
	case keyID("3"): // with neither
	case keyID("4"): // in its last second
		released.Lifetime = time.Second - 1
	case keyID("5"): // of another Entity B
		if idB != otherCSE {
			return authority.Released{}, fmt.Errorf("%w: issued for %s", authority.ErrNotFound, otherCSE)
		}
		return released, nil
	case keyID("6"):
		return authority.Released{}, errors.New("disk on fire at /var/lib/maf")
	case keyID("7"): // a fault of the authority's
		released.Kc = secret.New(make([]byte, 16))
	default:
		return authority.Released{}, fmt.Errorf("%w: never issued", authority.ErrNotFound)
	}
	if idB != inCSE {
		return authority.Released{}, fmt.Errorf("%w: issued for %s", authority.ErrNotFound, inCSE)
	}
	return released, nil
}

// ca signs whatever a test asks for.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t *testing.T) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &ca{cert, key}
}

func (c *ca) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

func (c *ca) issue(t *testing.T, edit func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	edit(template)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func named(dnsNames ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = dnsNames }
}

// world is a key API on loopback, the authority behind its certificates, and
// what the server logs.
type world struct {
	ca   *ca
	addr string
	log  *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{ca: newCA(t), log: new(lockedBuffer)}
	cert := w.ca.issue(t, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = listener.Addr().String()
	server := NewServer(TLSConfig(cert, w.ca.pool()), keys{t}, slog.New(slog.NewTextHandler(w.log, nil)))
	done := make(chan error)
	go func() { done <- server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return w
}

// client returns an HTTP client with the certificate, or none.
func (w *world) client(t *testing.T, cert *tls.Certificate) *http.Client {
	config := &tls.Config{RootCAs: w.ca.pool()}
	if cert != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

type answerOf struct {
	status int
	header http.Header
	body   string
}

func (w *world) ask(t *testing.T, client *http.Client, method, path, body string) (answerOf, error) {
	t.Helper()
	request, err := http.NewRequest(method, "https://"+w.addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return answerOf{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answerOf{response.StatusCode, response.Header, string(text)}, nil
}

// TestWhoGetsWhat is every kind of asker times every kind of question.
func TestWhoGetsWhat(t *testing.T) {
	w := newWorld(t)
	other := newCA(t)
	mine := named("in-cse.sp.example.com")
	questions := map[string]string{
		"with AE-ID":    keyapi.Path(keyID("1")),
		"with CSE-ID":   keyapi.Path(keyID("2")),
		"with neither":  keyapi.Path(keyID("3")),
		"last second":   keyapi.Path(keyID("4")),
		"other's":       keyapi.Path(keyID("5")),
		"never issued":  keyapi.Path(keyID("0")),
		"malformed":     "/v1/keys/maf.example.com/xyz",
		"no path":       "/",
		"escaped":       strings.Replace(keyapi.Path(keyID("1")), "maf.", "maf%2e", 1),
		"doubled slash": "/" + keyapi.Path(keyID("1")),
	}
	// For each asker the questions that get a key. The others get what refused
	// says: a status, or 0 when TLS itself fails.
	for name, c := range map[string]struct {
		cert    *tls.Certificate
		refused int
		gets    string
	}{
		"no certificate": {nil, 0, ""},
		"untrusted":      {other.issue(t, mine), 0, ""},
		"self-signed look-alike": {func() *tls.Certificate {
			fake := newCA(t)
			fake.cert.Subject = w.ca.cert.Subject
			return fake.issue(t, mine)
		}(), 0, ""},
		"expired":                  {w.ca.issue(t, func(c *x509.Certificate) { mine(c); c.NotAfter = time.Now().Add(-time.Minute) }), 0, ""},
		"for servers only":         {w.ca.issue(t, func(c *x509.Certificate) { mine(c); c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), 0, ""},
		"without a name":           {w.ca.issue(t, named()), 403, ""},
		"common name only":         {w.ca.issue(t, func(c *x509.Certificate) { c.Subject.CommonName = "in-cse.sp.example.com" }), 403, ""},
		"wildcard":                 {w.ca.issue(t, named("*.sp.example.com")), 403, ""},
		"two names":                {w.ca.issue(t, named("in-cse.sp.example.com", "other-cse.sp.example.com")), 403, ""},
		"AE-ID certificate":        {w.ca.issue(t, func(c *x509.Certificate) { c.URIs = []*url.URL{{Host: "sp.example.com", Path: "/in-cse/Cmeter7"}} }), 403, ""},
		"another service provider": {w.ca.issue(t, named("in-cse.other.example")), 404, ""},
		"another Entity B":         {w.ca.issue(t, named("other-cse.sp.example.com")), 404, "other's"},
		"the Entity B":             {w.ca.issue(t, mine), 404, "with AE-ID, with CSE-ID, with neither"},
		"the Entity B, by URI":     {w.ca.issue(t, func(c *x509.Certificate) { c.URIs = []*url.URL{{Host: "sp.example.com", Path: "/in-cse"}} }), 404, "with AE-ID, with CSE-ID, with neither"},
	} {
		t.Run(name, func(t *testing.T) {
			client := w.client(t, c.cert)
			refusal := ""
			for question, path := range questions {
				got, err := w.ask(t, client, "GET", path, "")
				switch {
				case c.gets != "" && strings.Contains(c.gets, question):
					if err != nil || got.status != 200 {
						t.Errorf("%s: %d, %v", question, got.status, err)
					} else if _, err := keyapi.Decode([]byte(got.body)); err != nil {
						t.Errorf("%s: %v", question, err)
					}
				case c.refused == 0:
					if err == nil {
						t.Errorf("%s: an answer, %d", question, got.status)
					}
				case err != nil || got.status != c.refused:
					t.Errorf("%s: %d, %v", question, got.status, err)
				default:
					got.header.Del("Date")
					shown := fmt.Sprint(got.header, got.body)
					if refusal == "" {
						refusal = shown
					} else if shown != refusal {
						t.Errorf("%s: the answer is %s, to others it is %s", question, shown, refusal)
					}
				}
			}
		})
	}
	if log := w.log.String(); !strings.Contains(log, "issued for //sp.example.com/other-cse") || !strings.Contains(log, "wildcard") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	if !strings.Contains(w.log.String(), "TLS handshake error") {
		t.Error("the log does not have the failed handshakes")
	}
	if strings.Contains(w.log.String(), "a2tra2") || strings.Contains(w.log.String(), "kkkk") {
		t.Error("the log shows a key")
	}
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	client := w.client(t, w.ca.issue(t, named("in-cse.sp.example.com")))
	for _, last := range []string{"6", "7"} {
		got, err := w.ask(t, client, "GET", keyapi.Path(keyID(last)), "")
		if err != nil || got.status != 503 || strings.Contains(got.body, "fire") {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if !strings.Contains(w.log.String(), "disk on fire") {
		t.Error("the log does not say what failed")
	}
}

func TestOnlyPlainGET(t *testing.T) {
	w := newWorld(t)
	client := w.client(t, w.ca.issue(t, named("in-cse.sp.example.com")))
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		got, err := w.ask(t, client, method, keyapi.Path(keyID("1")), "")
		if err != nil || got.status != 405 || got.header.Get("Allow") != "GET" {
			t.Errorf("%s: %+v, %v", method, got, err)
		}
	}
	got, err := w.ask(t, client, "GET", keyapi.Path(keyID("1")), "hello")
	if err != nil || got.status != 400 {
		t.Errorf("with a body: %+v, %v", got, err)
	}
}

// TestBounds: a request that is larger than any honest one is turned away.
func TestBounds(t *testing.T) {
	w := newWorld(t)
	cert := w.ca.issue(t, named("in-cse.sp.example.com"))
	conn, err := tls.Dial("tcp", w.addr, &tls.Config{RootCAs: w.ca.pool(), Certificates: []tls.Certificate{*cert}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n", keyapi.Path(keyID("1")), strings.Repeat("x", 3*maxHeader))
	line, _ := io.ReadAll(io.LimitReader(conn, 12))
	if string(line) != "HTTP/1.1 431" {
		t.Errorf("a header of %d octets is answered %q", 3*maxHeader, line)
	}
	server := NewServer(nil, nil, slog.New(slog.DiscardHandler))
	if server.ReadHeaderTimeout <= 0 || server.ReadTimeout <= 0 || server.WriteTimeout <= releaseTimeout || server.IdleTimeout <= 0 {
		t.Errorf("%+v lacks a bound", server)
	}
}

// TestWiped: when Kc has been sent, or can't be, it is gone from here.
func TestWiped(t *testing.T) {
	state := &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{{DNSNames: []string{"in-cse.sp.example.com"}, NotAfter: time.Now().Add(time.Hour)}},
		VerifiedChains:   [][]*x509.Certificate{{}},
	}
	for _, c := range []struct {
		lifetime time.Duration
		status   int
	}{
		{time.Hour, http.StatusOK},
		{time.Second - 1, http.StatusNotFound},
	} {
		kc := secret.New(bytes.Repeat([]byte("k"), 32))
		released := single{KcID: keyID("1"), Kc: kc, Expires: time.Now().Add(c.lifetime), Lifetime: c.lifetime,
			KmID: onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"}}
		r := httptest.NewRequest("GET", keyapi.Path(keyID("1")), nil)
		r.TLS = state
		w := httptest.NewRecorder()
		NewHandler(released, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
		if w.Code != c.status || (w.Code == http.StatusOK) != strings.Contains(w.Body.String(), "a2tra2tr") {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
		if !kc.Equal(secret.New(make([]byte, 32))) {
			t.Errorf("status %d: Kc was not wiped", w.Code)
		}
	}
}

// TestNoTLSNoKey: the handler relies on nobody for the identity.
func TestNoTLSNoKey(t *testing.T) {
	for name, state := range map[string]*tls.ConnectionState{
		"no TLS":         nil,
		"no certificate": {},
		"not verified":   {PeerCertificates: []*x509.Certificate{{DNSNames: []string{"in-cse.sp.example.com"}}}},
		"expired during the connection": {
			PeerCertificates: []*x509.Certificate{{DNSNames: []string{"in-cse.sp.example.com"}, NotAfter: time.Now().Add(-time.Second)}},
			VerifiedChains:   [][]*x509.Certificate{{}},
		},
	} {
		if id, err := peer(state, time.Now()); err == nil {
			t.Errorf("%s: taken for %s", name, id)
		}
	}
}
