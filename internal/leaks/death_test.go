package leaks

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/tlspsk"
)

// TestDeath: killed by a signal in the middle of handshakes, mafd prints the
// stacks of all its goroutines, with their arguments in machine words, and
// registers; none of them shows a key, and there is no core dump.
func TestDeath(t *testing.T) {
	if testing.Short() {
		t.Skip("building and running all programs is left out with -short")
	}
	s := newStage(t)
	allowCores(s)
	busy := 0 // deaths in the middle of a handshake
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV} {
		for range 3 {
			mafd, r := s.startMAF("text", func(cmd *exec.Cmd) {
				// "crash" prints the runtime's own goroutines too, and dies in
				// the way that dumps core where that is allowed.
				cmd.Env = append(cmd.Env, "GOTRACEBACK=crash")
			})
			l := newLoad(s, r)
			time.Sleep(300 * time.Millisecond)
			status := mafd.end(signal)
			l.stop()
			if !status.Signaled() || status.CoreDump() {
				t.Errorf("%v: signalled %v, core dumped %v", signal, status.Signaled(), status.CoreDump())
			}
			trace := string(mafd.out.bytes())
			if !strings.Contains(trace, "\ngoroutine ") {
				t.Errorf("%v: there are no stacks:\n%s", signal, trace)
			}
			if strings.Contains(trace, "tlspsk.(*handshaker).server") {
				busy++
			}
			if l.done == 0 {
				t.Errorf("%v: no handshake was done before", signal)
			}
		}
	}
	if busy == 0 {
		t.Error("none of the stacks is of a handshake")
	}
	t.Logf("%d times in the middle of a handshake", busy)
	s.check("state/keyset", "state/ca-key.pem")
	s.checkNoCores()
}

// TestDeathOfDevice: so does maf, in the middle of an association.
func TestDeathOfDevice(t *testing.T) {
	if testing.Short() {
		t.Skip("building and running all programs is left out with -short")
	}
	s := newStage(t)
	allowCores(s)
	_, r := s.startMAF("text", nil)
	km := octets(32)
	s.secrets.add("Km", km)
	s.write("meter7.key", hex.EncodeToString(km))
	s.run(call{args: []string{"client", "add", meter, "--entity-b", city, "--km-file", "meter7.key"}})
	s.run(call{args: []string{"entity-b", "add", city, "--out", "city"}})
	_, address := s.startPlatform(r, "city")
	for _, signal := range []syscall.Signal{syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV} {
		cmd := s.command([]string{"GOTRACEBACK=crash"}, "maf", "connect", address, "--as", meter, "--maf", r.TLS[0],
			"--km-file", "meter7.key", "--kc-file", "meter7.kc")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close() // until then there is more to send
		device := s.start("maf connect", cmd)
		device.await("connected to")
		status := device.end(signal)
		if trace := string(device.out.bytes()); !strings.Contains(trace, "\ngoroutine ") {
			t.Errorf("%v: there are no stacks:\n%s", signal, trace)
		}
		if !status.Signaled() || status.CoreDump() {
			t.Errorf("%v: signalled %v, core dumped %v", signal, status.Signaled(), status.CoreDump())
		}
	}
	s.addKeyFile("Kc", "meter7.kc")
	s.check("state/keyset", "state/ca-key.pem")
	s.checkNoCores()
}

// allowCores lets the programs of a test dump core, as far as the test can: its
// shell may have turned that off for all.
func allowCores(s *stage) {
	s.t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &was); err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{Cur: was.Max, Max: was.Max}); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { syscall.Setrlimit(syscall.RLIMIT_CORE, &was) })
	// A program without protection, to compare with.
	plain := exec.Command("sh", "-c", "kill -ABRT $$")
	plain.Dir = s.dir
	plain.Run() // it dies
	if !plain.ProcessState.Sys().(syscall.WaitStatus).CoreDump() {
		s.t.Log("nothing dumps core on this machine, so it shows little that mafd and maf don't")
	}
	cores, _ := filepath.Glob(s.path("*core*")) // the pattern is good
	for _, core := range cores {
		os.Remove(core)
	}
}

func (s *stage) checkNoCores() {
	s.t.Helper()
	if cores, err := filepath.Glob(s.path("*core*")); err != nil || len(cores) > 0 {
		s.t.Errorf("core dumps: %v, %v", cores, err)
	}
}

