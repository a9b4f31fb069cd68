package docs

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/peers"
)

// A reader does what a document tells, by a shell and as it is printed. Only the
// addresses differ: what listens takes free ports, which replace the printed ones
// in what follows.
type reader struct {
	bin, home string   // where programs go, and where the reader is
	env       []string // of the reader's shell

	moved                map[string]string // where an address of the document really is
	mafd, cse, gw, proxy *program
	key                  []byte // the 48 octets that openssl exported
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
		moved: make(map[string]string),
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

// A step is how the reader follows one example, which begins so.
type step struct {
	begins string
	do     func(*testing.T, string)
}

// follow does what the examples of a document tell, in their order. Every one for
// the shell, and every file, needs its step.
func (r *reader) follow(t *testing.T, document, markdown string, steps []step) {
	for _, b := range blocks(markdown) {
		if b.language != "shell" && b.language != "toml" {
			continue
		}
		if len(steps) == 0 || !strings.HasPrefix(b.text, steps[0].begins) {
			t.Fatalf("%s:%d: nobody does this; say how in this test:\n%s", document, b.line, b.text)
		}
		if !t.Run(steps[0].begins, func(t *testing.T) { steps[0].do(t, b.text) }) {
			return // what follows builds on it
		}
		steps = steps[1:]
	}
	if len(steps) > 0 {
		t.Errorf("%s no longer has %q", document, steps[0].begins)
	}
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

// elsewhere puts the addresses where things really listen in the place of the
// printed ones.
func (r *reader) elsewhere(t *testing.T, script string) string {
	t.Helper()
	moved := script
	for printed, real := range r.moved {
		moved = strings.ReplaceAll(moved, printed, real)
	}
	if moved == script {
		t.Fatalf("no address that we know is in\n%s", script)
	}
	return moved
}

// A program goes on while the reader does other things.
type program struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu   sync.Mutex
	said bytes.Buffer // guarded by mu
}

// Write takes what the program says.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.Write(b)
}

func (p *program) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said.String()
}

// begin starts a program that goes on. The test ends it as Ctrl-C does.
func (r *reader) begin(t *testing.T, script, dir string) *program {
	t.Helper()
	p := &program{cmd: r.shell(script, dir), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with what it starts in turn
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p
}

// end ends a program, where it was begun.
func (p *program) end() {
	if p != nil {
		syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT)
		<-p.ended
	}
}

// until waits for what a program says, and returns the parts in parentheses.
func (p *program) until(t *testing.T, pattern string) []string {
	t.Helper()
	says := regexp.MustCompile(pattern)
	for range 6000 {
		if m := says.FindStringSubmatch(p.String()); m != nil {
			return m
		}
		select {
		case <-p.ended:
			t.Fatalf("it ended: %v\n%s", p.cmd.ProcessState, p)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("it does not say %q:\n%s", pattern, p)
	return nil
}

// end ends all programs.
func (r *reader) end() {
	for _, p := range []*program{r.proxy, r.gw, r.cse, r.mafd} {
		p.end()
	}
}

func (r *reader) install(t *testing.T, script string) {
	r.run(t, script, root)
	for _, program := range []string{"maf", "mafd", "mafgw"} {
		if _, err := os.Stat(filepath.Join(r.bin, program)); err != nil {
			t.Error(err)
		}
	}
}

// startMAF starts mafd, with a configuration that has the ports and nothing else.
func (r *reader) startMAF(t *testing.T, script string) {
	r.write(t, "ports.toml", "handshake = { tls = [\"127.0.0.1:0\"], dtls = [\"127.0.0.1:0\"] }\nkeyapi.listen = [\"127.0.0.1:0\"]\n")
	r.mafd = r.begin(t, "exec "+strings.TrimSpace(script)+" -config ports.toml", r.home)
	r.mafd.until(t, "This is the first start")
	runtime, err := adminapi.ReadRuntime(filepath.Join(r.home, "mafd"))
	if err != nil {
		t.Fatal(err)
	}
	r.moved["127.0.0.1:7443"], r.moved["127.0.0.1:7444"] = runtime.TLS[0], runtime.KeyAPI[0]
}

// here runs a script that needs no address.
func (r *reader) here(t *testing.T, script string) { r.run(t, script, r.home) }

func (r *reader) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.home, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startCSE starts what stands in for one.
func (r *reader) startCSE(t *testing.T, script string) {
	r.cse = r.begin(t, "exec "+strings.TrimSpace(script)+" -listen 127.0.0.1:0", root)
	r.moved["127.0.0.1:8080"] = r.cse.until(t, `listening on (\S+)`)[1]
}

// configure keeps the gateway's configuration, which the reader was shown, until
// all its addresses are known.
func (r *reader) configure(t *testing.T, text string) { r.write(t, "mafgw.toml", text) }

func (r *reader) startGateway(t *testing.T, script string) {
	config, err := os.ReadFile(filepath.Join(r.home, "mafgw.toml"))
	if err != nil {
		t.Fatal(err)
	}
	const listen = "127.0.0.1:8443"
	text := strings.Replace(r.elsewhere(t, string(config)), listen, "127.0.0.1:0", 1)
	r.write(t, "mafgw.toml", text)
	r.here(t, "mafgw -check -config mafgw.toml")
	r.gw = r.begin(t, "exec "+strings.TrimSpace(script), r.home)
	r.moved[listen] = r.gw.until(t, `binding=http address=(\S+)`)[1]
	r.gw.until(t, "msg=serving")
}

// startProxy runs all lines of a script but the last, and starts that, a maf
// proxy.
func (r *reader) startProxy(t *testing.T, script string) {
	lines := strings.Split(strings.TrimSpace(script), "\n")
	last := len(lines) - 1
	r.here(t, strings.Join(lines[:last], "\n"))
	const listen = "127.0.0.1:8081"
	// The MAF's default address is nowhere to be seen in this one.
	command := strings.Replace(r.elsewhere(t, lines[last]), listen, "127.0.0.1:0", 1) + " --maf " + r.moved["127.0.0.1:7443"]
	r.proxy = r.begin(t, "exec "+command, r.home)
	r.moved[listen] = r.proxy.until(t, `listening +(\S+)`)[1]
}

// need leaves a step out where a program is missing.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		peers.Missing(t, err.Error())
	}
}
