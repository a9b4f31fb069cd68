package keyclient

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyserver"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

const maf onem2m.FQDN = "maf.example.com"

var (
	inCSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
	kcID  = onem2m.KcID{Relative: onem2m.RelativeKeyID{1}, FQDN: maf}
)

func exampleKey() keyapi.Key {
	return keyapi.Key{
		KcID: kcID, Kc: secret.New(bytes.Repeat([]byte("k"), 32)), Expires: time.Now().Add(time.Hour).Truncate(time.Second), Lifetime: time.Hour,
		KmID: onem2m.KmID{Relative: "meter7", FQDN: maf}, SUID: onem2m.SUIDSAEF, CSEID: onem2m.CSEID{SP: "sp.example.com", ID: "mn-cse"},
	}
}

type releaser map[onem2m.KcID]keyapi.Key

func (r releaser) Release(_ context.Context, idB onem2m.CSEID, id onem2m.KcID) (authority.Released, error) {
	k, ok := r[id]
	if !ok || idB != inCSE {
		return authority.Released{}, authority.ErrNotFound
	}
	return authority.Released{KcID: k.KcID, Kc: k.Kc, Expires: k.Expires, Lifetime: k.Lifetime, KmID: k.KmID, CSEID: k.CSEID}, nil
}

// testMAF is a MAF's key API on loopback.
type testMAF struct {
	ca    *pki.Authority
	addr  string
	conns atomic.Int64 // connections that were ever opened
}

// serve runs a key API: the real one, or h in its place.
func serve(t *testing.T, h http.Handler) *testMAF {
	t.Helper()
	ca, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return serveAs(t, h, ca)
}

// serveAs is serve with an authority that is there already.
func serveAs(t *testing.T, h http.Handler, ca *pki.Authority) *testMAF {
	t.Helper()
	cert, err := ca.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	m := &testMAF{ca: ca}
	server := keyserver.NewServer(keyserver.TLSConfig(cert, ca.Pool()), releaser{kcID: exampleKey()}, slog.New(slog.DiscardHandler))
	if h != nil {
		server.Handler = h
	}
	server.ErrorLog = log.New(io.Discard, "", 0)
	server.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			m.conns.Add(1)
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = listener.Addr().String()
	done := make(chan struct{})
	go func() { defer close(done); server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { server.Close(); <-done })
	return m
}

