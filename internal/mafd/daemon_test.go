package mafd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// The names that the tests use.
const (
	served     = onem2m.FQDN("maf.example.com")
	alsoServed = onem2m.FQDN("maf.example.net")
	cityCSE    = "//city.example/in-cse"
	rivalCSE   = "//rival.example/in-cse"
	meterID    = "meter7@maf.example.com"
	meterAEID  = "//city.example/Smeter7"
)

const (
	// patience is for what takes milliseconds, on a machine that is busy.
	patience = 20 * time.Second
	// quickly is how soon DTLS clients repeat themselves: a server takes a
	// wrong key for a lost datagram at first.
	quickly = 50 * time.Millisecond
)

// shortDir is t.TempDir with a name that leaves room for a Unix socket.
func shortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mafd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// testConfig listens on free ports and allows keys that end soon.
func testConfig(dir string) Config {
	c := Defaults()
	c.State = filepath.Join(dir, "state")
	c.FQDNs = []onem2m.FQDN{served, alsoServed}
	c.Handshake.TLS = []string{"127.0.0.1:0"}
	c.Handshake.DTLS = []string{"127.0.0.1:0"}
	c.KeyAPI.Listen = []string{"127.0.0.1:0"}
	c.Keys.MinLifetime = authority.MinLifetime
	return c
}

// testMAF is a daemon in this process with its administrator.
type testMAF struct {
	*Daemon
	admin *adminapi.Admin
	log   *lockedBuffer
}