// A load is devices that do one handshake after the other.
type load struct {
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	secrets *finder

	mu   sync.Mutex
	kcs  [][]byte // guarded by mu
	done int      // handshakes; guarded by mu
}

func newLoad(s *stage, r adminapi.Runtime) *load {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	l := &load{cancel: cancel, secrets: s.secrets}
	for i := range 8 {
		// Each start of mafd has clients of its own: PID tells them apart.
		id, km := fmt.Sprintf("loader%d-%d@maf.localhost", r.PID, i), octets(32)
		s.secrets.add("Km of "+id, km)
		s.run(call{args: []string{"client", "add", id, "--entity-b", city, "--km-file", "-"}, stdin: hex.EncodeToString(km)})
		network, address := "tcp", r.TLS[0]
		if i%2 == 1 {
			network, address = "udp", r.DTLS[0]
		}
		l.wg.Go(func() {
			for ctx.Err() == nil {
				l.handshake(ctx, network, address, &tlspsk.Config{Identity: []byte(id), Key: km, RetransmitTimeout: 50 * time.Millisecond})
			}
		})
	}
	return l
}

func (l *load) handshake(ctx context.Context, network, address string, config *tlspsk.Config) {
	conn, err := (&tlspsk.Dialer{Config: config}).DialContext(ctx, network, address)
	if err != nil {
		return // it is being killed
	}
	defer conn.Close()
	state := conn.(*tlspsk.Conn).ConnectionState()
	exported, err := state.ExportKeyingMaterial(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done++
	l.kcs = append(l.kcs, exported[16:])
}

// stop ends the load and adds the last keys, which may still be on a stack, to
// the secrets.
func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
	const last = 64
	for _, kc := range l.kcs[max(0, len(l.kcs)-last):] {
		l.secrets.add("Kc", kc)
	}
}

// TestUndumpable: what protects the memory of mafd and maf from core dumps also
// protects it from other processes of the same user.
func TestUndumpable(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the protection is Linux's")
	}
	if testing.Short() {
		t.Skip("building and running all programs is left out with -short")
	}
	s := newStage(t)
	mafd, r := s.startMAF("text", asNobody(s))
	s.run(call{args: []string{"entity-b", "add", city, "--out", "city"}})
	s.run(call{args: []string{"client", "add", meter, "--entity-b", city, "--km-out", "meter7.key"}})
	_, address := s.startPlatform(r, "city")
	cmd := s.command(nil, "maf", "connect", address, "--as", meter, "--maf", r.TLS[0], "--km-file", "meter7.key")
	asNobody(s)(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close() // until then there is more to send
	device := s.start("maf connect", cmd)
	device.await("connected to")
	for _, p := range []*process{mafd, device} {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.cmd.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(limits), "Max core file size        0                    0") {
			t.Errorf("%s: core dumps are on:\n%s", p.out.what, limits)
		}
	}
	// A process that tells nobody anything, to compare with.
	plain := exec.Command("sleep", "60")
	asNobody(s)(plain)
	sleep := s.start("sleep", plain)
	for pid, open := range map[int]bool{mafd.cmd.Process.Pid: false, device.cmd.Process.Pid: false, sleep.cmd.Process.Pid: true} {
		if isOpen, err := memoryOpen(pid); err != nil || isOpen != open {
			t.Errorf("process %d is open to its own user's others: %v (%v), want %v", pid, isOpen, err, open)
		}
	}
	mafd.end(syscall.SIGTERM)
}

// nobody is a user without rights, where tests run as root.
const nobody = 65534

// asNobody has a program run as an ordinary user.
func asNobody(s *stage) func(*exec.Cmd) {
	if os.Getuid() != 0 {
		return func(*exec.Cmd) {}
	}
	return func(cmd *exec.Cmd) {
		for _, name := range []string{".", "mafd.toml", "meter7.key"} {
			if err := os.Chown(s.path(name), nobody, nobody); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

// memoryOpen reports whether other processes of a process's user may read its
// memory: the kernel gives the files of one that is not dumpable to root.
func memoryOpen(pid int) (bool, error) {
	path := fmt.Sprintf("/proc/%d/mem", pid)
	if os.Getuid() == 0 {
		info, err := os.Stat(path)
		if err != nil {
			return false, err
		}
		return info.Sys().(*syscall.Stat_t).Uid != 0, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}
