package docs

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestReadme does what the README tells to do, in its order. Beside addresses one
// thing differs: THE-DIGITS, which the README leaves to its reader.
func TestReadme(t *testing.T) {
	r := newReader(t)
	defer r.end()
	r.follow(t, "README.md", read(t, "README.md"), []step{
		{"go run ./cmd/maf demo", r.demo},
		{"go install ./cmd/...", r.install},
		{"mafd", r.startMAF},
		{"maf client add", r.register},
		{"openssl s_client", r.device},
		{"maf handshake", r.tool},
		{"maf entity-b add", r.platform},
		{"state = ", r.configure},
		{"go run ./docs/examples/echocse", r.startCSE},
		{"mafgw", r.startGateway},
		{"maf client add", r.startProxy},
		{"curl", r.askBoth("Smeter8", "Smeter7")},
		{"./scripts/test", r.test},
	})
}

func (r *reader) demo(t *testing.T, script string) {
	begin := time.Now()
	story := r.run(t, script, root)
	t.Logf("took %v, building included", time.Since(begin).Round(time.Second))
	if !strings.Contains(story, "MAF") {
		t.Errorf("it tells nothing:\n%s", story)
	}
	// "leaves nothing behind"
	left, err := os.ReadDir(filepath.Join(r.home, "../tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("it left %v behind (%v)", left, err)
	}
}

func (r *reader) register(t *testing.T, script string) {
	r.run(t, script, r.home)
	if info, err := os.Stat(filepath.Join(r.home, "meter7.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key file: %v, %v", info, err)
	}
}

var keyingMaterial = regexp.MustCompile(`(?m)^ *Keying material: ([0-9A-F]{96})$`)

func (r *reader) device(t *testing.T, script string) {
	need(t, "openssl")
	said := r.run(t, r.elsewhere(t, script), r.home)
	m := keyingMaterial.FindStringSubmatch(said)
	if m == nil {
		t.Fatalf("no 48 octets of keying material in\n%s", said)
	}
	r.key, _ = hex.DecodeString(m[1])
}

func (r *reader) tool(t *testing.T, script string) {
	// The MAF's default address is nowhere to be seen in this one.
	script = strings.TrimSpace(script) + " --maf " + r.moved["127.0.0.1:7443"]
	if said := r.run(t, script, r.home); !strings.Contains(said, "KcID") {
		t.Errorf("no KcID:\n%s", said)
	}
}

// platform gets the key that openssl made, by the first 16 of its octets, and
// compares it with the other 32; and what mafd logged with both.
func (r *reader) platform(t *testing.T, script string) {
	need(t, "openssl")
	need(t, "curl")
	digits := strings.ToUpper(hex.EncodeToString(r.key[:16]))
	script = strings.ReplaceAll(script, "THE-DIGITS", digits)
	said := r.run(t, r.elsewhere(t, script), r.home)
	_, answer, _ := strings.Cut(said, "{")
	var got struct{ KcID, Kc, KmID string }
	if err := json.Unmarshal([]byte("{"+answer), &got); err != nil {
		t.Fatalf("%v in\n%s", err, said)
	}
	kcID := digits + "@maf.localhost"
	if want := base64.StdEncoding.EncodeToString(r.key[16:]); got.KcID != kcID || got.Kc != want || got.KmID != "meter7@maf.localhost" {
		t.Errorf("the key API says %+v; openssl exported %x", got, r.key)
	}
	r.mafd.until(t, "KcID="+kcID)
}

// test is not run, since it runs this.
func (r *reader) test(t *testing.T, script string) {
	if info, err := os.Stat(filepath.Join(root, strings.TrimSpace(script))); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("%s can't be run (%v)", script, err)
	}
}