func (m *testMAF) certificate(t *testing.T, id onem2m.CSEID) tls.Certificate {
	t.Helper()
	b, err := m.ca.EntityB(id, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(b.CertificatePEM, b.KeyPEM.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (m *testMAF) client(t *testing.T, edit func(*Config)) *Client {
	t.Helper()
	config := Config{
		MAFs:        map[onem2m.FQDN]string{maf: "https://" + m.addr},
		Certificate: m.certificate(t, inCSE),
		RootCAs:     m.ca.Pool(),
		Timeout:     time.Minute, // never the reason why something fails, unless a test says so
	}
	if edit != nil {
		edit(&config)
	}
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func TestGet(t *testing.T) {
	m := serve(t, nil)
	c := m.client(t, nil)
	key, err := c.Get(t.Context(), kcID)
	want := exampleKey()
	if err != nil || key.KcID != kcID || !key.Kc.Equal(want.Kc) || key.Lifetime != time.Hour || key.KmID != want.KmID || key.CSEID != want.CSEID || key.SUID != 32 {
		t.Fatalf("%+v, %v", key, err)
	}
	if !c.Knows(maf) || c.Knows("other.example") {
		t.Error("Knows is wrong")
	}
	if _, err := c.Get(t.Context(), onem2m.KcID{FQDN: maf}); !errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnavailable) {
		t.Errorf("a key that isn't there: %v", err)
	}
	if _, err := c.Get(t.Context(), onem2m.KcID{FQDN: "other.example"}); !errors.Is(err, ErrUnknownMAF) {
		t.Errorf("a MAF that isn't configured: %v", err)
	}
}

func TestIdentities(t *testing.T) {
	m := serve(t, nil)
	stranger := serve(t, nil)
	for name, c := range map[string]struct {
		edit func(*Config)
		want error
		text string
	}{
		"another Entity B":           {func(c *Config) { c.Certificate = m.certificate(t, onem2m.CSEID{SP: "sp.example.com", ID: "other"}) }, ErrNotFound, ""},
		"untrusted by the MAF":       {func(c *Config) { c.Certificate = stranger.certificate(t, inCSE) }, ErrUnavailable, "certificate"},
		"the MAF is not trusted":     {func(c *Config) { c.RootCAs = stranger.ca.Pool() }, ErrUnavailable, "unknown authority"},
		"no root at all":             {func(c *Config) { c.RootCAs = x509.NewCertPool() }, ErrUnavailable, "unknown authority"},
		"another host's certificate": {func(c *Config) { c.MAFs[maf] = strings.Replace(c.MAFs[maf], "127.0.0.1", "localhost", 1) }, ErrUnavailable, "localhost"},
	} {
		_, err := m.client(t, c.edit).Get(t.Context(), kcID)
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNoCSEID(t *testing.T) {
	m := serve(t, nil)
	server, err := m.ca.Server([]string{"maf"}, time.Now(), time.Hour) // not for clients
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.client(t, func(c *Config) { c.Certificate = *server }).Get(t.Context(), kcID); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
}

// TestBadAnswers: whatever else a MAF, or what stands in between, answers means
// that the MAF is unavailable, and never that there is no key.
func TestBadAnswers(t *testing.T) {
	good := exampleKey()
	body, err := good.Encode()
	if err != nil {
		t.Fatal(err)
	}
	other := exampleKey()
	other.KcID.Relative[15] = 1
	otherBody, err := other.Encode()
	if err != nil {
		t.Fatal(err)
	}
	json := "application/json"
	for name, c := range map[string]struct {
		status  int
		content string
		body    string
		good    bool
	}{
		"good":                {200, json, string(body), true},
		"with a charset":      {200, json + "; charset=utf-8", string(body), true},
		"another key":         {200, json, string(otherBody), false},
		"nothing":             {200, json, "", false},
		"cut short":           {200, json, string(body[:len(body)-1]), false},
		"HTML":                {200, "text/html", string(body), false},
		"no type":             {200, "", string(body), false},
		"too long":            {200, json, strings.Repeat(" ", keyapi.MaxAnswer) + string(body), false},
		"endless":             {200, json, strings.Repeat(" ", 1<<10), false},
		"404 of a web server": {404, "text/html", "<h1>Not Found</h1>", false},
		"403":                 {403, json, `{"error":"the client certificate carries no CSE-ID"}`, false},
		"500":                 {500, json, `{}`, false},
		"503":                 {503, json, `not JSON`, false},
		"204":                 {204, json, "", false},
		"201":                 {201, json, string(body), false},
		"redirect":            {307, json, "", false},
		"not modified":        {304, json, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int64
			m := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if r.URL.Path != keyapi.Path(kcID) || r.Method != "GET" || r.Header.Get("Accept") != json {
					t.Errorf("asked for %s %s, %v", r.Method, r.URL.Path, r.Header)
				}
				w.Header()["Content-Type"] = []string{c.content}
				w.Header().Set("Location", keyapi.Path(kcID))
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
				for name == "endless" && r.Context().Err() == nil {
					io.WriteString(w, c.body)
				}
			}))
			key, err := m.client(t, nil).Get(t.Context(), kcID)
			if c.good != (err == nil) || err != nil && (!errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound)) {
				t.Errorf("%+v, %v", key, err)
			}
			if err != nil && strings.Contains(err.Error(), "a2tra2tra2") {
				t.Errorf("the error quotes the key: %v", err)
			}
			if asked.Load() != 1 {
				t.Errorf("asked %d times", asked.Load())
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	m := serve(t, nil)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	closed := m.client(t, func(c *Config) { c.MAFs[maf] = "https://" + listener.Addr().String() })
	if _, err := closed.Get(t.Context(), kcID); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}

	silent := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	slow := silent.client(t, func(c *Config) { c.Timeout = 50 * time.Millisecond })
	if _, err := slow.Get(t.Context(), kcID); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.client(t, nil).Get(ctx, kcID); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestReuse: one connection serves request after request, and a crowd of
// requests doesn't open a crowd of connections.
func TestReuse(t *testing.T) {
	m := serve(t, nil)
	c := m.client(t, nil)
	for range 10 {
		if _, err := c.Get(t.Context(), kcID); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Get(t.Context(), onem2m.KcID{FQDN: maf}); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
	}
	if n := m.conns.Load(); n != 1 {
		t.Errorf("20 requests took %d connections", n)
	}
	var all sync.WaitGroup
	for range 4 * maxConns {
		all.Go(func() {
			if _, err := c.Get(context.Background(), kcID); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := m.conns.Load(); n > maxConns {
		t.Errorf("%d connections at once", n)
	}
}

func TestNewRefuses(t *testing.T) {
	m := serve(t, nil)
	good := Config{MAFs: map[onem2m.FQDN]string{maf: "https://maf.example.com:8443"}, Certificate: m.certificate(t, inCSE)}
	for _, base := range []string{"https://maf.example.com:8443", "https://maf.example.com", "https://maf.example.com:8443/", "https://[::1]:8443"} {
		good.MAFs[maf] = base
		if _, err := New(good); err != nil {
			t.Errorf("%s: %v", base, err)
		}
	}
	for _, base := range []string{
		"", "maf.example.com:8443", "http://maf.example.com:8443", "https://", "https://:8443", "https://maf.example.com/x", "https://maf.example.com//",
		"https://maf.example.com?a", "https://maf.example.com#a", "https://user@maf.example.com", "https://maf.example.com:http", "HTTPS://maf.example.com\n",
	} {
		bad := good
		bad.MAFs = map[onem2m.FQDN]string{maf: base}
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), string(maf)) {
			t.Errorf("%q: %v", base, err)
		}
	}
	for _, fqdn := range []onem2m.FQDN{"", "MAF.example.com", "maf example"} {
		bad := good
		bad.MAFs = map[onem2m.FQDN]string{fqdn: "https://maf.example.com"}
		if _, err := New(bad); err == nil {
			t.Errorf("the FQDN %q was accepted", fqdn)
		}
	}
	for name, bad := range map[string]Config{
		"no MAF":         {Certificate: good.Certificate},
		"no certificate": {MAFs: good.MAFs},
	} {
		if _, err := New(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
