package deployment

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// A site is a MAF, a gateway and what stands behind it.
type site struct {
	dir       string
	mafd      *process
	maf       adminapi.Runtime
	gateway   *process
	addresses map[string]string    // of the gateway, by binding
	url       string               // of the CSE
	cse       *backendtest.Backend // when newSite made it
}

var (
	inCSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
	km    = []byte("a master key of 32 octets, known")
)

// meter is the KmID of a device whose AE-ID is S and its name.
func meter(name string) onem2m.KmID {
	return onem2m.KmID{Relative: name, FQDN: "maf.localhost"}
}

// newSite starts a MAF, and a gateway before an HTTP CSE with more lines in its
// configuration.
func newSite(t testing.TB, more string) *site {
	t.Helper()
	cse := backendtest.Start(t, backendtest.LastWins)
	s := newSiteBefore(t, cse.URL, more)
	s.cse = cse
	return s
}

// newSiteBefore is newSite with a CSE that is there, and more keys of [http].
func newSiteBefore(t testing.TB, url, more string, http ...string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "maf-site-") // short: there is a socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{dir: dir, url: url}
	s.startMAF(t)
	s.issue(t)
	s.startGateway(t, more, http...)
	return s
}

func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s.file(name)
}

// startMAF starts mafd; the second time on the same addresses.
func (s *site) startMAF(t testing.TB) {
	t.Helper()
	tls, dtls, keyAPI := "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	if s.mafd != nil {
		tls, dtls, keyAPI = s.maf.TLS[0], s.maf.DTLS[0], s.maf.KeyAPI[0]
	}
	s.mafd = run(t, "mafd", "-config", s.write(t, "mafd.toml", fmt.Sprintf(
		"state = \"mafd\"\nhandshake = { tls = [%q], dtls = [%q] }\nkeyapi.listen = [%q]\nlog.format = \"json\"\n", tls, dtls, keyAPI)))
	until(t, "mafd listens", func() bool {
		r, err := adminapi.ReadRuntime(s.file("mafd"))
		s.maf = r
		return err == nil && r.PID == s.mafd.Process.Pid
	})
}

// issue gives the gateway a certificate.
func (s *site) issue(t testing.TB) {
	t.Helper()
	b, err := adminapi.Open(s.maf.Admin).AddEntityB(t.Context(), adminapi.NewEntityB{CSEID: inCSE})
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, "cert.pem", b.Certificate)
	s.write(t, "key.pem", string(b.Key.Bytes()))
	s.write(t, "ca.pem", b.CA)
}

func (s *site) startGateway(t testing.TB, more string, http ...string) {
	t.Helper()
	s.gateway = run(t, "mafgw", "-config", s.write(t, "mafgw.toml", fmt.Sprintf(`
state = "mafgw"
cse = %q
certificate = "cert.pem"
key = "key.pem"
ca = "ca.pem"
maf = { "maf.localhost" = %q }
log.format = "json"
telemetry.listen = ["127.0.0.1:0"]
http = { listen = ["127.0.0.1:0"], backend = %q%s }
`, inCSE, "https://"+s.maf.KeyAPI[0], s.url, strings.Join(append([]string{""}, http...), ", "))+more))
	want := 2 + strings.Count(more, "listen = ")
	until(t, "mafgw listens", func() bool { return len(s.gateway.log("listening")) >= want })
	s.addresses = make(map[string]string)
	for _, entry := range s.gateway.log("listening") {
		s.addresses[entry["binding"].(string)] = entry["address"].(string)
	}
}

// register adds a device to the MAF, and returns it.
func (s *site) register(t testing.TB, name string) *saef.Device {
	t.Helper()
	c := adminapi.NewClient{Km: adminapi.Key{Key: secret.New(km)}}
	c.KmID, c.EntityB, c.AEID = meter(name), inCSE, onem2m.AEID{SP: inCSE.SP, Stem: "S" + name}
	if _, err := adminapi.Open(s.maf.Admin).Add(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return s.device(name)
}

func (s *site) device(name string) *saef.Device {
	return &saef.Device{MAF: s.maf.TLS[0], KmID: meter(name), Km: saef.NewSecret(km)}
}
