package mafd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/tlspsk"
)

// fakeMAF knows one client and lets the test decide about the rest.
type fakeMAF struct {
	establish func(ctx context.Context, export authority.Exporter) error
}

var fakeKey = []byte("the key of meter7")

func (f *fakeMAF) MasterKey(_ context.Context, identity []byte, _ string) (*authority.Master, error) {
	if string(identity) != "meter7@maf.example.com" {
		return nil, authority.ErrUnknownClient
	}
	return &authority.Master{Km: secret.New(fakeKey)}, nil
}

func (f *fakeMAF) Establish(ctx context.Context, _ *authority.Master, export authority.Exporter) (authority.Issued, error) {
	if f.establish == nil {
		return authority.Issued{}, nil
	}
	return authority.Issued{}, f.establish(ctx, export)
}

// lockedBuffer is a log that a test reads while others write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startEndpoint serves an endpoint over TCP or UDP until the test ends.
func startEndpoint(t *testing.T, network string, maf *fakeMAF, change func(*HandshakeConfig)) (*endpoint, net.Listener, *lockedBuffer) {
	t.Helper()
	config := Defaults().Handshake
	if change != nil {
		change(&config)
	}
	log := &lockedBuffer{}
	e := newEndpoint(maf, config, config.MaxConcurrent, newOutcomeLog(slog.New(slog.NewTextHandler(log, nil))), newMetrics(prometheus.NewRegistry()))
	t.Cleanup(e.log.close)
	l := serveOn(t, e, network)
	return e, l, log
}

// serveOn has an endpoint serve one more listener until the test ends.
func serveOn(t *testing.T, e *endpoint, network string) net.Listener {
	t.Helper()
	l, err := tlspsk.Listen(network, "127.0.0.1:0", e.engine())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		e.serve(l)
		close(served)
	}()
	t.Cleanup(func() {
		l.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		e.drain(ctx)
		<-served
	})
	return l
}

func clientConfig() *tlspsk.Config {
	return &tlspsk.Config{
		Identity: []byte("meter7@maf.example.com"), Key: fakeKey, ServerName: "maf.example.com",
		HandshakeTimeout: 10 * time.Second,
	}
}

// eachTransport runs a test over TLS and over DTLS.
func eachTransport(t *testing.T, test func(t *testing.T, network string)) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) { test(t, network) })
	}
}

// TestNoFinishedBeforeDurable: as long as the key is not stored, the client's
// handshake is not complete; and what is stored is what the client exports.
func TestNoFinishedBeforeDurable(t *testing.T) {
	eachTransport(t, func(t *testing.T, network string) {
		storing, stored := make(chan []byte, 1), make(chan struct{})
		maf := &fakeMAF{establish: func(_ context.Context, export authority.Exporter) error {
			exported, err := export("EXPORTER-oneM2M-Connection", nil, 48)
			storing <- exported
			<-stored
			return err
		}}
		_, l, _ := startEndpoint(t, network, maf, nil)
		result := make(chan *tlspsk.Conn, 1)
		go func() {
			conn, err := tlspsk.Dial(network, l.Addr().String(), clientConfig())
			if err != nil {
				t.Error(err)
			}
			result <- conn
		}()
		exported := <-storing
		release := sync.OnceFunc(func() { close(stored) })
		defer release()
		select {
		case <-result:
			t.Fatal("the client's handshake ended before the key was stored")
		case <-time.After(100 * time.Millisecond):
		}
		release()
		conn := <-result
		if conn == nil {
			return
		}
		defer conn.Close()
		state := conn.ConnectionState()
		ours, err := state.ExportKeyingMaterial("EXPORTER-oneM2M-Connection", nil, 48)
		if err != nil || !bytes.Equal(ours, exported) {
			t.Errorf("the two sides exported different keys (%v)", err)
		}
	})
}

// TestEstablishFails: a client that proved its key gets no success when its key
// could not be stored, nor when it lost its right during the handshake.
func TestEstablishFails(t *testing.T) {
	for _, c := range []struct {
		err   error
		alert tlspsk.Alert
		log   string
	}{
		{authority.ErrDisabled, tlspsk.AlertBadRecordMAC, `reason="the client is disabled"`},
		{errors.New("the disk is on fire"), tlspsk.AlertInternalError, "the disk is on fire"},
	} {
		eachTransport(t, func(t *testing.T, network string) {
			maf := &fakeMAF{establish: func(context.Context, authority.Exporter) error { return c.err }}
			_, l, log := startEndpoint(t, network, maf, nil)
			_, err := tlspsk.Dial(network, l.Addr().String(), clientConfig())
			var alert *tlspsk.AlertError
			if !errors.As(err, &alert) || !alert.Remote || alert.Alert != c.alert {
				t.Errorf("the client got %v, want %v", err, c.alert)
			}
			waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), c.log) })
		})
	}
}

// TestTooManyKeys: a device that goes on asking gets no more keys for a while, and
// nobody but the device itself can bring that about.
func TestTooManyKeys(t *testing.T) {
	eachTransport(t, func(t *testing.T, network string) {
		const burst = 3
		_, l, log := startEndpoint(t, network, &fakeMAF{}, func(c *HandshakeConfig) { c.DeviceBurst, c.DeviceInterval = burst, time.Hour })
		dial := func(key []byte) error {
			config := clientConfig()
			config.Key = key
			conn, err := tlspsk.Dial(network, l.Addr().String(), config)
			if err == nil {
				conn.Close()
			}
			return err
		}
		for range 2 * burst {
			if dial([]byte("not the key of meter7")) == nil {
				t.Error("a wrong key is right")
			}
		}
		for n := range burst {
			if err := dial(fakeKey); err != nil {
				t.Errorf("handshake %d: %v", n, err)
			}
		}
		var alert *tlspsk.AlertError
		if err := dial(fakeKey); !errors.As(err, &alert) || !alert.Remote || alert.Alert != tlspsk.AlertAccessDenied {
			t.Errorf("one handshake too many: %v", err)
		}
		waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), "too many keys") })
	})
}

