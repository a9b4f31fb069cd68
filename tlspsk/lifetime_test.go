package tlspsk

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// Close ends a handshake that waits for a callback, and the callback's context.
func TestCloseDuringCallback(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := serverConfig()
		config.GetPSK = func(ctx context.Context, _ *PSKRequest) (*PSK, error) {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		a, b := net.Pipe()
		client, server := Client(a, clientConfig()), Server(b, config)
		go client.Handshake()
		done := make(chan error)
		go func() { done <- server.Handshake() }()
		synctest.Wait()
		start := time.Now()
		server.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) || time.Since(start) != 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		client.Close()
	})
}

// A server that is closed while VerifyConnection runs sends no Finished: the
// client must not believe in a session. Nor is there anything to export, for
// anybody who has kept the state.
func TestCloseDuringVerifyConnection(t *testing.T) {
	for name, end := range map[string]func(*Conn, context.CancelFunc){
		"Close":  func(c *Conn, _ context.CancelFunc) { c.Close() },
		"cancel": func(_ *Conn, cancel context.CancelFunc) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testCloseDuringVerifyConnection(t, end) })
		})
	}
}

func testCloseDuringVerifyConnection(t *testing.T, end func(*Conn, context.CancelFunc)) {
	n := newSimNet()
	config := serverConfig()
	var kept *ConnectionState
	config.VerifyConnection = func(_ context.Context, cs *ConnectionState) error {
		kept = cs
		time.Sleep(time.Second) // whatever its context says
		return nil
	}
	l := NewPacketListener(n.socket(simServer), config)
	client := simDial(n, simClient, clientConfig())
	client.config.HandshakeTimeout = 5 * time.Second
	done := make(chan error)
	go func() { done <- client.Handshake() }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	server := c.(*Conn)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(time.Second/2, func() { end(server, cancel) })
	if err := server.HandshakeContext(ctx); !errors.Is(err, net.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("the server: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("the client believes in a session that the server has given up")
	}
	if _, err := kept.ExportKeyingMaterial(exportLabel, nil, 48); err == nil {
		t.Error("a handshake that failed has left a master secret")
	}
	client.Close()
	server.Close()
	l.Close()
}

// A callback may leave a goroutine behind that exports while the server's
// Finished is made. That has been made before.
func TestFinishedBeforeCallback(t *testing.T) {
	config := serverConfig()
	config.VerifyConnection = func(_ context.Context, cs *ConnectionState) error {
		*cs.exporter.prf = *suite.ByID(cs.CipherSuite).NewPRF([]byte("in the midst of something else"))
		return nil
	}
	clientErr, serverErr := pipe(clientConfig(), config, func(b []byte) []byte { return b })
	if clientErr != nil || serverErr != nil {
		t.Errorf("%v, %v", clientErr, serverErr)
	}
}

// Write says whether there is no more to be said, or nobody to say it.
func TestWriteAfterClose(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			c, _ := connect(t, network, clientConfig(), serverConfig())
			c.CloseWrite()
			if _, err := c.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
				t.Errorf("after CloseWrite: %v", err)
			}
			c.Close()
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read after Close: %v", err)
			}
			if err := c.Close(); !errors.Is(err, net.ErrClosed) {
				t.Errorf("Close after Close: %v", err)
			}
		})
	}
}

// Over DTLS, Write says so too when the peer has refused to go on, or has begun
// another session: who only writes has no other way to know.
func TestWriteAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		l, conns, client, server := simSession(t, n)
		client.t.(*datagram).sendAlert(alertLevelFatal, AlertInternalError)
		synctest.Wait()
		var a *AlertError
		if _, err := server.Write([]byte("x")); !errors.As(err, &a) || !a.Remote || a.Alert != AlertInternalError {
			t.Errorf("after a fatal alert: %v", err)
		}
		client.Close()
		server.Close()

		lost := simDial(n, simClient, clientConfig())
		if err := lost.Handshake(); err != nil {
			t.Fatal(err)
		}
		replaced := (<-conns).conn
		client = simDial(n, simClient, clientConfig())
		if err := client.Handshake(); err != nil {
			t.Fatal(err)
		}
		server = (<-conns).conn
		if _, err := replaced.Write([]byte("x")); !errors.Is(err, errReplaced) {
			t.Errorf("on a session that another one has replaced: %v", err)
		}
		client.CloseWrite()
		if _, err := server.Read(make([]byte, 1)); err != io.EOF {
			t.Error(err)
		}
		if _, err := server.Write([]byte("x")); err != nil {
			t.Errorf("after close_notify: %v", err)
		}
		for _, c := range []*Conn{lost, replaced, client, server} {
			c.Close()
		}
		l.Close()
	})
}

// A Read that does the handshake keeps to its deadline.
func TestDTLSHandshakeDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		n.setFilter(func(_, _ netip.AddrPort, _ []byte) [][]byte { return nil })
		client := simDial(n, simClient, clientConfig())
		client.SetDeadline(time.Now().Add(1500 * time.Millisecond))
		start := time.Now()
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		client.Close()
	})
}

// A peer that does not read can't hold us with the alert that it gets.
func TestAlertBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		server := Server(b, serverConfig())
		go a.Write([]byte{wire.Handshake, 3, 3, 0, 4, wire.TypeFinished, 0, 0, 0})
		start := time.Now()
		if err := server.Handshake(); err == nil || time.Since(start) != defaultHandshakeTimeout {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		server.Close()
		a.Close()
	})
}

// As with crypto/tls, the Timeout of a net.Dialer is for the handshake too.
func TestDialerTimeout(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, d := range map[string]*net.Dialer{
		"Timeout":  {Timeout: 50 * time.Millisecond},
		"Deadline": {Deadline: time.Now().Add(50 * time.Millisecond)},
	} {
		dialer := &Dialer{NetDialer: d, Config: clientConfig()}
		dialer.Config.HandshakeTimeout = 15 * time.Second
		var timeout net.Error
		_, err := dialer.DialContext(t.Context(), "tcp", l.Addr().String())
		if !errors.As(err, &timeout) || !timeout.Timeout() || errors.Is(err, errHandshakeTimeout{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
