//go:build unix

// Package pgtest runs a real PostgreSQL for tests: with a folder of its own, on a
// Unix socket in it, and for this process only.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience is for what takes a second, on a machine that is busy.
const patience = 2 * time.Minute

const (
	role     = "mafd"
	password = "not in a URL"
)

// A Server is a PostgreSQL that can be killed and started again. One goroutine uses
// it at a time, save for NewDatabase.
type Server struct {
	bin  string // folder of PostgreSQL's programs
	dir  string // everything of this server's
	args []string
	cred *syscall.Credential // nil: this process's own user

	databases atomic.Int64
	cmd       *exec.Cmd
	log       *os.File
	done      chan struct{} // closed when cmd has ended
}

// Start starts a server with settings beyond the defaults ("name=value"), and stops
// it when the test ends. Without PostgreSQL on this machine it skips the test, or
// fails it where MAF_REQUIRE_PEERS is set.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	bin, err := programs()
	if err != nil {
		if os.Getenv("MAF_REQUIRE_PEERS") != "" {
			t.Fatalf("%v; scripts/install-peers installs it", err)
		}
		t.Skipf("%v; scripts/install-peers installs it", err)
	}
	s := &Server{bin: bin}
	if s.cred, err = unprivileged(); err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir, whose parents are closed to the user that the server runs as;
	// and a socket's path is short.
	if s.dir, err = os.MkdirTemp("", "pg"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	if err := s.initialise(); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "fsync=on"}
	for _, one := range settings {
		s.args = append(s.args, "-c", one)
	}
	t.Cleanup(func() { s.end(syscall.SIGQUIT) })
	s.Run(t)
	return s
}

// programs finds the folder with the newest PostgreSQL's programs.
func programs() (string, error) {
	// Debian keeps them out of PATH, by version.
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("there is no PostgreSQL server on this machine")
	}
	return filepath.Dir(path), nil
}

// version reads the 15 of /usr/lib/postgresql/15/bin/initdb.
func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// unprivileged returns the user to run as when this process is root, as which
// PostgreSQL refuses to run.
func unprivileged() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		if u, err = user.Lookup("nobody"); err != nil {
			return nil, err
		}
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// PasswordFile holds what the role of every URL has to prove that it knows.
func (s *Server) PasswordFile() string { return filepath.Join(s.dir, "password") }

// initialise makes the files of a server whose only role has a password.
func (s *Server) initialise() error {
	theirs := filepath.Join(s.dir, "initial")
	for _, path := range []string{s.PasswordFile(), theirs} {
		if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
			return err
		}
	}
	if s.cred != nil {
		for _, path := range []string{s.dir, theirs} {
			if err := os.Chown(path, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
				return err
			}
		}
	}
	init := exec.Command(filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", role, "-A", "scram-sha-256",
		"--pwfile", theirs, "--no-sync", "-E", "UTF8", "--locale=C")
	init.Dir = s.dir
	init.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// Run starts the server, after Start when it was stopped, and waits until it lets
// clients in. One that was killed leaves memory behind that is only free when the
// last of its processes has noticed; so it is tried again.
func (s *Server) Run(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		if err := s.launch(); err != nil {
			t.Fatal(err)
		}
		for {
			conn, err := s.connect(ctx, "postgres")
			if err == nil {
				conn.Close(ctx)
				return
			}
			if ctx.Err() != nil {
				t.Fatalf("PostgreSQL does not start: %v\n%s", err, s.Log())
			}
			select {
			case <-s.done:
			case <-time.After(20 * time.Millisecond):
				continue
			}
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (s *Server) launch() (err error) {
	if s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
		return err
	}
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), s.args...)
	s.cmd.Dir = s.dir
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = dieWithParent(&syscall.SysProcAttr{Credential: s.cred})
	started := make(chan error)
	s.done = make(chan struct{})
	go func(cmd *exec.Cmd, done chan struct{}) {
		// Of the parent, Linux watches the thread that started the process.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
			close(done)
		}
	}(s.cmd, s.done)
	return <-started
}

// connect connects to a database, past the store.
func (s *Server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(s.url(database))
	if err != nil {
		return nil, err
	}
	config.Password = password
	return pgx.ConnectConfig(ctx, config)
}

func (s *Server) url(database string) string {
	q := url.Values{"host": {s.dir}, "user": {role}}
	return "postgres:///" + database + "?" + q.Encode()
}

// NewDatabase makes an empty database and returns its URL.
func (s *Server) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("maf%d", s.databases.Add(1))
	s.exec(t, "postgres", "CREATE DATABASE "+name)
	return s.url(name)
}

// Exec runs a statement in the database of that URL, past the store.
func (s *Server) Exec(t testing.TB, address, statement string) {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	s.exec(t, u.Path[1:], statement)
}

func (s *Server) exec(t testing.TB, database, statement string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := s.connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// Kill ends all of the server's processes with SIGKILL: what it had not put on the
// disk is lost. (The machine's cache of the disk stays; a power cut needs a machine.)
func (s *Server) Kill() {
	s.cmd.Process.Signal(syscall.SIGSTOP) // it has no more children from here on
	for _, pid := range s.Processes() {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	s.end(syscall.SIGKILL)
}

// Processes returns the server's first process and its children, as far as /proc
// tells.
func (s *Server) Processes() []int {
	all := []int{s.cmd.Process.Pid}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return all
	}
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if fields := Stat(pid); err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(all[0]) {
			all = append(all, pid)
		}
	}
	return all
}

// Stat returns what /proc says of a process from its state on, which is field 3 in
// proc_pid_stat(5), or nothing.
func Stat(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The name before may hold anything, also spaces and brackets.
	return strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
}

// Stop disconnects everybody and ends the server in order.
func (s *Server) Stop() { s.end(syscall.SIGINT) }

func (s *Server) end(signal syscall.Signal) {
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Signal(signal)
	<-s.done
	s.log.Close()
	s.cmd = nil
}

// Log returns what the server has written.
func (s *Server) Log() string {
	text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(text)
}
