package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/saef"
)

// lockedBuffer is a buffer that a program writes to while a test reads.
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

// waitFor waits until the condition holds, for a long time if need be.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// startProxy runs "maf proxy" for a device and returns where it listens, and its
// log.
func startProxy(t *testing.T, d *saef.Device, entityB string, flags ...string) (addr string, log *lockedBuffer) {
	t.Helper()
	km := filepath.Join(t.TempDir(), "km")
	if err := os.WriteFile(km, []byte(hex.EncodeToString(d.Km.Bytes())), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"proxy", entityB, "--as", d.KmID.String(), "--maf", d.MAF, "--km-file", km, "--json"}, flags...)
	ctx, cancel := context.WithCancel(context.Background())
	stdout, out := io.Pipe()
	log = new(lockedBuffer)
	ended := make(chan int, 1)
	go func() {
		ended <- Main(ctx, args, strings.NewReader(""), out, log)
		out.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-ended; code != exitOK {
			t.Errorf("exit code %d: %s", code, log)
		}
	})
	var result struct{ Listening string }
	if err := json.NewDecoder(stdout).Decode(&result); err != nil {
		t.Fatalf("%v: %s", err, log)
	}
	return result.Listening, log
}

func accept(t *testing.T, l *saef.Listener) *saef.Conn {
	t.Helper()
	c, err := l.AcceptAssociation()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

func dialProxy(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// Each side may say that it has ended and still listen, and what it said before
// comes through whole.
func TestProxyStream(t *testing.T) {
	site := gwtest.New(t)
	l := site.Listen("tcp")
	addr, _ := startProxy(t, site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), l.Addr().String())
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for name, c := range map[string]struct {
		first, second func(local, entityB halfCloser)
	}{
		"the device ends first": {
			func(local, entityB halfCloser) { exchange(t, local, entityB, large) },
			func(local, entityB halfCloser) { exchange(t, entityB, local, large) },
		},
		"Entity B ends first": {
			func(local, entityB halfCloser) { exchange(t, entityB, local, large) },
			func(local, entityB halfCloser) { exchange(t, local, entityB, large) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			local := dialProxy(t, "tcp", addr).(*net.TCPConn)
			entityB := accept(t, l)
			if peer := entityB.Association().Peer(); peer != "//sp.example.com/in-cse/Cmeter7" {
				t.Errorf("Entity B sees %s", peer)
			}
			c.first(local, entityB)
			c.second(local, entityB)
		})
	}
}

type halfCloser interface {
	io.ReadWriter
	CloseWrite() error
}

// exchange writes all from one to the other, and ends that direction.
func exchange(t *testing.T, from, to halfCloser, content []byte) {
	t.Helper()
	var wrote sync.WaitGroup
	wrote.Go(func() {
		_, err := from.Write(content)
		if err := errors.Join(err, from.CloseWrite()); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(to)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d octets of %d, %v", len(got), len(content), err)
	}
	wrote.Wait()
}

// What was cut off must not look like something that has ended.
func TestProxyCut(t *testing.T) {
	site := gwtest.New(t)
	l := site.Listen("tcp")
	relay := newCutter(t, l.Addr().String())
	addr, log := startProxy(t, site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), relay.addr)
	local := dialProxy(t, "tcp", addr)
	entityB := accept(t, l)
	io.WriteString(entityB, "half an ans\n")
	r := bufio.NewReader(local)
	if line, err := r.ReadString('\n'); line != "half an ans\n" {
		t.Fatalf("%q, %v", line, err)
	}
	relay.cut()
	if n, err := r.Read(make([]byte, 10)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("after the cut: %d, %v", n, err)
	}
	waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), `"msg":"connection cut"`) })
}

// cutter carries one TCP connection until it is cut.
type cutter struct {
	addr string
	both chan [2]net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &cutter{l.Addr().String(), make(chan [2]net.Conn, 1)}
	go func() {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		c.both <- [2]net.Conn{in, out}
		go io.Copy(in, out)
		io.Copy(out, in)
	}()
	return c
}

func (c *cutter) cut() {
	for _, conn := range <-c.both {
		conn.Close()
	}
}

