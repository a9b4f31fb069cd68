package docs

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
)

// TestGatewayWalk does what docs/gateway.md tells a newcomer.
func TestGatewayWalk(t *testing.T) {
	need(t, "curl")
	_, walk, _ := strings.Cut(read(t, "docs/gateway.md"), "\n## Five minutes\n")
	walk, _, _ = strings.Cut(walk, "\n## ")
	r := newReader(t)
	defer r.end()
	r.follow(t, "docs/gateway.md, five minutes", walk, []step{
		{"go install ./cmd/...", r.install},
		{"mafd", r.startMAF},
		{"maf client add", r.here},
		{"go run ./docs/examples/echocse", r.startCSE},
		{"state = ", r.configure},
		{"mafgw", r.startGateway},
		{"maf proxy", r.startProxy},
		{"curl", r.passes("Spump1")},
		{"curl", r.refused("Spump2")},
		{"maf client disable", r.takeBack},
	})
}

// passes returns a step in which the CSE is asked by, and answers, an originator.
func (r *reader) passes(from string) func(*testing.T, string) {
	return func(t *testing.T, script string) {
		need(t, "curl")
		said := r.run(t, r.elsewhere(t, script), r.home)
		if !strings.Contains(said, "HTTP/1.1 200 ") || !strings.Contains(said, " by "+from) {
			t.Errorf("got\n%s", said)
		}
		r.cse.until(t, " by "+from)
	}
}

// refused returns a step in which the CSE is not asked by an originator.
func (r *reader) refused(from string) func(*testing.T, string) {
	return func(t *testing.T, script string) {
		need(t, "curl")
		said := r.run(t, r.elsewhere(t, script), r.home)
		if !strings.Contains(said, "HTTP/1.1 403 ") || !strings.Contains(said, "X-M2M-RSC: 4106") {
			t.Errorf("got\n%s", said)
		}
		r.gw.until(t, `msg="request refused".*from=`+from+`.*reason=`)
		if strings.Contains(r.cse.String(), from) {
			t.Errorf("the CSE has seen\n%s", r.cse)
		}
	}
}

// askBoth returns a step that does the printed request, and the same as another.
func (r *reader) askBoth(self, other string) func(*testing.T, string) {
	return func(t *testing.T, script string) {
		r.passes(self)(t, script)
		r.refused(other)(t, strings.ReplaceAll(script, self, other))
	}
}

// takeBack takes the key away, and waits until the device gets no answer.
func (r *reader) takeBack(t *testing.T, script string) {
	r.here(t, script)
	ask := r.elsewhere(t, "curl -sS -m 30 -H 'X-M2M-RI: 3' -H 'X-M2M-RVI: 3' -H 'X-M2M-Origin: Spump1' http://127.0.0.1:8081/in-cse")
	for range 1000 {
		if r.shell(ask, r.home).Run() != nil {
			r.gw.until(t, "msg=revoked")
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("the device still gets answers:\n%s", r.gw)
}

var cseLine = regexp.MustCompile(`(?m)^cse = "(.*)"`)

// TestGatewayExamples: mafgw takes the configurations for well-known CSEs, and
// docs/gateway.md has each of them.
func TestGatewayExamples(t *testing.T) {
	examples, err := filepath.Glob(filepath.Join(root, "docs/examples/gateway-*.toml"))
	if err != nil || len(examples) < 4 {
		t.Fatalf("%v, %v", examples, err)
	}
	manual := read(t, "docs/gateway.md")
	for _, path := range examples {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(manual, "(examples/"+name+")") {
				t.Error("docs/gateway.md does not speak of it")
			}
			text := read(t, "docs/examples/"+name)
			dir := t.TempDir()
			certify(t, cseLine.FindStringSubmatch(text)[1], filepath.Join(dir, "entity-b"))
			config := filepath.Join(dir, name)
			if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			if code := gateway.Main([]string{"-check", "-config", config}, &said, &said); code != 0 {
				t.Fatalf("%d\n%s", code, &said)
			}
			start(t, config, filepath.Join(dir, "state"))
		})
	}
}

// start starts and stops a gateway with a configuration, but for where it listens
// and what it remembers.
func start(t *testing.T, config, state string) {
	t.Helper()
	c := gateway.Defaults()
	if err := c.LoadFile(config); err != nil {
		t.Fatal(err)
	}
	c.State = state
	for _, listen := range []*[]string{&c.HTTP.Listen, &c.HTTP.NotifyListen, &c.CoAP.Listen, &c.CoAP.NotifyListen, &c.MQTT.Listen, &c.Telemetry.Listen} {
		for i := range *listen {
			(*listen)[i] = "127.0.0.1:0"
		}
	}
	g, err := gateway.Start(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestGatewaySnippets: mafgw takes what docs/gateway.md shows of its configuration,
// added to the one that it begins with.
func TestGatewaySnippets(t *testing.T) {
	var first string
	for _, b := range blocks(read(t, "docs/gateway.md")) {
		if b.language != "toml" {
			continue
		}
		if first == "" {
			first = b.text
		}
		dir := t.TempDir()
		certify(t, cseLine.FindStringSubmatch(first)[1], filepath.Join(dir, "entity-b"))
		text := first
		if b.text != first {
			text += b.text
		}
		config := filepath.Join(dir, "mafgw.toml")
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var said bytes.Buffer
		if code := gateway.Main([]string{"-check", "-config", config}, &said, &said); code != 0 {
			t.Errorf("docs/gateway.md:%d: %d\n%s", b.line, code, &said)
		}
	}
}

// certify makes the three files that "maf entity-b add" makes.
func certify(t *testing.T, cse, dir string) {
	t.Helper()
	id, err := onem2m.ParseCSEID(cse)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := authority.EntityB(id, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"cert.pem": b.CertificatePEM, "key.pem": b.KeyPEM.Bytes(), "ca.pem": authority.CertificatePEM()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
