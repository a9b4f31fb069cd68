package leaks

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// patience is for what takes milliseconds.
const patience = 30 * time.Second

// A stage is a folder with the real programs, what they printed in it, and the
// secrets that they had to keep.
type stage struct {
	t       *testing.T
	dir     string
	secrets *finder

	mu      sync.Mutex
	printed []*output // guarded by mu
}

// An output is what one program printed, on both of its outputs.
type output struct {
	what string
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text.Bytes())
}

// newStage builds the programs.
func newStage(t *testing.T) *stage {
	t.Helper()
	// Not t.TempDir: a Unix socket's path must be short, and others than the
	// test's user have to get in (see TestUndumpable).
	dir, err := os.MkdirTemp("", "maf-leaks-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", dir, "./cmd/maf", "./cmd/mafd", "./cmd/mafgw")
	build.Dir = "../.."
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the programs: %v\n%s", err, text)
	}
	return &stage{t: t, dir: dir, secrets: newFinder()}
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

func (s *stage) output(what string) *output {
	o := &output{what: what}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.printed = append(s.printed, o)
	return o
}

// write makes a file that only its owner can read.
func (s *stage) write(name, text string) string {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return s.path(name)
}

// command prepares a program with no environment but what it needs.
func (s *stage) command(env []string, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(s.path(program), args...)
	cmd.Dir = s.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir, "GOTRACEBACK=all",
		adminapi.SocketVariable + "=" + s.path("state/admin.sock")}, env...)
	return cmd
}

// A call is a run of maf.
type call struct {
	args  []string
	env   []string
	stdin string
	exit  int
	// private is set when it prints a key because it is asked to.
	private bool
}

// run runs maf to its end and returns what it printed.
func (s *stage) run(c call) string {
	s.t.Helper()
	text, code := s.try(c)
	if code != c.exit {
		s.t.Errorf("maf %s: exit %d, want %d\n%s", strings.Join(c.args[:min(2, len(c.args))], " "), code, c.exit, text)
	}
	return text
}

// try is run with any exit code, which it returns.
func (s *stage) try(c call) (printed string, exit int) {
	s.t.Helper()
	cmd := s.command(c.env, "maf", c.args...)
	cmd.Stdin = strings.NewReader(c.stdin)
	what := "maf " + strings.Join(c.args[:min(2, len(c.args))], " ")
	out := &output{what: what}
	if !c.private {
		out = s.output(what)
	}
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Run() // the exit code tells
	return string(out.bytes()), cmd.ProcessState.ExitCode()
}

// A process is a program that runs until it is ended.
type process struct {
	s    *stage
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed when it has ended
}

func (s *stage) start(what string, cmd *exec.Cmd) *process {
	s.t.Helper()
	p := &process{s: s, cmd: cmd, out: s.output(what), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.out
	}
	cmd.Stderr = p.out
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	s.t.Cleanup(func() {
		cmd.Process.Kill() // an error means that it has ended
		<-p.done
	})
	return p
}

// await waits until the program has printed a text.
func (p *process) await(text string) {
	p.s.t.Helper()
	for deadline := time.Now().Add(patience); !bytes.Contains(p.out.bytes(), []byte(text)); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.s.t.Fatalf("%s does not say %q\n%s", p.out.what, text, p.out.bytes())
		}
	}
}

// end sends a signal and waits for the end.
func (p *process) end(signal syscall.Signal) syscall.WaitStatus {
	p.s.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.s.t.Fatalf("%s: %v\n%s", p.out.what, err, p.out.bytes())
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		p.s.t.Fatalf("%s does not end", p.out.what)
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// startMAF starts mafd at debug level and waits until it listens.
func (s *stage) startMAF(format string, change func(*exec.Cmd)) (*process, adminapi.Runtime) {
	s.t.Helper()
	config := s.write("mafd.toml", `
state = "state"
handshake = { tls = ["127.0.0.1:0"], dtls = ["127.0.0.1:0"] }
keyapi.listen = ["127.0.0.1:0"]
keys.min_lifetime = "2s"
log = { level = "debug", format = "`+format+`" }
`)
	cmd := s.command(nil, "mafd", "-config", config)
	if change != nil {
		change(cmd)
	}
	p := s.start("mafd, log in "+format, cmd)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if r, err := adminapi.ReadRuntime(s.path("state")); err == nil && r.PID == cmd.Process.Pid {
			return p, r
		}
		select {
		case <-p.done:
			s.t.Fatalf("mafd ended: %v\n%s", cmd.ProcessState, p.out.bytes())
		default:
		}
	}
	s.t.Fatalf("mafd does not listen\n%s", p.out.bytes())
	panic("unreachable")
}

// startPlatform starts an Entity B with the certificate in a folder, and returns
// its address.
func (s *stage) startPlatform(r adminapi.Runtime, folder string) (*process, string) {
	s.t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		s.t.Fatal(err)
	}
	defer write.Close()
	cmd := s.command(nil, "maf", "demo-platform", folder, r.FQDNs[0].String(), "https://"+r.KeyAPI[0])
	cmd.Stdout = write
	p := s.start("Entity B in "+folder, cmd)
	out := bufio.NewReader(read)
	first, err := out.ReadBytes('\n')
	if err != nil {
		s.t.Fatalf("Entity B: %v\n%s", err, p.out.bytes())
	}
	p.out.Write(first)
	go func() {
		io.Copy(p.out, out)
		read.Close()
	}()
	var event struct{ Listening string }
	if err := json.Unmarshal(first, &event); err != nil {
		s.t.Fatal(err)
	}
	return p, event.Listening
}

// addKeyFile adds the key in a file of maf's to the secrets.
func (s *stage) addKeyFile(name, file string) {
	s.t.Helper()
	text, err := os.ReadFile(s.path(file))
	if err != nil {
		s.t.Fatal(err)
	}
	key := keyIn(text)
	if key == nil {
		s.t.Fatalf("%s holds no key", file)
	}
	s.secrets.add(name, key)
}

// check searches everything that was printed, and the files of the state
// folder, for the secrets.
func (s *stage) check(keyFiles ...string) {
	s.t.Helper()
	var size int
	for _, o := range s.printed {
		text := o.bytes()
		size += len(text)
		s.secrets.check(s.t, o.what, text)
	}
	skip := make(map[string]bool)
	for _, name := range keyFiles {
		skip[s.path(name)] = true
	}
	var files int
	err := filepath.WalkDir(s.path("state"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || skip[path] {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // such as the database's log, just now
		}
		files++
		s.secrets.check(s.t, path, text)
		return err
	})
	if err != nil {
		s.t.Error(err)
	}
	s.t.Logf("%d secrets are not in %d octets of output from %d programs, nor in %d files",
		len(s.secrets.values), size, len(s.printed), files)
	if size == 0 || files == 0 || len(s.secrets.values) == 0 {
		s.t.Error("nothing was looked at")
	}
}

// octets is a fresh key.
func octets(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}
