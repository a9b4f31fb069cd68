package deployment

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is more than anything here takes on a busy machine.
const patience = 30 * time.Second

// until waits for something to come true.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for give := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(give) {
			t.Fatalf("in vain: %s", what)
		}
	}
}

// A process is a program of ours, which ends with the test.
type process struct {
	*exec.Cmd
	ended chan struct{}

	mu  sync.Mutex
	out bytes.Buffer // what it wrote to standard error; guarded by mu
}

// Write takes what the program writes to standard error.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

// log returns the lines that it has logged as JSON with this message.
func (p *process) log(message string) []map[string]any {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []map[string]any
	for line := range strings.Lines(p.out.String()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == message {
			found = append(found, entry)
		}
	}
	return found
}

// run starts a program.
func run(t testing.TB, program string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], args...), ended: make(chan struct{})}
	p.Env = append(os.Environ(), programEnv+"="+program)
	p.Stderr = p
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() { p.stop(t) })
	return p
}

// stop ends the program and demands that it ends well.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Process.Kill()
		t.Errorf("%s did not end", p.Args[1:])
		<-p.ended
	}
	if t.Failed() || !p.ProcessState.Success() {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.Logf("%s: %v\n%s", p.Args[1:], p.ProcessState, p.out.String())
		if !p.ProcessState.Success() {
			t.Fail()
		}
	}
}
