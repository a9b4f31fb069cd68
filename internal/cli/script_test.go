package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/demo"
	"github.com/onem2m-maf/maf/internal/mafd"
	"github.com/onem2m-maf/maf/onem2m"
)

// The programs are real: each command of a script is a process.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"maf": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			code := Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
			stop()
			os.Exit(code)
		},
		"mafd": func() { os.Exit(mafd.Main(os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script: a script per command, with what it prints
// and its exit codes (docs/cli-output.md).
//
// Beside testscript's own, the scripts have these commands:
//
//	mafd-up [line...]   write mafd.toml with the lines, start mafd in the
//	                    background, wait for it, and set $TLS, $DTLS, $KEYAPI
//	                    and $MAF_SOCKET
//	entity-b-up FOLDER  start an Entity B, and set $ENTITYB to its address
//	proxy-up ARG...     start "maf proxy" with the arguments, and set $PROXY to
//	                    where it listens
//	talk ADDRESS FILE   send a file over TCP, and print what comes back
//	exits CODE maf...   run a command and demand its exit code
//	found NAME REGEXP   set a variable to what the expression's group matches in
//	                    the last command's standard output
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// Nothing of the machine's: no mafd that may run there, no keys.
			env.Setenv("HOME", env.WorkDir)
			for _, name := range []string{"XDG_STATE_HOME", "STATE_DIRECTORY", kmVariable, adminapi.SocketVariable} {
				env.Setenv(name, "")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"mafd-up":     mafdUp,
			"entity-b-up": entityBUp,
			"proxy-up":    proxyUp,
			"talk":        talk,
			"exits":       exits,
			"found":       found,
		},
	})
}

func mafdUp(ts *testscript.TestScript, _ bool, lines []string) {
	config := "state = \"state\"\nhandshake = { tls = [\"127.0.0.1:0\"], dtls = [\"127.0.0.1:0\"] }\n" +
		"keyapi.listen = [\"127.0.0.1:0\"]\nkeys.min_lifetime = \"2s\"\n"
	for _, line := range lines {
		config += line + "\n"
	}
	ts.Check(os.WriteFile(ts.MkAbs("mafd.toml"), []byte(config), 0o600))
	path, err := exec.LookPath("mafd")
	ts.Check(err)
	cmd := exec.Command(path, "-config", ts.MkAbs("mafd.toml"))
	log, err := os.Create(ts.MkAbs("mafd.log"))
	ts.Check(err)
	cmd.Stderr = log
	ts.Check(cmd.Start())
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		log.Close()
		close(ended)
	}()
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		if !cmd.ProcessState.Success() {
			text, _ := os.ReadFile(ts.MkAbs("mafd.log"))
			ts.Logf("mafd: %v\n%s", cmd.ProcessState, text)
		}
	})
	for range 2000 {
		if r, err := adminapi.ReadRuntime(ts.MkAbs("state")); err == nil && r.PID == cmd.Process.Pid {
			ts.Setenv("TLS", r.TLS[0])
			ts.Setenv("DTLS", r.DTLS[0])
			ts.Setenv("KEYAPI", r.KeyAPI[0])
			ts.Setenv(adminapi.SocketVariable, r.Admin)
			return
		}
		select {
		case <-ended:
			text, _ := os.ReadFile(ts.MkAbs("mafd.log"))
			ts.Fatalf("mafd ended: %v\n%s", cmd.ProcessState, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
	ts.Fatalf("mafd does not listen")
}

func entityBUp(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: entity-b-up FOLDER")
	}
	ctx, cancel := context.WithCancel(context.Background())
	events, out := io.Pipe()
	done := make(chan error, 1)
	folder, keyAPI := ts.MkAbs(args[0]), "https://"+ts.Getenv("KEYAPI")
	go func() {
		err := demo.Platform(ctx, folder, onem2m.FQDN("maf.localhost"), keyAPI, out)
		out.CloseWithError(errors.Join(err, io.EOF))
		done <- err
	}()
	ts.Defer(func() {
		cancel()
		events.Close()
		if err := <-done; err != nil {
			ts.Logf("entity B: %v", err)
		}
	})
	d := json.NewDecoder(events)
	var e demo.Event
	ts.Check(d.Decode(&e))
	ts.Setenv("ENTITYB", e.Listening)
	go io.Copy(io.Discard, events) // or it would wait for a reader
}

func proxyUp(ts *testscript.TestScript, _ bool, args []string) {
	path, err := exec.LookPath("maf")
	ts.Check(err)
	cmd := exec.Command(path, append([]string{"proxy", "--json"}, args...)...)
	cmd.Dir = ts.Getenv("WORK")
	stdout, err := cmd.StdoutPipe()
	ts.Check(err)
	log := new(bytes.Buffer)
	cmd.Stderr = log
	ts.Check(cmd.Start())
	ts.Defer(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			ts.Logf("maf proxy: %v\n%s", err, log)
		}
	})
	var result struct{ Listening string }
	ts.Check(json.NewDecoder(stdout).Decode(&result))
	ts.Setenv("PROXY", result.Listening)
}

func talk(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: talk ADDRESS FILE")
	}
	c, err := net.Dial("tcp", args[0])
	ts.Check(err)
	defer c.Close()
	ts.Check(c.SetDeadline(time.Now().Add(time.Minute)))
	_, err = io.WriteString(c, ts.ReadFile(args[1]))
	ts.Check(err)
	ts.Check(c.(*net.TCPConn).CloseWrite())
	_, err = io.Copy(ts.Stdout(), c)
	ts.Check(err)
}

func found(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: found NAME REGEXP")
	}
	re, err := regexp.Compile(args[1])
	ts.Check(err)
	match := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(match) != 2 {
		ts.Fatalf("there is no %s on standard output", args[1])
	}
	ts.Setenv(args[0], match[1])
}

func exits(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: exits CODE command...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
