package tlspsk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

var (
	testKey      = []byte("0123456789abcdef0123456789abcdef")
	testIdentity = []byte("meter7@maf.example.com")
)

const exportLabel = "EXPORTER-oneM2M-Connection"

func serverConfig() *Config {
	return &Config{
		RefusalDelay: -1, // TestRefusalDelay looks at it
		GetPSK: func(_ context.Context, req *PSKRequest) (*PSK, error) {
			if !bytes.Equal(req.Identity, testIdentity) {
				return nil, ErrUnknownIdentity
			}
			return &PSK{Key: testKey, Data: "data"}, nil
		},
	}
}

func clientConfig() *Config {
	return &Config{Identity: testIdentity, Key: testKey, ServerName: "maf.example.com"}
}

var networks = []string{"tcp", "udp"}

// accepted is what a server made of one connection.
type accepted struct {
	conn *Conn
	err  error
}

// listen starts a server that does the handshake of each connection and hands
// it out.
func listen(t testing.TB, network string, config *Config) (addr string, conns <-chan accepted) {
	t.Helper()
	l, err := Listen(network, "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan accepted, 16)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				t.Cleanup(func() { c.Close() })
				err := c.(*Conn).Handshake()
				if err != nil {
					c.Close()
				}
				ch <- accepted{c.(*Conn), err}
			}()
		}
	}()
	return l.Addr().String(), ch
}

// connect makes a session on loopback.
func connect(t testing.TB, network string, client, server *Config) (c, s *Conn) {
	t.Helper()
	addr, conns := listen(t, network, server)
	c, err := Dial(network, addr, client)
	if err != nil {
		t.Fatalf("client: %v", err)
	}
	t.Cleanup(func() { c.Close() })
	a := <-conns
	if a.err != nil {
		t.Fatalf("server: %v", a.err)
	}
	return c, a.conn
}

func TestSession(t *testing.T) {
	for _, network := range networks {
		for _, s := range CipherSuites() {
			for _, ems := range []Policy{PolicyPrefer, PolicyDisable} {
				for _, etm := range []Policy{PolicyPrefer, PolicyDisable} {
					t.Run(fmt.Sprintf("%s/%s/ems=%v/etm=%v", network, s.Name, ems == PolicyPrefer, etm == PolicyPrefer), func(t *testing.T) {
						cc := clientConfig()
						cc.CipherSuites = []uint16{s.ID}
						cc.ExtendedMasterSecret, cc.EncryptThenMAC = ems, etm
						testSession(t, network, cc)
					})
				}
			}
		}
	}
}

func testSession(t *testing.T, network string, config *Config) {
	c, s := connect(t, network, config, serverConfig())
	cs, ss := c.ConnectionState(), s.ConnectionState()
	if cs.CipherSuite != config.CipherSuites[0] || ss.CipherSuite != cs.CipherSuite {
		t.Errorf("suites %04x, %04x", cs.CipherSuite, ss.CipherSuite)
	}
	if want := config.ExtendedMasterSecret == PolicyPrefer; cs.ExtendedMasterSecret != want || ss.ExtendedMasterSecret != want {
		t.Errorf("extended master secret: %v, %v", cs.ExtendedMasterSecret, ss.ExtendedMasterSecret)
	}
	if ss.ServerName != config.ServerName || !bytes.Equal(ss.Identity, testIdentity) || ss.PSKData != "data" {
		t.Errorf("state %+v", ss)
	}
	for _, context := range [][]byte{nil, {}, []byte("context")} {
		ce, err1 := cs.ExportKeyingMaterial(exportLabel, context, 48)
		se, err2 := ss.ExportKeyingMaterial(exportLabel, context, 48)
		if err1 != nil || err2 != nil || !bytes.Equal(ce, se) || len(ce) != 48 {
			t.Errorf("exports differ: %v, %v", err1, err2)
		}
	}
	buf := make([]byte, 1<<15)
	for _, n := range []int{1, 100, 1000, 16384} {
		message := bytes.Repeat([]byte{byte(n)}, n)
		for _, d := range []struct{ from, to *Conn }{{c, s}, {s, c}} {
			if m, err := d.from.Write(message); m != n || err != nil {
				t.Fatalf("Write: %d, %v", m, err)
			}
			m, err := io.ReadAtLeast(d.to, buf, n)
			if err != nil || !bytes.Equal(buf[:m], message) {
				t.Fatalf("Read: %d, %v", m, err)
			}
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if n, err := s.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("Read after the peer's Close: %d, %v", n, err)
	}
	if _, err := c.Write(buf[:1]); err == nil {
		t.Error("Write after Close succeeded")
	}
	if err := c.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// A wrong key and an unknown identity look the same to the client; the
// server's error tells them apart.
func TestRefusedKeys(t *testing.T) {
	for _, network := range networks {
		for _, c := range []struct {
			name          string
			identity, key []byte
			unknown       bool
		}{
			{"wrong key", testIdentity, []byte("wrong"), false},
			{"unknown identity", []byte("nobody"), testKey, true},
			{"identity cut at NUL", append(bytes.Clone(testIdentity), 0, 'x'), testKey, true},
			{"identity and NUL", append(bytes.Clone(testIdentity), 0), testKey, true},
			{"empty identity", nil, testKey, true},
		} {
			t.Run(network+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				addr, conns := listen(t, network, serverConfig())
				cc := clientConfig()
				cc.Identity, cc.Key = c.identity, c.key
				cc.RetransmitTimeout = 50 * time.Millisecond
				_, err := Dial(network, addr, cc)
				var ae *AlertError
				if !errors.As(err, &ae) || !ae.Remote || ae.Alert != AlertBadRecordMAC {
					t.Errorf("client: %v", err)
				}
				a := <-conns
				if !errors.As(a.err, &ae) || ae.Remote || ae.Alert != AlertBadRecordMAC {
					t.Errorf("server: %v", a.err)
				}
				if errors.Is(a.err, ErrUnknownIdentity) != c.unknown {
					t.Errorf("server: %v", a.err)
				}
			})
		}
	}
}

// However long the lookup takes, the alert leaves at the same instant, or a
// whole delay later.
func TestRefusalDelay(t *testing.T) {
	for lookup, want := range map[time.Duration]time.Duration{
		0:                     defaultRefusalDelay,
		time.Microsecond:      defaultRefusalDelay,
		19 * time.Millisecond: defaultRefusalDelay,
		21 * time.Millisecond: 2 * defaultRefusalDelay,
		95 * time.Millisecond: 5 * defaultRefusalDelay,
	} {
		for _, known := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				sc := serverConfig()
				sc.RefusalDelay = 0
				sc.GetPSK = func(context.Context, *PSKRequest) (*PSK, error) {
					time.Sleep(lookup)
					if known {
						return &PSK{Key: testKey}, nil
					}
					return nil, ErrUnknownIdentity
				}
				a, b := net.Pipe()
				cc := clientConfig()
				cc.Key = []byte("wrong")
				client, server := Client(a, cc), Server(b, sc)
				go server.Handshake()
				start := time.Now()
				if err := client.Handshake(); !errors.Is(err, AlertBadRecordMAC) {
					t.Error(err)
				}
				if got := time.Since(start); got != want {
					t.Errorf("lookup of %v, known %v: refused after %v, want %v", lookup, known, got, want)
				}
				client.Close()
				server.Close()
			})
		}
	}
}
