package tlspsk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The client's Finished is verified before VerifyConnection runs, and the
// server's is not sent before it returns; its error reaches the client as an
// alert, and the session never comes to be.
func TestVerifyConnection(t *testing.T) {
	for _, network := range networks {
		for _, c := range []struct {
			name  string
			err   error
			alert Alert
		}{
			{"success", nil, 0},
			{"failure", errors.New("disk full"), AlertInternalError},
			{"chosen alert", AlertAccessDenied, AlertAccessDenied},
		} {
			t.Run(network+"/"+c.name, func(t *testing.T) {
				t.Parallel()
				var committed atomic.Bool
				var export []byte
				sc := serverConfig()
				sc.VerifyConnection = func(ctx context.Context, cs *ConnectionState) error {
					export, _ = cs.ExportKeyingMaterial(exportLabel, nil, 48)
					if cs.PSKData != "data" || !bytes.Equal(cs.Identity, testIdentity) {
						t.Errorf("state %+v", cs)
					}
					time.Sleep(20 * time.Millisecond)
					committed.Store(true)
					return c.err
				}
				addr, conns := listen(t, network, sc)
				conn, err := Dial(network, addr, clientConfig())
				if !committed.Load() {
					t.Error("the client was done before the server had committed")
				}
				a := <-conns
				if c.err == nil {
					if err != nil || a.err != nil {
						t.Fatal(err, a.err)
					}
					cs := conn.ConnectionState()
					if got, _ := cs.ExportKeyingMaterial(exportLabel, nil, 48); len(got) != 48 || !bytes.Equal(got, export) {
						t.Error("exports differ")
					}
					conn.Close()
					return
				}
				if !errors.Is(err, c.alert) || !errors.Is(a.err, c.err) {
					t.Errorf("client: %v; server: %v", err, a.err)
				}
			})
		}
	}
}

// Handshakes that wait for a slow lookup hold no OS threads and little memory,
// and all end well.
func TestSlowLookup(t *testing.T) {
	clients := 10_000
	if testing.Short() {
		clients = 500
	}
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		sc := serverConfig()
		sc.GetPSK = func(ctx context.Context, _ *PSKRequest) (*PSK, error) {
			<-release
			return &PSK{Key: testKey}, nil
		}
		n := newSimNet()
		var before, during runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		l := NewPacketListener(n.socket(simServer), sc).(*packetListener)
		var failed atomic.Int64
		var wg sync.WaitGroup
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					if err := c.(*Conn).Handshake(); err != nil {
						failed.Add(1)
					}
					c.Close()
				})
			}
		}()
		for i := range clients {
			wg.Go(func() {
				c := simDial(n, (&net.UDPAddr{IP: net.IPv4(10, 0, 0, byte(i>>14)), Port: 1024 + i&(1<<14-1)}).String(), clientConfig())
				if err := c.Handshake(); err != nil {
					failed.Add(1)
				}
				c.Close()
			})
			if i%100 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		runtime.GC()
		runtime.ReadMemStats(&during)
		if threads := threadCount(t); threads > 50 {
			t.Errorf("%d OS threads", threads)
		}
		// Of this, 18 kB are the client's buffer for the largest datagram.
		perClient := (during.HeapInuse + during.StackInuse - before.HeapInuse - before.StackInuse) / uint64(clients)
		t.Logf("%d waiting handshakes: %d octets each, client, server and network together", clients, perClient)
		if perClient > 64<<10 {
			t.Errorf("%d octets per waiting handshake", perClient)
		}
		close(release)
		wg.Wait()
		l.Close()
		if failed.Load() != 0 {
			t.Errorf("%d handshakes failed", failed.Load())
		}
	})
}

// threadCount is the number of this process's OS threads.
func threadCount(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Log("threads not counted: no /proc here")
	}
	return len(entries)
}

// A handshake ends when its context or its time does, and says so.
func TestHandshakeEnds(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := func(config *Config) *Conn {
					if network == "udp" {
						return simDial(newSimNet(), simClient, config)
					}
					c, s := net.Pipe()
					go io.Copy(io.Discard, s)
					return Client(c, config)
				}
				start := time.Now()
				c := dial(clientConfig())
				err := c.Handshake()
				var ne net.Error
				if !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != defaultHandshakeTimeout {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				c.Close()

				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Second, cancel)
				c = dial(clientConfig())
				if err := c.HandshakeContext(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("cancelled: %v", err)
				}
				c.Close()
			})
		})
	}
}

