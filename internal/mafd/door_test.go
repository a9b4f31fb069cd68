package mafd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A mute is a network that loses all but the first writes.
type mute struct {
	net.Conn
	left atomic.Int32
}

func (m *mute) Write(b []byte) (int, error) {
	if m.left.Add(-1) < 0 {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

// stall begins a handshake and does not go on: the server has answered the
// ClientHello, and waits.
func stall(t *testing.T, network, addr string) {
	t.Helper()
	raw, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{Conn: raw}
	var c *tlspsk.Conn
	if network == "udp" {
		m.left.Store(2) // one without a cookie, and one with
		c = tlspsk.DatagramClient(m, clientConfig())
	} else {
		m.left.Store(1)
		c = tlspsk.Client(m, clientConfig())
	}
	t.Cleanup(func() { c.Close() })
	done := make(chan struct{})
	t.Cleanup(func() { <-done })
	go func() {
		c.Handshake()
		close(done)
	}()
	t.Cleanup(func() { raw.Close() }) // runs first
}

// TestStalledMakeRoom: clients that do not go on, and fill the house, keep
// nobody out. What they can make us hold is bounded, and the log tells of them.
func TestStalledMakeRoom(t *testing.T) {
	eachTransport(t, func(t *testing.T, network string) {
		const places, stalled = 8, 40
		e, l, log := startEndpoint(t, network, &fakeMAF{}, func(c *HandshakeConfig) { c.MaxConcurrent = places })
		for n := range stalled {
			stall(t, network, l.Addr().String())
			waitFor(t, "it to come in", func() bool { return e.door(l).gate.Stats().Admitted == uint64(n+1) })
		}
		for n := range 3 * places {
			conn, err := tlspsk.Dial(network, l.Addr().String(), clientConfig())
			if err != nil {
				t.Fatalf("honest client %d: %v", n, err)
			}
			conn.Close()
		}
		waitFor(t, "those who were shed to leave", func() bool { return e.door(l).gate.Stats().UnderWay <= places })
		s := e.door(l).gate.Stats()
		if s.Peak > places+places/8+1 || s.Shed < stalled-places || s.Failed != 0 {
			t.Errorf("%+v", s)
		}
		e.door(l).pressure.flush()
		if line := fmt.Sprintf("msg=\"handshakes turned away\" count=%d transport=%s", s.Shed, transport(l.Addr())); !strings.Contains(log.String(), line) {
			t.Errorf("the log does not say %q:\n%s", line, log)
		}
		if !strings.Contains(log.String(), admission.ErrShed.Error()) {
			t.Errorf("the log does not say why:\n%s", log)
		}
	})
}

// TestOneDoorEach: a flood over one transport does not touch the other.
func TestOneDoorEach(t *testing.T) {
	e, l, _ := startEndpoint(t, "tcp", &fakeMAF{}, func(c *HandshakeConfig) { c.MaxConcurrent = 2 })
	other := serveOn(t, e, "udp")
	for range 10 {
		stall(t, "tcp", l.Addr().String())
	}
	stall(t, "udp", other.Addr().String())
	waitFor(t, "all to come in", func() bool {
		return e.tls.gate.Stats().Admitted == 10 && e.dtls.gate.Stats().Admitted == 1
	})
	if s := e.dtls.gate.Stats(); s.Shed != 0 || s.UnderWay != 1 {
		t.Errorf("%+v", s)
	}
}

// TestFailingSource: a source that fails on and on is turned away, and not
// forever. What is our own fault is not counted.
func TestFailingSource(t *testing.T) {
	eachTransport(t, func(t *testing.T, network string) {
		broken := atomic.Bool{}
		maf := &fakeMAF{establish: func(context.Context, authority.Exporter) error {
			if broken.Load() {
				return errors.New("the disk is on fire")
			}
			return nil
		}}
		e, l, log := startEndpoint(t, network, maf, func(c *HandshakeConfig) {
			c.FailureBurst, c.FailuresPerSecond = 3, 1
		})
		dial := func(key string) error {
			config := clientConfig()
			config.Key, config.RetransmitTimeout = []byte(key), quickly
			conn, err := tlspsk.Dial(network, l.Addr().String(), config)
			if err == nil {
				conn.Close()
			}
			return err
		}
		broken.Store(true)
		for range 10 {
			var alert *tlspsk.AlertError
			if err := dial(string(fakeKey)); !errors.As(err, &alert) || alert.Alert != tlspsk.AlertInternalError {
				t.Errorf("with a broken store the client gets %v", err)
			}
		}
		broken.Store(false)
		if s := e.door(l).gate.Stats(); s.Failed != 0 {
			t.Errorf("our own failures are the client's: %+v", s)
		}
		begin := time.Now()
		for e.door(l).gate.Stats().RefusedFailing == 0 {
			if dial("wrong") == nil {
				t.Fatal("got in")
			}
		}
		// The last to fail may not have left yet.
		waitFor(t, "three failures", func() bool { return e.door(l).gate.Stats().Failed >= 3 })
		if s, most := e.door(l).gate.Stats(), 4+uint64(time.Since(begin).Seconds()); s.Failed > most {
			t.Errorf("%d handshakes failed, of at most %d", s.Failed, most)
		}
		if !strings.Contains(log.String(), admission.ErrFailing.Error()) {
			t.Errorf("the log does not say why:\n%s", log)
		}
		waitFor(t, "being forgiven", func() bool { return dial(string(fakeKey)) == nil })
	})
}

// TestFit: the files that may be open are enough for all the connections that
// are let in.
func TestFit(t *testing.T) {
	for _, files := range []uint64{256, 1024, 4096, 20_000, 1 << 20, 1 << 63} {
		for _, most := range []int{1, 100, 10_000, 10_000_000} {
			c, err := fit(files, most)
			if err != nil {
				t.Fatal(err)
			}
			if used := c.tls + c.tls/8 + c.tls + c.keyAPI + otherFiles; uint64(used) > files || c.tls < 1 || c.keyAPI < 32 {
				t.Errorf("%d files, %d wanted: %+v", files, most, c)
			}
			if files > 20_000+3*uint64(most) && (c.tls != most || c.keyAPI != maxKeyAPIConnections) {
				t.Errorf("%d files, %d wanted: only %+v", files, most, c)
			}
		}
	}
	if _, err := fit(255, 1); err == nil || !strings.Contains(err.Error(), "ulimit") {
		t.Errorf("with 255 files: %v", err)
	}
}

// TestFewFiles runs mafd with few open files and holds open as many handshakes
// as it takes: devices and administrators get in all the same.
func TestFewFiles(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("no shell here to limit a process's open files with")
	}
	dir := shortDir(t)
	state := filepath.Join(dir, "state")
	config := filepath.Join(dir, "mafd.toml")
	text := "state = \"state\"\nfqdns = [\"maf.example.com\"]\nhandshake = { tls = [\"127.0.0.1:0\"], dtls = [\"127.0.0.1:0\"], shutdown_grace = \"100ms\" }\nkeyapi.listen = [\"127.0.0.1:0\"]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := runProcess(t, exec.Command(shell, "-c", `ulimit -n 256 && exec "$@"`, "sh", os.Args[0], "-config", config))
	r := p.await(t, state)
	m := &testMAF{&Daemon{Runtime: r}, adminapi.Open(r.Admin), nil}
	km := m.add(t, meterID, nil)
	certificate := m.certificate(t, cityCSE)
	for range 400 {
		conn, err := net.Dial("tcp", r.TLS[0])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for range 5 {
		key, err := m.device(t, "tcp", meterID, km).Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := m.keys(t, certificate).Get(ctx, key.KcID); err != nil {
			t.Error(err)
		}
	}
	p.terminate(t)
	if !strings.Contains(p.log.String(), "the limit of open files allows for less") || strings.Contains(p.log.String(), "cannot accept") {
		t.Errorf("the log:\n%s", p.log)
	}
}
