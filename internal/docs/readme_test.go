package docs

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/peers"
)

// TestReadme does what the README tells to do, in its order, by a shell and as
// it is printed. Two things differ: mafd listens on free ports, which replace the
// default ones in what follows (see elsewhere), and THE-DIGITS, which the README
// leaves to its reader.
func TestReadme(t *testing.T) {
	r := newReader(t)
	defer func() { r.log() }()
	steps := []struct {
		begins string
		do     func(*testing.T, string)
	}{
		{"go run ./cmd/maf demo", r.demo},
		{"go install ./cmd/...", r.install},
		{"mafd", r.mafd},
		{"maf client add", r.register},
		{"openssl s_client", r.device},
		{"maf handshake", r.tool},
		{"maf entity-b add", r.platform},
		{"./scripts/test", r.test},
	}
	for _, b := range blocks(read(t, "README.md")) {
		if b.language != "shell" {
			continue
		}
		if len(steps) == 0 || !strings.HasPrefix(b.text, steps[0].begins) {
			t.Fatalf("README.md:%d: nobody runs these commands; say how in this test:\n%s", b.line, b.text)
		}
		if !t.Run(steps[0].begins, func(t *testing.T) { steps[0].do(t, b.text) }) {
			return // what follows builds on it
		}
		steps = steps[1:]
	}
	if len(steps) > 0 {
		t.Errorf("README.md no longer tells to run %q", steps[0].begins)
	}
}

// A reader follows the README.
type reader struct {
	bin, home string   // where programs go, and where the reader is
	env       []string // of the reader's shell

	runtime adminapi.Runtime // of the mafd that the reader started
	log     func() string    // ends that mafd and returns what it said
	key     []byte           // the 48 octets that openssl exported
}

func newReader(t *testing.T) *reader {
	// Not t.TempDir: a Unix socket's path must be short.
	dir, err := os.MkdirTemp("", "maf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	r := &reader{
		bin: filepath.Join(dir, "bin"), home: filepath.Join(dir, "home"),
		log: func() string { return "" },
	}
	for _, folder := range []string{r.bin, r.home, filepath.Join(dir, "tmp")} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.env = append(os.Environ(), "GOBIN="+r.bin, "PATH="+r.bin+string(filepath.ListSeparator)+os.Getenv("PATH"),
		"XDG_STATE_HOME="+r.home, "TMPDIR="+filepath.Join(dir, "tmp"),
		"CGO_ENABLED=0", // or under the race detector everything is built again
		// Nothing of a mafd that this machine may have.
		"STATE_DIRECTORY=", adminapi.SocketVariable+"=", "MAF_KM=")
	return r
}

// shell returns a command that runs the script in a folder.
func (r *reader) shell(script, dir string) *exec.Cmd {
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir, cmd.Env = dir, r.env
	return cmd
}

// run runs the script to its end, which must be a good one, and returns what it
// printed.
func (r *reader) run(t *testing.T, script, dir string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := r.shell(script, dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s%v\n%s%s", script, err, &stdout, &stderr)
	}
	return stdout.String()
}

// elsewhere puts the addresses of the reader's mafd in the place of the default
// ones.
func (r *reader) elsewhere(t *testing.T, script string) string {
	t.Helper()
	moved := strings.NewReplacer("127.0.0.1:7443", r.runtime.TLS[0], "127.0.0.1:7444", r.runtime.KeyAPI[0]).Replace(script)
	if moved == script {
		t.Fatalf("no default address is in\n%s", script)
	}
	return moved
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

func (r *reader) install(t *testing.T, script string) {
	r.run(t, script, root)
	for _, program := range []string{"maf", "mafd"} {
		if _, err := os.Stat(filepath.Join(r.bin, program)); err != nil {
			t.Error(err)
		}
	}
}

// mafd starts mafd, with a configuration that has the ports and nothing else.
func (r *reader) mafd(t *testing.T, script string) {
	config := "handshake = { tls = [\"127.0.0.1:0\"], dtls = [\"127.0.0.1:0\"] }\nkeyapi.listen = [\"127.0.0.1:0\"]\n"
	if err := os.WriteFile(filepath.Join(r.home, "ports.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := r.shell("exec "+strings.TrimSpace(script)+" -config ports.toml", r.home)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	r.log = func() string {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		return log.String()
	}
	for range 3000 {
		var err error
		if r.runtime, err = adminapi.ReadRuntime(filepath.Join(r.home, "mafd")); err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatalf("it ended: %v\n%s", cmd.ProcessState, &log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("it does not listen:\n%s", r.log())
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
	script = strings.TrimSpace(script) + " --maf " + r.runtime.TLS[0]
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
	log := r.log()
	if !strings.Contains(log, "This is the first start") || !strings.Contains(log, "KcID="+kcID) {
		t.Errorf("mafd did not log %s, or not what it made:\n%s", kcID, log)
	}
}

// test is not run, since it runs this.
func (r *reader) test(t *testing.T, script string) {
	if info, err := os.Stat(filepath.Join(root, strings.TrimSpace(script))); err != nil || info.Mode().Perm()&0o111 == 0 {
		t.Errorf("%s can't be run (%v)", script, err)
	}
}

// need leaves a step out where a program is missing.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		peers.Missing(t, err.Error())
	}
}
