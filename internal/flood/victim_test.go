package flood

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// A victim is a mafd under attack.
type victim struct {
	adminapi.Runtime
	admin      *adminapi.Admin
	cmd        *exec.Cmd
	done       chan struct{} // closed when it has ended
	goroutines chan int      // answers to SIGUSR1
	logFile    string
}

const served = onem2m.FQDN("maf.example.com")

// startMAF starts a mafd with a new store on disk. handshake is what the
// configuration's table has beside the addresses.
func startMAF(t testing.TB, handshake string) *victim {
	t.Helper()
	dir, err := os.MkdirTemp("", "flood") // short: there will be a Unix socket in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config, state := filepath.Join(dir, "mafd.toml"), filepath.Join(dir, "state")
	text := fmt.Sprintf("state = %q\nfqdns = [%q]\nkeyapi.listen = [\"127.0.0.1:0\"]\n"+
		"[handshake]\ntls = [\"127.0.0.1:0\"]\ndtls = [\"127.0.0.1:0\"]\nshutdown_grace = \"100ms\"\n%s\n", state, served, handshake)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v := &victim{done: make(chan struct{}), goroutines: make(chan int, 1), logFile: filepath.Join(dir, "log")}
	v.cmd = exec.Command(os.Args[0], "-config", config)
	v.cmd.Env = append(os.Environ(), playEnv+"=mafd")
	log, err := os.Create(v.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	v.cmd.Stderr = log
	stdout, err := v.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := v.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "goroutines %d", &n); err == nil {
				v.goroutines <- n
			}
		}
		v.cmd.Wait()
		close(v.done)
	}()
	t.Cleanup(func() { v.stop(t) })
	v.await(t, state)
	v.admin = adminapi.Open(v.Admin)
	return v
}

func (v *victim) await(t testing.TB, state string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if r, err := adminapi.ReadRuntime(state); err == nil {
			v.Runtime = r
			return
		}
		select {
		case <-v.done:
			t.Fatalf("mafd ended: %v\n%s", v.cmd.ProcessState, v.log(t))
		default:
		}
	}
	t.Fatalf("mafd does not listen\n%s", v.log(t))
}

// stop ends it, and demands that it ends in order.
func (v *victim) stop(t testing.TB) {
	v.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-v.done:
	case <-time.After(20 * time.Second):
		t.Error("mafd does not end")
		v.cmd.Process.Kill()
		<-v.done
	}
	if code := v.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("mafd ended with %v\n%s", v.cmd.ProcessState, v.log(t))
	}
}

func (v *victim) log(t testing.TB) string {
	text, err := os.ReadFile(v.logFile)
	if err != nil {
		t.Error(err)
	}
	return string(text)
}

// address is where handshakes go over a network.
func (v *victim) address(network string) string {
	if network == "udp" {
		return v.DTLS[0]
	}
	return v.TLS[0]
}

// status returns a line of /proc/PID/status, in its own unit.
func (v *victim) status(t testing.TB, name string) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.PID))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("there is no %s in /proc/PID/status", name)
	return 0
}

// peak is the most memory that it ever had, in KiB.
func (v *victim) peak(t testing.TB) int { return v.status(t, "VmHWM") }

// cpu is the processor time that it has used.
func (v *victim) cpu(t testing.TB) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.PID))
	if err != nil {
		t.Fatal(err)
	}
	// Behind the name, which ends with the last ")", utime and stime are the
	// fields 14 and 15 of proc(5), in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// countGoroutines asks how many goroutines it has.
func (v *victim) countGoroutines(t testing.TB) int {
	t.Helper()
	if err := v.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-v.goroutines:
		return n
	case <-time.After(20 * time.Second):
		t.Fatal("mafd does not say how many goroutines it has")
		return 0
	}
}

// register provisions the devices meter0, meter1 and so on.
func (v *victim) register(t testing.TB, n int) []secret.Key {
	t.Helper()
	keys := make([]secret.Key, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	const parallel = 32
	for worker := range parallel {
		all.Go(func() {
			for i := worker; i < n && ctx.Err() == nil; i += parallel {
				made, err := v.admin.Add(ctx, adminapi.NewClient{Client: adminapi.Client{
					KmID: meter(i), EntityB: entityB()}})
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				keys[i] = made.Km.Key
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return keys
}

// meter is the KmID of a device.
func meter(i int) onem2m.KmID {
	return onem2m.KmID{Relative: fmt.Sprintf("meter%d", i), FQDN: served}
}

// keyAPI returns a client of its key API, as the Entity B of all devices.
func (v *victim) keyAPI(t testing.TB) *keyclient.Client {
	t.Helper()
	b, err := v.admin.AddEntityB(t.Context(), adminapi.NewEntityB{CSEID: entityB()})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair([]byte(b.Certificate), b.Key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(b.CA))
	c, err := keyclient.New(keyclient.Config{
		MAFs:        map[onem2m.FQDN]string{served: "https://" + v.KeyAPI[0]},
		Certificate: certificate, RootCAs: roots,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// entityB is the one that all devices' keys are for.
func entityB() onem2m.CSEID { return onem2m.CSEID{SP: "city.example", ID: "in-cse"} }
