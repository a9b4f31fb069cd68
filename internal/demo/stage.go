package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// startTimeout is how long a program may take to listen. It takes milliseconds.
const startTimeout = 20 * time.Second

// A stage is a temporary folder and the processes that live in it.
type stage struct {
	dir     string
	maf     string // path of the program
	runtime adminapi.Runtime
	procs   []*process
}

// A process is a program that runs until the demo ends.
type process struct {
	cmd  *exec.Cmd
	log  string        // file of what it prints to standard error
	done chan struct{} // closed when it has ended
}

// start starts a program whose standard error goes to a file.
func (s *stage) start(name string, stdout io.Writer, program string, args ...string) (*process, error) {
	p := &process{log: filepath.Join(s.dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir, p.cmd.Env = s.dir, s.environment()
	p.cmd.Stdout, p.cmd.Stderr = stdout, log
	dieWithParent(p.cmd)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	s.procs = append(s.procs, p)
	return p, nil
}

// environment is ours, less what would change what the programs do.
func (s *stage) environment() []string {
	env := os.Environ()
	for _, name := range []string{"STATE_DIRECTORY", "XDG_STATE_HOME", "MAF_KM"} {
		env = append(env, name+"=")
	}
	return append(env, adminapi.SocketVariable+"="+filepath.Join(s.state(), adminapi.SocketName))
}

func (s *stage) state() string { return filepath.Join(s.dir, "office") }

// startMAF starts mafd on free ports and waits until it listens.
func (s *stage) startMAF(ctx context.Context, mafd string) error {
	config := filepath.Join(s.dir, "mafd.toml")
	const text = `
state = "office"
[handshake]
tls = ["127.0.0.1:0"]
dtls = ["127.0.0.1:0"]
[keys]
min_lifetime = "2s" # so short for a demo only
[keyapi]
listen = ["127.0.0.1:0"]
[log]
format = "json"
`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	p, err := s.start("mafd", nil, mafd, "-config", config)
	if err != nil {
		return err
	}
	return s.wait(ctx, p, func() (bool, error) {
		s.runtime, err = adminapi.ReadRuntime(s.state())
		return err == nil, nil
	})
}

// wait polls until ready says so, or the process has ended, or it takes too
// long.
func (s *stage) wait(ctx context.Context, p *process, ready func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if ok, err := ready(); ok || err != nil {
			return err
		}
		select {
		case <-p.done:
			return p.failure("ended")
		case <-ctx.Done():
			return errors.Join(p.failure("is not ready"), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *process) failure(what string) error {
	text, _ := os.ReadFile(p.log) // an empty log says enough
	return fmt.Errorf("%s %s:\n%s", filepath.Base(p.cmd.Path), what, text)
}

// close ends all processes, the last first.
func (s *stage) close() {
	for i := len(s.procs) - 1; i >= 0; i-- {
		p := s.procs[i]
		p.cmd.Process.Signal(os.Interrupt)
		select {
		case <-p.done:
		case <-time.After(2 * time.Second):
			p.cmd.Process.Kill()
			<-p.done
		}
	}
}

// An outcome is what a command did.
type outcome struct {
	Command []string `json:"command"`
	Stdin   string   `json:"stdin,omitempty"`
	Stdout  string   `json:"stdout,omitempty"`
	Stderr  string   `json:"stderr,omitempty"`
	Exit    int      `json:"exit"`
}

// run runs a maf command to its end.
func (s *stage) run(ctx context.Context, stdin string, args ...string) (outcome, error) {
	o := outcome{Command: append([]string{"maf"}, args...), Stdin: stdin}
	cmd := exec.CommandContext(ctx, s.maf, args...)
	cmd.Dir, cmd.Env = s.dir, s.environment()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	o.Stdout, o.Stderr, o.Exit = stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()
	if ctx.Err() != nil {
		return o, ctx.Err()
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil // it is the caller's to judge
	}
	return o, err
}

// A platform is a running Entity B.
type platform struct {
	address string
	events  chan Event
}

// startPlatform starts an Entity B with the certificate in the given folder.
func (s *stage) startPlatform(ctx context.Context, folder string) (*platform, error) {
	stdout, theirs := io.Pipe()
	p, err := s.start(folder, theirs, s.maf, PlatformCommand, folder,
		s.runtime.FQDNs[0].String(), "https://"+s.runtime.KeyAPI[0])
	if err != nil {
		return nil, err
	}
	events := make(chan Event, 64)
	go func() {
		defer close(events)
		for d := json.NewDecoder(stdout); ; {
			var e Event
			if d.Decode(&e) != nil {
				return
			}
			events <- e
		}
	}()
	go func() {
		<-p.done
		theirs.Close()
	}()
	select {
	case e, ok := <-events:
		if ok {
			return &platform{e.Listening, events}, nil
		}
		return nil, p.failure("ended")
	case <-time.After(startTimeout):
		return nil, p.failure("is not ready")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// next returns what the platform saw next.
func (p *platform) next(ctx context.Context) (Event, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case e, ok := <-p.events:
		if !ok {
			return e, errors.New("the platform's program has ended")
		}
		return e, nil
	case <-ctx.Done():
		return Event{}, ctx.Err()
	}
}
