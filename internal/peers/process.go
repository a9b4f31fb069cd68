package peers

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Options is a peer's command line.
type Options struct {
	Network       string   // "tcp": TLS; "udp": DTLS
	Addr          string   // client: where to connect to, a numeric host and port
	Suites        []string // by their IANA names, in order of preference
	Identity, PSK []byte
	NoEMS, NoEtM  bool   // do not offer or accept the extension
	ServerName    string // client: SNI; empty: none
	Hint          string // server: identity hint; empty: none
	Group         string // "X25519" or "P-256"; empty: the library's own list
	Fragment      int    // ask for records no longer than this: max_fragment_length, or GnuTLS's record_size_limit; 0: no
	MTU           int    // DTLS: octets of UDP payload; 0: the library's own choice
	Count         int    // server: connections to serve before it ends; 0: one
	Silent        bool   // client: exchange no messages
	Bulk          int    // client: octets to send and read back after those
}

// Limit is how long one peer process may run before it is ended.
const Limit = 20 * time.Second

func (o Options) args() []string {
	onOff := map[bool]string{true: "off", false: "on"}
	proto := map[string]string{"tcp": "tls", "udp": "dtls"}[o.Network]
	pings := "1"
	if o.Silent {
		pings = "0"
	}
	addr := o.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	args := []string{"--proto", proto, "--addr", addr, "--suite", strings.Join(o.Suites, ":"),
		"--identity-hex", hex.EncodeToString(o.Identity), "--psk", hex.EncodeToString(o.PSK),
		"--ems", onOff[o.NoEMS], "--etm", onOff[o.NoEtM],
		"--count", strconv.Itoa(max(o.Count, 1)), "--pings", pings,
		"--bulk", strconv.Itoa(o.Bulk), "--mtu", strconv.Itoa(o.MTU), "--fragment", strconv.Itoa(o.Fragment)}
	for name, value := range map[string]string{"--sni": o.ServerName, "--hint": o.Hint, "--group": o.Group} {
		if value != "" {
			args = append(args, name, value)
		}
	}
	return args
}

// A Session is what a peer says about a finished handshake.
type Session struct {
	Suite      string
	EMS, EtM   Answer
	Identity   []byte
	ServerName string // as the server heard it
	Export     []byte // 48 octets under EXPORTER-oneM2M-Connection
}

// Answer is yes, no, or that the library does not tell.
type Answer int

// The values of an Answer.
const (
	Untold Answer = iota - 1
	No
	Yes
)

// A Failure is what a peer says about a connection that failed.
type Failure struct {
	Sent, Received int    // TLS alert codes; -1: none
	Text           string // the whole of it
}

// A Report is all that a peer process said.
type Report struct {
	Sessions    []Session
	Failures    []Failure
	Closed      []string // how each connection's other side ended it: "notify", "eof", or "end" (untold)
	DataOK      bool     // client: the pings and the bulk came back
	Unsupported string   // what the library cannot do
	Lines       []string
}

// A Process is a running peer or tool.
type Process struct {
	Addr  string         // server: where it listens
	Stdin io.WriteCloser // for tools that send what they read

	cancel context.CancelFunc
	done   chan struct{} // closed when the process has ended and the report is complete

	mu      sync.Mutex // guards the following
	changed *sync.Cond // a line came, or the process ended
	ended   bool
	report  Report
}

// Suites asks the peer's library which of the project's suites it has.
func (p *Peer) Suites(t testing.TB, network string) []string {
	t.Helper()
	process := p.start(t, append([]string{"list"}, Options{Network: network}.args()...))
	var names []string
	for _, line := range process.Wait().Lines {
		if name, ok := strings.CutPrefix(line, "SUITE "); ok {
			names = append(names, name)
		}
	}
	return names
}

// Serve starts the peer as a server on a free loopback port and waits until it listens. The
// process is ended with the test.
func (p *Peer) Serve(t testing.TB, o Options) *Process {
	t.Helper()
	process := p.start(t, append([]string{"server"}, o.args()...))
	port, ok := process.Await("READY ")
	if !ok {
		t.Fatalf("the %s server did not start: %q", p.Name, process.Wait().Lines)
	}
	process.Addr = net.JoinHostPort("127.0.0.1", port)
	return process
}

// Connect starts the peer as a client.
func (p *Peer) Connect(t testing.TB, o Options) *Process {
	t.Helper()
	return p.start(t, append([]string{"client"}, o.args()...))
}

func (p *Peer) start(t testing.TB, args []string) *Process {
	t.Helper()
	return start(t, append(p.argv[:len(p.argv):len(p.argv)], args...)...)
}

// start runs a program and reads what it writes. It is ended with the test.
func start(t testing.TB, argv ...string) *Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Limit)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Process{Stdin: in, cancel: cancel, done: make(chan struct{})}
	p.changed = sync.NewCond(&p.mu)
	go func() {
		defer close(p.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.line(lines.Text())
		}
		cmd.Wait() // the lines tell more than the exit code
		p.mu.Lock()
		p.ended = true
		p.mu.Unlock()
		p.changed.Broadcast()
	}()
	t.Cleanup(p.Stop)
	return p
}

// Await waits for a line that begins with the prefix and returns its rest; false when the process
// ended without one.
func (p *Process) Await(prefix string) (rest string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for seen := 0; ; p.changed.Wait() {
		for ; seen < len(p.report.Lines); seen++ {
			if rest, ok := strings.CutPrefix(p.report.Lines[seen], prefix); ok {
				return rest, true
			}
		}
		if p.ended {
			return "", false
		}
	}
}

// Stop ends the process if it has not ended by itself, and waits for its end.
func (p *Process) Stop() {
	p.cancel()
	<-p.done
}

// Wait waits for the process to end by itself, at most Limit from its start, and returns what
// it said.
func (p *Process) Wait() Report {
	<-p.done
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.report
}

// line takes in one line of output.
func (p *Process) line(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.changed.Broadcast()
	r := &p.report
	r.Lines = append(r.Lines, line)
	kind, rest, _ := strings.Cut(line, " ")
	switch kind {
	case "SESSION":
		r.Sessions = append(r.Sessions, parseSession(rest))
	case "FAILED":
		f := Failure{Sent: -1, Received: -1, Text: rest}
		fmt.Sscanf(rest, "sent=%d received=%d", &f.Sent, &f.Received)
		r.Failures = append(r.Failures, f)
	case "CLOSED":
		r.Closed = append(r.Closed, rest)
	case "DATA":
		r.DataOK = true
	case "UNSUPPORTED":
		r.Unsupported = rest
	}
}

func parseSession(fields string) Session {
	var s Session
	for field := range strings.FieldsSeq(fields) {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "suite":
			s.Suite = value
		case "ems":
			s.EMS = parseAnswer(value)
		case "etm":
			s.EtM = parseAnswer(value)
		case "identity":
			s.Identity, _ = hex.DecodeString(value)
		case "export":
			s.Export, _ = hex.DecodeString(value)
		case "sni":
			if value != "-" {
				s.ServerName = value
			}
		}
	}
	return s
}

func parseAnswer(s string) Answer {
	switch s {
	case "0":
		return No
	case "1":
		return Yes
	}
	return Untold
}
