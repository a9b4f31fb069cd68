package tlspsk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// No test leaves a goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Many goroutines read, write, move deadlines and ask for the state of one
// connection, until it is closed from both ends in the middle of it. Nothing
// hangs, and every octet that is read is one that was written.
func TestConcurrentUse(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			c, s := connect(t, network, clientConfig(), serverConfig())
			var wg sync.WaitGroup
			for _, conn := range []*Conn{c, s} {
				for range 4 {
					wg.Go(func() { keepWriting(t, conn) })
					wg.Go(func() { keepReading(t, conn) })
					wg.Go(func() {
						for conn.SetDeadline(time.Now().Add(time.Second)) == nil && !isOver(conn) {
							cs := conn.ConnectionState()
							cs.ExportKeyingMaterial(exportLabel, nil, 48)
							conn.RemoteAddr()
						}
					})
				}
			}
			time.Sleep(50 * time.Millisecond)
			wg.Go(func() { c.Close() })
			wg.Go(func() { s.Close() })
			wg.Go(func() { c.Close() })
			wg.Wait()
		})
	}
}

// message is what the connections carry: any number of these octets, aligned
// in DTLS.
var message = bytes.Repeat([]byte("0123456789abcdef"), 64)

func isOver(c *Conn) bool {
	cs := c.ConnectionState()
	_, err := cs.ExportKeyingMaterial(exportLabel, nil, 1)
	return err != nil
}

func keepWriting(t *testing.T, c *Conn) {
	for {
		if _, err := c.Write(message[:16*(1+rand.IntN(64))]); err != nil {
			expectEnd(t, err)
			return
		}
	}
}

func keepReading(t *testing.T, c *Conn) {
	b := make([]byte, len(message))
	for {
		n, err := c.Read(b)
		for _, octet := range b[:n] {
			if !bytes.Contains(message[:16], []byte{octet}) {
				t.Errorf("read an octet %q that nobody wrote", octet)
				return
			}
		}
		if err != nil {
			expectEnd(t, err)
			return
		}
	}
}

// expectEnd checks that an error is one that Close, or the peer's, explains.
func expectEnd(t *testing.T, err error) {
	var op *net.OpError // of the TCP connection: reset, or broken pipe
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, errShutdown) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &op) {
		return
	}
	t.Errorf("unexpected error: %v", err)
}

// Handshake may be called by many goroutines at once: it is done once, and all
// get its result.
func TestConcurrentHandshake(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			addr, conns := listen(t, network, serverConfig())
			raw, err := net.Dial(network, addr)
			if err != nil {
				t.Fatal(err)
			}
			c := Client(raw, clientConfig())
			if network == "udp" {
				c = DatagramClient(raw, clientConfig())
			}
			defer c.Close()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := c.Handshake(); err != nil {
						t.Error(err)
					}
				})
				wg.Go(func() { c.ConnectionState() })
			}
			wg.Wait()
			if a := <-conns; a.err != nil {
				t.Error(a.err)
			}
		})
	}
}

// Close during a handshake ends it at once, on either side.
func TestCloseDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newSimNet()
		n.setFilter(func(_, _ netip.AddrPort, _ []byte) [][]byte { return nil })
		l := NewPacketListener(n.socket(simServer), serverConfig())
		client := simDial(n, simClient, clientConfig())
		time.AfterFunc(time.Second/2, func() { client.Close() })
		start := time.Now()
		if err := client.Handshake(); !errors.Is(err, net.ErrClosed) || time.Since(start) != time.Second/2 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		l.Close()
	})
	a, b := net.Pipe()
	defer b.Close()
	c := Server(a, serverConfig())
	done := make(chan error)
	go func() { done <- c.Handshake() }()
	c.Close()
	if err := <-done; err == nil {
		t.Error("handshake on a closed connection succeeded")
	}
}