// Each local peer has an association of its own, and gets its own answers.
func TestProxyDatagrams(t *testing.T) {
	site := gwtest.New(t)
	l := site.Listen("udp")
	addr, log := startProxy(t, site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), l.Addr().String(), "--dtls")
	var peers []net.Conn
	for _, name := range []string{"one", "two"} {
		peer := dialProxy(t, "udp", addr)
		peers = append(peers, peer)
		io.WriteString(peer, name)
		entityB := accept(t, l)
		go func() {
			buf := make([]byte, 100)
			for {
				n, err := entityB.Read(buf)
				if err != nil {
					return
				}
				entityB.Write([]byte(name + " said " + string(buf[:n])))
			}
		}()
		wantDatagram(t, peer, name+" said "+name)
	}
	for i, peer := range peers {
		peer.Write(make([]byte, 40_000)) // too large for a record: dropped, and nothing else happens
		io.WriteString(peer, "again")
		wantDatagram(t, peer, []string{"one", "two"}[i]+" said again")
	}
	if !strings.Contains(log.String(), "too large") {
		t.Errorf("the log says %s", log)
	}
}

func wantDatagram(t *testing.T, c net.Conn, want string) {
	t.Helper()
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != want {
		t.Fatalf("%q, %v, want %q", buf[:n], err, want)
	}
}

// A local peer that is silent loses its association, and gets another when it
// comes again.
func TestProxyIdle(t *testing.T) {
	site := gwtest.New(t)
	l := site.Listen("udp")
	addr, _ := startProxy(t, site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), l.Addr().String(), "--dtls", "--idle", "50ms")
	peer := dialProxy(t, "udp", addr)
	for range 2 {
		// What comes in the moment of the end is lost, as datagrams may be.
		accepted := make(chan struct{})
		var sending sync.WaitGroup
		sending.Go(func() {
			for {
				io.WriteString(peer, "hello")
				select {
				case <-accepted:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
		entityB := accept(t, l)
		close(accepted)
		sending.Wait()
		got, err := io.ReadAll(entityB)
		if err != nil || !strings.HasPrefix(string(got), "hello") {
			t.Fatalf("%q, %v", got, err)
		}
	}
}

// The log says who refused, and what to do.
func TestProxyRefused(t *testing.T) {
	site := gwtest.New(t)
	l := site.Listen("tcp")
	known := site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	wrongKey := &saef.Device{MAF: known.MAF, KmID: known.KmID, Km: saef.NewSecret(make([]byte, 16))}
	for name, c := range map[string]struct {
		device  *saef.Device
		entityB string
		want    []string
	}{
		"by the MAF":      {wrongKey, l.Addr().String(), []string{`"with":"the MAF"`, `MAF Handshake with`, `"try":"another name or key`}},
		"nobody there":    {known, "127.0.0.1:1", []string{`"with":"Entity B"`, `"try":"check the address`}},
		"no MAF is there": {&saef.Device{MAF: "127.0.0.1:1", KmID: known.KmID, Km: known.Km}, l.Addr().String(), []string{`"with":"the MAF"`, `"try":"check the address`}},
	} {
		t.Run(name, func(t *testing.T) {
			addr, log := startProxy(t, c.device, c.entityB)
			// The reset may come before the program knows that it is connected.
			if local, err := net.Dial("tcp", addr); err == nil {
				defer local.Close()
				if _, err := local.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
					t.Errorf("the program gets %v", err)
				}
			}
			waitFor(t, "a line in the log", func() bool { return strings.Contains(log.String(), "no association") })
			for _, want := range c.want {
				if !strings.Contains(log.String(), want) {
					t.Errorf("%s is not in %s", want, log)
				}
			}
		})
	}
}

func TestLocalAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1", "localhost:1": "127.0.0.1:1", "[::1]:1": "[::1]:1", "127.9.9.9:0": "127.9.9.9:0",
		":1": "", "0.0.0.0:1": "", "[::]:1": "", "192.0.2.1:1": "", "example.com:1": "", "127.0.0.1": "", "[::ffff:192.0.2.1]:1": "",
	} {
		got, err := localAddress(text, false)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
	if got, err := localAddress("0.0.0.0:1", true); got != "0.0.0.0:1" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
