package gateway

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
)

var (
	inCSE    = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
	otherCSE = onem2m.CSEID{SP: "sp.example.com", ID: "other"}
)

// configure writes a configuration that works, with certificates for a CSE, and
// returns its path.
func configure(t *testing.T, cse onem2m.CSEID, issued time.Time, more string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority, err := pki.New("test", issued)
	if err != nil {
		t.Fatal(err)
	}
	b, err := authority.EntityB(cse, issued, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write("cert.pem", b.CertificatePEM)
	write("key.pem", b.KeyPEM.Bytes())
	write("ca.pem", authority.CertificatePEM())
	return write("mafgw.toml", fmt.Appendf(nil, `
state = "state"
cse = %q
certificate = "cert.pem"
key = "key.pem"
ca = "ca.pem"
maf = { "maf.localhost" = "https://127.0.0.1:1" }
http = { listen = ["127.0.0.1:0"], backend = "http://127.0.0.1:1" }
%s`, inCSE, more))
}

// TestCheck: what would only show when the first device comes is found before.
func TestCheck(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		name, path, want string
		code             int
	}{
		{"good", configure(t, inCSE, now, ""), "", exitOK},
		{"certificate of another CSE", configure(t, otherCSE, now, ""),
			"cert.pem: the certificate is that of //sp.example.com/other, and the MAF would give it no key for //sp.example.com/in-cse", exitUsage},
		{"certificate at its end", configure(t, inCSE, now.Add(-48*time.Hour), ""), "cert.pem: the certificate ended on ", exitUsage},
		{"no password", configure(t, inCSE, now, "mqtt = { listen = [\"127.0.0.1:0\"], broker = \"127.0.0.1:1\", username = \"u\", password_file = \"none\" }\n"),
			"mqtt.password_file: open ", exitUsage},
		{"no file", "none.toml", "open none.toml: ", exitUsage},
	} {
		t.Run(c.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := Main([]string{"-check", "-config", c.path}, &stdout, &stderr)
			if code != c.code || !strings.Contains(stderr.String(), c.want) {
				t.Errorf("%d and\n%s\nwant %d and\n%s", code, &stderr, c.code, c.want)
			}
			if good := stdout.String() == "the configuration is good\n"; good != (code == exitOK) {
				t.Errorf("%d and %q", code, &stdout)
			}
		})
	}
}

// TestCommandLine: what is wrong with it is said, with what helps.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
		code int
	}{
		{nil, "try: mafgw -config", exitUsage},
		{[]string{"serve"}, `there is no argument "serve"`, exitUsage},
		{[]string{"-confg", "x"}, "not defined: -confg", exitUsage},
		{[]string{"-help"}, "Usage: mafgw -config FILE", exitOK},
	} {
		var stdout, stderr bytes.Buffer
		if code := Main(c.args, &stdout, &stderr); code != c.code || !strings.Contains(stderr.String(), c.want) || stdout.Len() > 0 {
			t.Errorf("mafgw %q: %d and\n%s%s\nwant %d and %q", c.args, code, &stdout, &stderr, c.code, c.want)
		}
	}
}
