package tlspsk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/timing"
)

// TestTimingUnknownIdentity: who does not know a key can't find out by the time
// of our alert whether the identity exists. The time is that from the arrival of
// the client's second flight to our alert, without a network in between.
func TestTimingUnknownIdentity(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements are left out with -short")
	}
	for _, suite := range []uint16{
		TLS_PSK_WITH_AES_128_CBC_SHA256,
		TLS_PSK_WITH_AES_128_GCM_SHA256,
		TLS_PSK_WITH_AES_256_GCM_SHA384,
		TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256,
	} {
		for _, keyLen := range []int{16, 32, 64} {
			t.Run(fmt.Sprintf("%s/key of %d octets", CipherSuiteName(suite), keyLen), func(t *testing.T) {
				testTimingUnknownIdentity(t, suite, keyLen)
			})
		}
	}
}

func testTimingUnknownIdentity(t *testing.T, suite uint16, keyLen int) {
	wrong := []byte("the wrong key, of 32 octets.....")
	compareRefusals(t, suite, make([]byte, keyLen), [2]Config{
		{Identity: []byte("meter7@maf.example.com"), Key: wrong},
		{Identity: []byte("meter8@maf.example.com"), Key: wrong},
	})
}

// TestTimingWrongKey: nor how much of a guessed key is right.
func TestTimingWrongKey(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements are left out with -short")
	}
	for _, suite := range []uint16{TLS_PSK_WITH_AES_128_CBC_SHA256, TLS_PSK_WITH_AES_128_CCM_8} {
		t.Run(CipherSuiteName(suite), func(t *testing.T) {
			key := bytes.Repeat([]byte{1}, 32)
			var clients [2]Config
			for class, wrong := range []int{0, len(key) - 1} {
				guess := bytes.Clone(key)
				guess[wrong] = 0
				clients[class] = Config{Identity: []byte("meter7@maf.example.com"), Key: guess}
			}
			compareRefusals(t, suite, key, clients)
		})
	}
}

// compareRefusals examines how long a server that knows meter7's key takes to
// refuse each of the clients.
func compareRefusals(t *testing.T, suite uint16, key []byte, clients [2]Config) {
	t.Helper()
	psk := &PSK{Key: key} // not made in GetPSK, which is to take no time
	server := &Config{
		GetPSK: func(_ context.Context, req *PSKRequest) (*PSK, error) {
			if string(req.Identity) == "meter7@maf.example.com" {
				return psk, nil
			}
			return nil, ErrUnknownIdentity
		},
		RefusalDelay: -1, // it would hide everything
	}
	const variants = 32
	var sessions [2][variants]*recordedClient
	for i := range variants {
		for class, client := range clients {
			client.CipherSuites = []uint16{suite}
			sessions[class][i] = recordClient(t, &client, server, byte(i))
		}
	}
	next := 0
	v := timing.Examine(2000, func(class int) time.Duration {
		next = (next + 1) % variants
		return sessions[class][next].replay(t, server)
	})
	if v.Leaks() {
		t.Errorf("the time of the alert tells the clients apart: %v", v)
	} else {
		t.Log(v)
	}
}

// A recordedClient is what a client sent in its two flights to a server with a
// given randomness, which makes the server answer the same again.
type recordedClient struct {
	seed    byte
	flights [2][]byte
}

func (r *recordedClient) random() io.Reader { return rand.NewChaCha8([32]byte{r.seed}) }

// recordClient has a client with a wrong key fail.
func recordClient(t *testing.T, client, server *Config, seed byte) *recordedClient {
	t.Helper()
	r := &recordedClient{seed: seed}
	cc, sc := net.Pipe()
	defer cc.Close()
	defer sc.Close()
	deterministic := *server
	deterministic.Rand = r.random()
	go Server(sc, &deterministic).Handshake()
	tee := &teeConn{Conn: cc}
	var ae *AlertError
	if err := Client(tee, client).Handshake(); !errors.As(err, &ae) || ae.Alert != AlertBadRecordMAC || !ae.Remote || len(tee.written) != 2 {
		t.Fatalf("recording: %v, %d flights", err, len(tee.written))
	}
	r.flights = [2][]byte(tee.written)
	return r
}

// A teeConn keeps what is written.
type teeConn struct {
	net.Conn
	written [][]byte
}

func (c *teeConn) Write(b []byte) (int, error) {
	c.written = append(c.written, append([]byte(nil), b...))
	return c.Conn.Write(b)
}

// replay has a server refuse the client again, and returns how long it took from
// the client's second flight to the alert.
func (r *recordedClient) replay(t *testing.T, server *Config) time.Duration {
	deterministic := *server
	deterministic.Rand = r.random()
	conn := &replayConn{client: r}
	err := Server(conn, &deterministic).Handshake()
	var ae *AlertError
	if !errors.As(err, &ae) || ae.Alert != AlertBadRecordMAC || ae.Remote || conn.took == 0 {
		t.Fatalf("replay: %v", err)
	}
	return conn.took
}

// A replayConn is the server's end of a connection to a recorded client.
type replayConn struct {
	net.Conn
	client *recordedClient
	reads  int
	begin  time.Time
	took   time.Duration // from the second read to the write after it
}

func (c *replayConn) Read(b []byte) (int, error) {
	if c.reads == len(c.client.flights) {
		return 0, io.EOF
	}
	n := copy(b, c.client.flights[c.reads])
	c.reads++
	c.begin = time.Now()
	return n, nil
}

func (c *replayConn) Write(b []byte) (int, error) {
	if c.reads == len(c.client.flights) {
		c.took = time.Since(c.begin)
	}
	return len(b), nil
}

func (c *replayConn) Close() error         { return nil }
func (c *replayConn) LocalAddr() net.Addr  { return nil }
func (c *replayConn) RemoteAddr() net.Addr { return nil }

// TestLeakyBuild: an engine that refuses unknown identities at once is found out.
func TestLeakyBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("measurements are left out with -short")
	}
	timing.CheckLeakyBuild(t, "maf_leaky_identity", "TestTimingUnknownIdentity")
}