// startMAF starts a daemon and stops it when the test ends, if not before.
func startMAF(t testing.TB, config Config) *testMAF {
	t.Helper()
	log := &lockedBuffer{}
	d, err := Start(t.Context(), config, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	m := &testMAF{d, adminapi.Open(d.Runtime.Admin), log}
	t.Cleanup(func() { m.stop(t) })
	return m
}

// stop ends the daemon, unless that has been done.
func (m *testMAF) stop(t testing.TB) {
	t.Helper()
	if m.Daemon == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := m.Stop(ctx); err != nil {
		t.Errorf("stopping: %v", err)
	}
	m.Daemon = nil
}

// address is where a handshake goes over the given network.
func (m *testMAF) address(network string) string {
	if network == "udp" {
		return m.Runtime.DTLS[0]
	}
	return m.Runtime.TLS[0]
}

// add provisions a client for cityCSE and returns its key.
func (m *testMAF) add(t testing.TB, id string, change func(*adminapi.NewClient)) secret.Key {
	t.Helper()
	c := adminapi.NewClient{Client: adminapi.Client{KmID: kmID(t, id), EntityB: cseID(t, cityCSE)}}
	if change != nil {
		change(&c)
	}
	made, err := m.admin.Add(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return made.Km.Key
}

// device is Entity A.
func (m *testMAF) device(t testing.TB, network, id string, km secret.Key) *saef.Device {
	return &saef.Device{MAF: m.address(network), MAFNetwork: network, KmID: kmID(t, id), Km: km,
		Config: &tlspsk.Config{HandshakeTimeout: patience}}
}

// certificate issues one for an Entity B from the daemon's own authority.
func (m *testMAF) certificate(t testing.TB, cse string) tls.Certificate {
	t.Helper()
	b, err := m.admin.AddEntityB(t.Context(), adminapi.NewEntityB{CSEID: cseID(t, cse)})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(b.Certificate), b.Key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// roots is what Entity Bs trust.
func (m *testMAF) roots(t testing.TB) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(m.Runtime.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	return pool
}

// keys asks the key API as the owner of the certificate.
func (m *testMAF) keys(t testing.TB, certificate tls.Certificate) *keyclient.Client {
	t.Helper()
	c, err := keyclient.New(keyclient.Config{MAFs: m.keyAPIs(), Certificate: certificate, RootCAs: m.roots(t), Timeout: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}

func (m *testMAF) keyAPIs() map[onem2m.FQDN]string {
	url := "https://" + m.Runtime.KeyAPI[0]
	return map[onem2m.FQDN]string{served: url, alsoServed: url}
}

func kmID(t testing.TB, s string) onem2m.KmID {
	t.Helper()
	id, err := onem2m.ParseKmID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func cseID(t testing.TB, s string) onem2m.CSEID {
	t.Helper()
	id, err := onem2m.ParseCSEID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func aeID(t testing.TB, s string) onem2m.AEID {
	t.Helper()
	id, err := onem2m.ParseAEID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestFirstStart: with nothing there, mafd makes what it needs, privately, and
// says what and where; the second start makes nothing.
func TestFirstStart(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	said := m.firstStart()
	for _, want := range []string{"This is the first start", storeName, keysetName, caKeyName,
		m.Runtime.TLS[0], m.Runtime.DTLS[0], m.Runtime.KeyAPI[0], m.Runtime.Admin,
		"maf client add meter7@maf.example.com", "--socket " + m.Runtime.Admin} {
		if !strings.Contains(said, want) {
			t.Errorf("the first start doesn't say %q:\n%s", want, said)
		}
	}
	r, err := adminapi.ReadRuntime(config.State)
	if err != nil || fmt.Sprint(r) != fmt.Sprint(m.Runtime) {
		t.Errorf("runtime.json says %+v (%v), want %+v", r, err, m.Runtime)
	}
	if status, err := m.admin.Status(t.Context()); err != nil || fmt.Sprint(status) != fmt.Sprint(m.Runtime) {
		t.Errorf("the admin API says %+v (%v)", status, err)
	}
	m.stop(t)
	if _, err := adminapi.ReadRuntime(config.State); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("runtime.json outlives mafd (%v)", err)
	}
	m = startMAF(t, config)
	if said := m.firstStart(); said != "" {
		t.Errorf("the second start says %q", said)
	}
}

// TestRestart: clients, keys and Entity Bs' certificates survive a restart.
func TestRestart(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	km := m.add(t, meterID, func(c *adminapi.NewClient) { c.AEID = aeID(t, meterAEID) })
	certificate := m.certificate(t, cityCSE)
	key, err := m.device(t, "tcp", meterID, km).Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.keys(t, certificate).Get(t.Context(), key.KcID)
	if err != nil {
		t.Fatal(err)
	}
	if !want.Kc.Equal(key.Kc) {
		t.Error("Entity B has another Kc than the device")
	}
	client, err := m.admin.Get(t.Context(), kmID(t, meterID))
	if err != nil {
		t.Fatal(err)
	}
	m.stop(t)

	m = startMAF(t, config)
	again, err := m.admin.Get(t.Context(), kmID(t, meterID))
	if err != nil || again != client {
		t.Errorf("the client is %+v (%v), was %+v", again, err, client)
	}
	got, err := m.keys(t, certificate).Get(t.Context(), key.KcID)
	if err != nil {
		t.Fatal(err)
	}
	if !got.Kc.Equal(want.Kc) || !got.Expires.Equal(want.Expires) || got.KmID != want.KmID || got.AEID != want.AEID {
		t.Errorf("the key is %+v, was %+v", got, want)
	}
	if _, err := m.device(t, "udp", meterID, km).Handshake(t.Context()); err != nil {
		t.Errorf("the device does not get in any more: %v", err)
	}
}

// TestStartFails: a start that fails gives everything back and says what to
// change.
func TestStartFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := testConfig(shortDir(t))
	config.KeyAPI.Listen = []string{taken.Addr().String()}
	_, err = Start(t.Context(), config, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "keyapi.listen: another program listens on "+taken.Addr().String()) {
		t.Errorf("with a port in use: %v", err)
	}
	config.KeyAPI.Listen = []string{"127.0.0.1:0"}
	startMAF(t, config) // the lock and the sockets are free again
}

// TestConfiguredCertificates: with certificates of the operator's own, the key
// API uses them, and mafd's own authority vouches for nobody.
func TestConfiguredCertificates(t *testing.T) {
	dir := shortDir(t)
	other := startMAF(t, testConfig(filepath.Join(dir, "other")))
	b, err := other.admin.AddEntityB(t.Context(), adminapi.NewEntityB{CSEID: cseID(t, cityCSE)})
	if err != nil {
		t.Fatal(err)
	}
	server, err := other.ca.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	config := testConfig(dir)
	config.KeyAPI.ClientCA = other.Runtime.CA
	config.KeyAPI.Certificate, config.KeyAPI.Key = writePair(t, dir, server)
	m := startMAF(t, config)
	if m.Runtime.CA != "" {
		t.Errorf("Entity Bs are told to trust %s", m.Runtime.CA)
	}
	m.Runtime.CA = other.Runtime.CA
	pair, err := tls.X509KeyPair([]byte(b.Certificate), b.Key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	unknown := onem2m.KcID{Relative: onem2m.RelativeKeyID{1}, FQDN: served}
	if _, err := m.keys(t, pair).Get(t.Context(), unknown); !errors.Is(err, keyclient.ErrNotFound) {
		t.Errorf("an Entity B of the configured authority gets %v", err)
	}
	if _, err := m.admin.AddEntityB(t.Context(), adminapi.NewEntityB{CSEID: cseID(t, cityCSE)}); !errors.Is(err, adminapi.CodeNotAuthority) {
		t.Errorf("mafd issues certificates that it would not accept (%v)", err)
	}
}

// writePair writes a certificate and its key to files.
func writePair(t *testing.T, dir string, pair *tls.Certificate) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]pemBlock{cert: {"CERTIFICATE", pair.Certificate[0]}, key: {"PRIVATE KEY", private}} {
		if err := os.WriteFile(path, block.encode(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
