package mafd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/saef"
)

// A serviceManager does for mafd what systemd does: it holds the sockets, and
// hears how mafd is.
type serviceManager struct {
	dir, config, state string
	tls, dtls          *os.File
	heard              *net.UnixConn
}

func newServiceManager(t *testing.T) *serviceManager {
	t.Helper()
	m := &serviceManager{dir: shortDir(t)}
	m.state = filepath.Join(m.dir, "state")
	m.config = filepath.Join(m.dir, "mafd.toml")
	m.configure(t, "info")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if m.tls, err = l.(*net.TCPListener).File(); err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	if m.dtls, err = pc.(*net.UDPConn).File(); err != nil {
		t.Fatal(err)
	}
	if m.heard, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.tls.Close()
		m.dtls.Close()
		m.heard.Close()
	})
	return m
}

// configure writes the configuration. The addresses in it can't be listened on:
// the sockets are passed.
func (m *serviceManager) configure(t *testing.T, level string) {
	t.Helper()
	text := fmt.Sprintf(`
state = "state"
fqdns = ["maf.example.com"]
handshake = { tls = ["203.0.113.1:1"], dtls = ["203.0.113.1:1"], device_burst = 0 }
keyapi.listen = ["127.0.0.1:0"]
log.level = %q
`, level)
	if err := os.WriteFile(m.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start starts mafd. Its number, which the sockets are addressed to, only the
// shell knows that becomes it.
func (m *serviceManager) start(t *testing.T) (*mafdProcess, adminapi.Runtime) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c",
		`LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=tls:dtls NOTIFY_SOCKET="$1" WATCHDOG_USEC=200000 exec "$2" -config "$3"`,
		"sh", filepath.Join(m.dir, "notify"), os.Args[0], m.config)
	cmd.ExtraFiles = []*os.File{m.tls, m.dtls}
	p := runProcess(t, cmd)
	return p, p.await(t, m.state)
}

// hear waits for a message that begins like this. Those of the watchdog come in
// between.
func (m *serviceManager) hear(t *testing.T, want string) {
	t.Helper()
	m.heard.SetReadDeadline(time.Now().Add(patience))
	buffer := make([]byte, 4096)
	for {
		n, err := m.heard.Read(buffer)
		if err != nil {
			t.Fatalf("waited in vain for %s: %v", want, err)
		}
		got := string(buffer[:n])
		if strings.HasPrefix(got, want) {
			return
		}
		if got != "WATCHDOG=1" {
			t.Errorf("mafd says %q, want %q", got, want)
		}
	}
}

// TestServiceManager: mafd serves on the sockets that it was passed, and says
// when it is ready, alive, reloading and stopping.
func TestServiceManager(t *testing.T) {
	manager := newServiceManager(t)
	p, runtime := manager.start(t)
	manager.hear(t, "READY=1\nSTATUS=serving maf.example.com")
	manager.hear(t, "WATCHDOG=1")

	m := &testMAF{&Daemon{Runtime: runtime}, adminapi.Open(runtime.Admin), nil}
	km := m.add(t, meterID, nil)
	for _, network := range []string{"tcp", "udp"} {
		if _, err := m.device(t, network, meterID, km).Handshake(t.Context()); err != nil {
			t.Errorf("over the %s socket that was passed: %v", network, err)
		}
	}

	manager.configure(t, "loud")
	p.cmd.Process.Signal(syscall.SIGHUP)
	manager.hear(t, "RELOADING=1\nMONOTONIC_USEC=")
	manager.hear(t, "READY=1")
	manager.configure(t, "debug")
	p.cmd.Process.Signal(syscall.SIGHUP)
	manager.hear(t, "RELOADING=1\nMONOTONIC_USEC=")
	manager.hear(t, "READY=1")
	if said := p.log.String(); !strings.Contains(said, `not \"loud\"`) || !strings.Contains(said, "configuration reloaded") {
		t.Errorf("the log:\n%s", said)
	}
	if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	p.terminate(t)
	manager.hear(t, "STOPPING=1")
}

// TestPassedSocketNames: a socket under a name that mafd doesn't know is not left
// without a word.
func TestPassedSocketNames(t *testing.T) {
	config := testConfig(shortDir(t))
	config.Sockets = map[string][]*os.File{"http": nil}
	_, err := Start(t.Context(), config, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), `a socket named "http"`) {
		t.Errorf("got %v", err)
	}
}

// TestRestartUnderLoad: mafd is restarted again and again while devices do
// handshakes. Where the service manager keeps the sockets, no handshake over TLS
// fails for it; over DTLS none does that was begun, and others are repeated by
// the device. Every Kc that a device got, its Entity B gets.
func TestRestartUnderLoad(t *testing.T) {
	restarts := 5
	if testing.Short() {
		restarts = 2
	}
	manager := newServiceManager(t)
	p, runtime := manager.start(t)
	go io.Copy(io.Discard, manager.heard) // until it is closed
	m := &testMAF{&Daemon{Runtime: runtime}, adminapi.Open(runtime.Admin), nil}
	certificate := m.certificate(t, cityCSE)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	var mu sync.Mutex
	var keys []saef.Key
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(keys)
	}
	for i := range loaders {
		network := []string{"tcp", "udp"}[i%2]
		id := fmt.Sprintf("loader%d@maf.example.com", i)
		device := m.device(t, network, id, m.add(t, id, nil))
		load.Go(func() {
			for ctx.Err() == nil {
				key, err := device.Handshake(context.Background()) // the last one is finished too
				if err != nil && network == "tcp" {
					t.Errorf("a handshake over TLS failed: %v", err)
				}
				if err == nil {
					mu.Lock()
					keys = append(keys, key)
					mu.Unlock()
				}
			}
		})
	}
	logs := ""
	for range restarts {
		before := count()
		waitFor(t, "handshakes", func() bool { return count() >= before+20 })
		p.terminate(t)
		logs += p.log.String()
		p, runtime = manager.start(t)
	}
	stop()
	load.Wait()
	m.Runtime = runtime
	entityB := m.keys(t, certificate)
	for _, key := range keys {
		if got, err := entityB.Get(t.Context(), key.KcID); err != nil || !got.Kc.Equal(key.Kc) {
			t.Errorf("a key that its device has is lost: %v", err)
		}
	}
	p.terminate(t)
	for line := range strings.Lines(logs + p.log.String()) {
		if strings.Contains(line, "handshake failed") {
			t.Errorf("a handshake that was begun failed: %s", line)
		}
	}
	t.Logf("%d keys over %d restarts", len(keys), restarts)
}
