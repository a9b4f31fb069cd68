package interop

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

const (
	label  = "EXPORTER-oneM2M-Connection"
	length = 48
)

// outcome is what our side of a connection has to say.
type outcome struct {
	state  tlspsk.ConnectionState
	export []byte // as VerifyConnection got it
	drawn  []byte // what it took from Config.Rand
	err    error  // nil: all went well, to the peer's close_notify
}

// side prepares a Config whose exported key and random octets end up in the outcome.
func side(config tlspsk.Config, out *outcome) *tlspsk.Config {
	config.Rand = &recorder{out: &out.drawn}
	config.RetransmitTimeout = 200 * time.Millisecond
	verify := config.VerifyConnection
	config.VerifyConnection = func(ctx context.Context, cs *tlspsk.ConnectionState) (err error) {
		if out.export, err = cs.ExportKeyingMaterial(label, nil, length); err != nil || verify == nil {
			return err
		}
		return verify(ctx, cs)
	}
	return &config
}

// recorder is a random source that keeps what it gave, so that the matrix can find our
// ephemeral key in it.
type recorder struct {
	mu  sync.Mutex
	out *[]byte // guarded by mu until the connection is over
}

func (r *recorder) Read(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, err := rand.Read(p)
	*r.out = append(*r.out, p[:n]...)
	return n, err
}

// An exchange is one connection between our side and a foreign one, through a relay.
type exchange struct {
	foreign *foreign
	weServe bool
	config  tlspsk.Config // ours
	options peers.Options // theirs, but for the address
	drop    func(fromClient bool, datagram []byte) bool

	relay  *peers.Relay
	ours   outcome
	theirs peers.Report // may be empty when our side failed: theirs need not notice, over DTLS
}

func (e *exchange) run(t *testing.T) {
	t.Helper()
	o := e.options
	if e.weServe {
		addr, wait := serveOne(t, o.Network, e.config, e.foreign.talk)
		e.relay = peers.NewLossyRelay(t, o.Network, addr, e.drop)
		o.Addr = e.relay.Addr
		client := e.foreign.client(t, o)
		theirs := make(chan peers.Report, 1)
		go func() { theirs <- client() }()
		if e.ours = wait(); e.ours.err == nil {
			e.theirs = <-theirs
			return
		}
		select {
		case e.theirs = <-theirs:
		case <-time.After(5 * time.Second):
		}
		return
	}
	addr, wait := e.foreign.server(t, o)
	e.relay = peers.NewLossyRelay(t, o.Network, addr, e.drop)
	e.ours = dialOne(o.Network, e.relay.Addr, e.config, e.foreign.talk)
	if e.ours.err == nil || o.Network == "tcp" {
		e.theirs = wait()
	}
}

func (e *exchange) mustSucceed(t *testing.T) {
	t.Helper()
	if e.ours.err != nil || len(e.theirs.Failures) > 0 || e.weServe && !e.theirs.DataOK {
		t.Fatalf("our side: %v; theirs: %q", e.ours.err, e.theirs.Lines)
	}
}

// A dialogue is what is said over a connection once it stands.
type dialogue struct {
	// ask is our client's part, up to but without the closing.
	ask func(network string, c net.Conn) error
	// answer is our server's: the reply to what one Read gave; nil: none.
	answer func(network string, message []byte) ([]byte, error)
}

// serveOne is our server for one connection. wait returns its outcome.
func serveOne(t testing.TB, network string, config tlspsk.Config, d dialogue) (addr string, wait func() outcome) {
	t.Helper()
	out := new(outcome)
	ln, err := tlspsk.Listen(network, "127.0.0.1:0", side(config, out))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			out.err = err
			return
		}
		defer c.Close()
		out.err = serveConn(network, c.(*tlspsk.Conn), d, out)
	}()
	return ln.Addr().String(), func() outcome {
		select {
		case <-done:
			return *out
		case <-time.After(peers.Limit):
			ln.Close()
			return outcome{err: errors.New("our server is still busy")}
		}
	}
}

func serveConn(network string, c *tlspsk.Conn, d dialogue, out *outcome) error {
	c.SetDeadline(time.Now().Add(peers.Limit))
	if err := c.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	out.state = c.ConnectionState()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		reply, err := d.answer(network, buf[:n])
		if err != nil {
			return err
		}
		if reply == nil {
			continue
		}
		if _, err := c.Write(reply); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

// dialOne is our client.
func dialOne(network, addr string, config tlspsk.Config, d dialogue) outcome {
	var out outcome
	c, err := tlspsk.Dial(network, addr, side(config, &out))
	if err != nil {
		out.err = fmt.Errorf("handshake: %w", err)
		return out
	}
	defer c.Close()
	out.state = c.ConnectionState()
	c.SetDeadline(time.Now().Add(peers.Limit))
	if out.err = d.ask(network, c); out.err != nil || network != "tcp" {
		return out // DTLS has no half-closed state: Close says the last word
	}
	if out.err = c.CloseWrite(); out.err != nil {
		return out
	}
	if n, err := c.Read(make([]byte, 1)); err != io.EOF {
		out.err = fmt.Errorf("no close_notify in answer to ours: %d octets, %v", n, err)
	}
	return out
}

// pingPong is the dialogue of package peers.
var pingPong = dialogue{
	ask: func(network string, c net.Conn) error {
		bulk := make([]byte, bulkSize(network))
		rand.Read(bulk)
		for _, message := range []string{"ping 1", string(bulk)} {
			if _, err := io.WriteString(c, message); err != nil {
				return err
			}
			back := make([]byte, len(message))
			if _, err := io.ReadFull(c, back); err != nil {
				return err
			}
			if expected := bytes.Replace([]byte(message), []byte("ping"), []byte("pong"), 1); !bytes.Equal(back, expected) {
				return fmt.Errorf("%.20q came back as %.20q", message, back)
			}
		}
		return nil
	},
	answer: func(_ string, message []byte) ([]byte, error) {
		return bytes.Replace(message, []byte("ping"), []byte("pong"), 1), nil
	},
}

// bulkSize is more than one record for TLS, and one datagram for DTLS.
func bulkSize(network string) int {
	if network == "tcp" {
		return 40000
	}
	return 1000
}
