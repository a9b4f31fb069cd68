// Package gwtest gives the tests of the gateway's bindings what they stand
// between: devices with their MAF, and an Entity B that listens.
//
//	site := gwtest.New(t)
//	listener := site.Listen("tcp")
//	device := site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
//	conn, err := device.Dial(ctx, "tcp", listener.Addr().String())
//
// The MAF is a stand-in of tlspsk and keyapi with its keys in memory.
package gwtest

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// FQDN is the MAF's name.
const FQDN onem2m.FQDN = "maf.example.com"

// CSE is IdB: the CSE in front of which the gateway stands.
var CSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}

// A Site is a MAF with its devices, and Entity B. Everything ends with the test.
type Site struct {
	// EntityB trusts the MAF. Its fields may be changed before Listen.
	EntityB *saef.EntityB

	t   testing.TB
	maf *maf
}

// New starts a MAF without devices, and makes an Entity B for CSE.
func New(t testing.TB) *Site {
	t.Helper()
	ca, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := &Site{t: t, maf: startMAF(t, ca)}
	issued, err := ca.EntityB(CSE, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(issued.CertificatePEM, issued.KeyPEM.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	s.EntityB = &saef.EntityB{
		MAFs:        map[onem2m.FQDN]string{FQDN: s.maf.keyAPI},
		Certificate: cert,
		RootCAs:     ca.Pool(),
	}
	t.Cleanup(func() { s.EntityB.Close() })
	return s
}

// Listen starts a listener of EntityB, over "tcp" or "udp".
func (s *Site) Listen(network string) *saef.Listener {
	s.t.Helper()
	l, err := s.EntityB.Listen(network, "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { l.Close() })
	return l
}

// AE returns a new device whose AE-ID, in absolute form, the MAF knows. Its KmID
// is made of name, which is to be lower case and used once.
func (s *Site) AE(name, aeID string) *saef.Device {
	s.t.Helper()
	id, err := onem2m.ParseAEID(aeID)
	if err != nil || !id.IsAbsolute() {
		s.t.Fatalf("AE-ID %q: not absolute, or %v", aeID, err)
	}
	return s.device(name, client{aeID: id})
}

// CSE returns a new device whose CSE-ID, in absolute form, the MAF knows.
func (s *Site) CSE(name, cseID string) *saef.Device {
	s.t.Helper()
	id, err := onem2m.ParseCSEID(cseID)
	if err != nil || !id.IsAbsolute() {
		s.t.Fatalf("CSE-ID %q: not absolute, or %v", cseID, err)
	}
	return s.device(name, client{cseID: id})
}

// Unnamed returns a new device of which the MAF knows nothing but its key: its
// associations are of the Credential-ID "11-name@maf.example.com".
func (s *Site) Unnamed(name string) *saef.Device {
	s.t.Helper()
	return s.device(name, client{})
}

// Device returns a new device whose associations are like a: of the same KmID,
// which is to be used once, and AE-ID or CSE-ID.
func (s *Site) Device(a saef.Association) *saef.Device {
	s.t.Helper()
	return s.device(a.KmID.Relative, client{aeID: a.AEID, cseID: a.CSEID})
}

func (s *Site) device(name string, c client) *saef.Device {
	s.t.Helper()
	id, err := onem2m.ParseKmID(name + "@" + FQDN.String())
	if err != nil {
		s.t.Fatal(err)
	}
	c.km = saef.NewSecret(bytes.Repeat([]byte(name), 32)[:32])
	s.maf.add(id, c)
	return &saef.Device{MAF: s.maf.handshakes["tcp"], KmID: id, Km: c.km}
}

// Logger returns a logger that writes to the test's log, and to nowhere once
// the test has ended.
func Logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.close)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu sync.Mutex
	t  testing.TB // nil when the test has ended; guarded by mu
}

func (w *testWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", bytes.TrimSpace(p))
	}
	return len(p), nil
}

func (w *testWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