// waitFor waits for something that is about to happen in another goroutine.
func waitFor(t *testing.T, what string, happened func() bool) {
	t.Helper()
	for range 1000 {
		if happened() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

// TestDrain: at shutdown a handshake under way is completed, a session is
// closed in order, and a newcomer is not served.
func TestDrain(t *testing.T) {
	eachTransport(t, func(t *testing.T, network string) {
		storing, stored := make(chan struct{}, 2), make(chan struct{})
		maf := &fakeMAF{establish: func(context.Context, authority.Exporter) error {
			storing <- struct{}{}
			<-stored
			return nil
		}}
		e, l, _ := startEndpoint(t, network, maf, nil)
		dial := func(result chan<- *tlspsk.Conn) {
			conn, err := tlspsk.Dial(network, l.Addr().String(), clientConfig())
			if err != nil {
				t.Error(err)
			}
			result <- conn
		}
		before, during := make(chan *tlspsk.Conn, 1), make(chan *tlspsk.Conn, 1)
		go dial(before)
		<-storing
		stored <- struct{}{}
		session := <-before
		if session == nil {
			return
		}
		defer session.Close()
		waitFor(t, "the session", func() bool { return len(e.tls.sessions)+len(e.dtls.sessions) == 1 })
		go dial(during)
		<-storing

		l.Close()
		drained := make(chan struct{})
		go func() {
			e.drain(t.Context())
			close(drained)
		}()
		if _, err := session.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the session ended with %v, not close_notify", err)
		}
		select {
		case <-drained:
			t.Error("drain did not wait for the handshake")
		default:
		}
		close(stored)
		if conn := <-during; conn != nil {
			conn.Close()
		}
		<-drained
		if e.enter(nil) {
			t.Error("a newcomer is let in after drain")
		}
	})
}

// TestDrainEndsStalled: a client that does not go on holds nothing up for
// longer than the grace.
func TestDrainEndsStalled(t *testing.T) {
	e, l, _ := startEndpoint(t, "tcp", &fakeMAF{}, nil)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, "the connection", func() bool { return e.tls.gate.Stats().UnderWay == 1 })
	l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	e.drain(ctx) // returns
}

// TestTooManySessions: when there is no place for a session, it is closed after
// its handshake, which costs the client nothing.
func TestTooManySessions(t *testing.T) {
	e, l, _ := startEndpoint(t, "tcp", &fakeMAF{}, func(c *HandshakeConfig) { c.MaxConcurrent = 1 })
	conn, err := tlspsk.Dial("tcp", l.Addr().String(), clientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, "the session", func() bool { return len(e.tls.sessions) == 1 })
	second, err := tlspsk.Dial("tcp", l.Addr().String(), clientConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if _, err := second.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a session too many ended with %v, not close_notify", err)
	}
}

// TestFewPlaces: there may be fewer places than listeners; a listener that waits
// for clients takes none.
func TestFewPlaces(t *testing.T) {
	e, _, _ := startEndpoint(t, "tcp", &fakeMAF{}, func(c *HandshakeConfig) { c.MaxConcurrent = 1 })
	for _, network := range []string{"tcp", "udp", "tcp"} {
		conn, err := tlspsk.Dial(network, serveOn(t, e, network).Addr().String(), clientConfig())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
	}
}

// TestTalker: who goes on talking after the handshake is closed, and so is who
// says nothing for too long.
func TestTalker(t *testing.T) {
	eachTransport(t, func(t *testing.T, network string) {
		_, l, _ := startEndpoint(t, network, &fakeMAF{}, nil)
		conn, err := tlspsk.Dial(network, l.Addr().String(), clientConfig())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ended := make(chan error, 1)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
		for range 100 * maxIdleReads {
			if _, err := conn.Write([]byte("x")); err != nil {
				break
			}
			time.Sleep(time.Millisecond) // or TCP makes one read of many writes
			if len(ended) > 0 {
				return
			}
		}
		t.Error("the talker was not closed")
	})
	t.Run("silent", func(t *testing.T) {
		_, l, _ := startEndpoint(t, "tcp", &fakeMAF{}, func(c *HandshakeConfig) { c.IdleTimeout = 50 * time.Millisecond })
		conn, err := tlspsk.Dial("tcp", l.Addr().String(), clientConfig())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the silent session ended with %v, not close_notify", err)
		}
	})
}

// TestRequireExtendedMasterSecret: the operator's word reaches the engine.
func TestRequireExtendedMasterSecret(t *testing.T) {
	_, l, log := startEndpoint(t, "tcp", &fakeMAF{}, func(c *HandshakeConfig) { c.RequireExtendedMasterSecret = true })
	config := clientConfig()
	config.ExtendedMasterSecret = tlspsk.PolicyDisable
	_, err := tlspsk.Dial("tcp", l.Addr().String(), config)
	var alert *tlspsk.AlertError
	if !errors.As(err, &alert) || !alert.Remote || alert.Alert != tlspsk.AlertHandshakeFailure {
		t.Errorf("the client got %v", err)
	}
	waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), "extended master secret") })
}
