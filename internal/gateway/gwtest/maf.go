package gwtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// lifetime is for how long each Kc is good.
const lifetime = time.Hour

// maf is a MAF of which every Entity B with a certificate gets every key: who
// may have which is tested elsewhere.
type maf struct {
	handshakes map[string]string // addresses by network
	keyAPI     string            // base URL

	mu      sync.Mutex
	clients map[onem2m.KmID]client      // guarded by mu
	keys    map[onem2m.KcID]*keyapi.Key // guarded by mu
}

// client is a device as the MAF knows it.
type client struct {
	km    saef.Secret
	aeID  onem2m.AEID
	cseID onem2m.CSEID
}

func startMAF(t testing.TB, ca *pki.Authority) *maf {
	t.Helper()
	m := &maf{
		handshakes: make(map[string]string),
		clients:    make(map[onem2m.KmID]client),
		keys:       make(map[onem2m.KcID]*keyapi.Key),
	}
	for _, network := range []string{"tcp", "udp"} {
		m.handshakes[network] = m.serveHandshakes(t, network)
	}
	m.keyAPI = m.serveKeys(t, ca)
	return m
}

func (m *maf) add(id onem2m.KmID, c client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clients[id] = c
}

func (m *maf) serveHandshakes(t testing.TB, network string) string {
	t.Helper()
	l, err := tlspsk.Listen(network, "127.0.0.1:0", &tlspsk.Config{GetPSK: m.getPSK, VerifyConnection: m.establish})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				// Over DTLS a server stays until the client has its Finished.
				c.Read(make([]byte, 1))
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func (m *maf) getPSK(_ context.Context, req *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
	id, err := onem2m.ParseKmID(string(req.Identity))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", tlspsk.ErrUnknownIdentity, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.clients[id]
	if !ok {
		return nil, tlspsk.ErrUnknownIdentity
	}
	return &tlspsk.PSK{Key: c.km.Bytes(), Data: id}, nil
}

func (m *maf) establish(_ context.Context, cs *tlspsk.ConnectionState) error {
	exported, err := cs.ExportKeyingMaterial(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
	if err != nil {
		return err
	}
	relative, kc, err := kdf.Connection(exported)
	if err != nil {
		return err
	}
	id := onem2m.KcID{Relative: relative, FQDN: FQDN}
	m.mu.Lock()
	defer m.mu.Unlock()
	kmID := cs.PSKData.(onem2m.KmID)
	c := m.clients[kmID]
	m.keys[id] = &keyapi.Key{
		KcID: id, Kc: kc, Expires: time.Now().Add(lifetime), Lifetime: lifetime,
		KmID: kmID, SUID: onem2m.SUIDSAEF, AEID: c.aeID, CSEID: c.cseID,
	}
	return nil
}

func (m *maf) serveKeys(t testing.TB, ca *pki.Authority) string {
	t.Helper()
	cert, err := ca.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler:   http.HandlerFunc(m.serveKey),
		ErrorLog:  log.New(io.Discard, "", 0), // of connections that a test's end cuts
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
	}
	var done sync.WaitGroup
	done.Go(func() { server.ServeTLS(l, "", "") })
	t.Cleanup(func() { server.Close(); done.Wait() })
	return "https://" + l.Addr().String()
}

func (m *maf) serveKey(w http.ResponseWriter, r *http.Request) {
	id, ok := keyapi.ParsePath(r.URL.EscapedPath())
	m.mu.Lock()
	key := m.keys[id]
	m.mu.Unlock()
	w.Header().Set("Content-Type", keyapi.ContentType)
	if !ok || key == nil {
		w.WriteHeader(http.StatusNotFound)
		json.NewEncoder(w).Encode(keyapi.Problem{Error: "no such key"})
		return
	}
	body, err := key.Encode()
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Write(body)
}