// Records are no longer than each side asked for, and data gets through all
// the same. max_fragment_length binds both directions, record_size_limit one.
func TestRecordLimits(t *testing.T) {
	for _, c := range []struct {
		name               string
		toServer, toClient int
		set                func(c, s *Config)
	}{
		{"max_fragment_length", 512, 512, func(c, s *Config) { c.MaxFragmentLength = 512 }},
		{"record_size_limit", 4096, 512, func(c, s *Config) { c.RecordSizeLimit = 512 }},
		{"record_size_limit, both", 300, 512, func(c, s *Config) { c.RecordSizeLimit, s.RecordSizeLimit = 512, 300 }},
		{"the newer extension wins", 4096, 512, func(c, s *Config) { c.RecordSizeLimit, c.MaxFragmentLength = 512, 1024 }},
	} {
		for _, network := range networks {
			t.Run(network+"/"+c.name, func(t *testing.T) {
				cc, sc := clientConfig(), serverConfig()
				c.set(cc, sc)
				client, server := connect(t, network, cc, sc)
				for _, d := range []struct {
					from, to *Conn
					limit    int
				}{{client, server, c.toServer}, {server, client, c.toClient}} {
					buf := make([]byte, 4096)
					if network == "udp" {
						buf = buf[:300]
						if d.limit < 4096 {
							if _, err := d.from.Write(make([]byte, d.limit+1)); err != ErrTooLarge {
								t.Errorf("%d octets: %v", d.limit+1, err)
							}
						}
					}
					go d.from.Write(buf)
					got := make([]byte, len(buf))
					first, err := d.to.Read(got)
					if err != nil || first != min(d.limit, len(buf)) {
						t.Errorf("first record of %d octets, %v, want %d", first, err, d.limit)
					}
					if _, err := io.ReadFull(d.to, got[first:]); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
}

// Close makes blocked calls return, deadlines end them, and a deadline that is
// over can be moved.
func TestBlockedCalls(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			c, s := connect(t, network, clientConfig(), serverConfig())
			s.SetReadDeadline(time.Now().Add(-time.Second))
			for range 2 {
				if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("past deadline: %v", err)
				}
			}
			s.SetReadDeadline(time.Time{})
			c.Write([]byte("x"))
			if n, err := s.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("after the deadline was lifted: %d, %v", n, err)
			}
			done := make(chan error)
			go func() {
				_, err := s.Read(make([]byte, 1))
				done <- err
			}()
			runtime.Gosched()
			s.Close()
			if err := <-done; !errors.Is(err, net.ErrClosed) {
				t.Errorf("Read during Close: %v", err)
			}
		})
	}
}

// CloseWrite ends one direction only.
func TestCloseWrite(t *testing.T) {
	c, s := connect(t, "tcp", clientConfig(), serverConfig())
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("Read: %v", err)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, errShutdown) {
		t.Errorf("Write after CloseWrite: %v", err)
	}
	if _, err := s.Write([]byte("answer")); err != nil {
		t.Error(err)
	}
	if b, _ := io.ReadAll(io.LimitReader(c, 6)); string(b) != "answer" {
		t.Errorf("read %q", b)
	}
}

// What a session exports is gone when it is closed; nothing exports the
// session's own secrets.
func TestExporterBounds(t *testing.T) {
	c, _ := connect(t, "tcp", clientConfig(), serverConfig())
	cs := c.ConnectionState()
	if _, err := cs.ExportKeyingMaterial("key expansion", nil, 128); err == nil {
		t.Error("exports the key block")
	}
	c.Close()
	if _, err := cs.ExportKeyingMaterial(exportLabel, nil, 48); err == nil {
		t.Error("exports after Close")
	}
	if _, err := new(ConnectionState).ExportKeyingMaterial(exportLabel, nil, 48); err == nil {
		t.Error("exports without a session")
	}
}

// Configurations that can't work are refused with the field's name.
func TestConfigCheck(t *testing.T) {
	for field, change := range map[string]func(*Config){
		"needs Config.Key":         func(c *Config) { c.Key = nil },
		"Config.Key is longer":     func(c *Config) { c.Key = make([]byte, maxKey+1) },
		"is empty, but not nil":    func(c *Config) { c.CipherSuites = []uint16{} },
		"Config.Identity":          func(c *Config) { c.Identity = make([]byte, maxIdentity+1) },
		"Config.ServerName":        func(c *Config) { c.ServerName = strings.Repeat("x", 256) },
		"Config.CipherSuites":      func(c *Config) { c.CipherSuites = []uint16{0x002f} },
		"Config.CurvePreferences":  func(c *Config) { c.CurvePreferences = []CurveID{24} },
		"Config.MaxFragmentLength": func(c *Config) { c.MaxFragmentLength = 1000 },
		"Config.RecordSizeLimit":   func(c *Config) { c.RecordSizeLimit = 10 },
	} {
		c := clientConfig()
		change(c)
		if _, err := Dial("tcp", "127.0.0.1:1", c); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := Listen("tcp", "127.0.0.1:0", &Config{}); err == nil || !strings.Contains(err.Error(), "Config.GetPSK") {
		t.Errorf("no GetPSK: %v", err)
	}
	hint := serverConfig()
	hint.IdentityHint = make([]byte, 1<<16) // which no message holds
	if _, err := Listen("tcp", "127.0.0.1:0", hint); err == nil || !strings.Contains(err.Error(), "Config.IdentityHint") {
		t.Errorf("a long hint: %v", err)
	}
	if _, err := Dial("unix", "x", clientConfig()); err == nil || !strings.Contains(err.Error(), "unix") {
		t.Errorf("unknown network: %v", err)
	}
}
