package deployment

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A rival terminates TLS-PSK in front of a CSE: mafgw, which reads every request
// and vouches for its originator, or stunnel, which only decrypts.
type rival struct {
	name string
	pid  int
	addr string
	key  saef.Key
}

// startRivals starts both before the same CSE, for the same device.
func startRivals(b *testing.B) []rival {
	path, err := exec.LookPath("stunnel")
	if err != nil {
		b.Skip("stunnel is not installed: nothing to compare with")
	}
	cse := startCSE(b)
	s := newSiteBefore(b, "http://"+cse, "log.access = \"none\"\n", "conns_per_device = 2000")
	key, err := s.register(b, "meter7").Handshake(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return []rival{
		{"mafgw", s.gateway.Process.Pid, s.addresses["http"], key},
		startStunnel(b, path, cse, key),
	}
}

func startStunnel(b *testing.B, path, cse string, key saef.Key) rival {
	dir := b.TempDir()
	secrets := filepath.Join(dir, "secrets")
	line := key.KcID.String() + ":" + hex.EncodeToString(key.Kc.Bytes()) + "\n"
	if err := os.WriteFile(secrets, []byte(line), 0o600); err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	config := filepath.Join(dir, "stunnel.conf")
	text := fmt.Sprintf("foreground = yes\npid =\nsyslog = no\ndebug = 3\n[cse]\naccept = %s\nconnect = %s\nciphers = PSK\nPSKsecrets = %s\n", addr, cse, secrets)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, config)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	until(b, "stunnel listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return rival{"stunnel", cmd.Process.Pid, addr, key}
}

// startCSE starts a CSE in a process of its own, and returns where it listens.
func startCSE(b *testing.B) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), programEnv+"=cse")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// serveCSE is a CSE that takes everything and keeps nothing.
func serveCSE() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("X-M2M-RI", r.Header.Get("X-M2M-RI"))
		w.Header().Set("X-M2M-RSC", "2000")
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"m2m:cin":{"con":"21.5"}}`)
	}))
}

func (r rival) dial() (*client, error) {
	c, err := tlspsk.Dial("tcp", r.addr, &tlspsk.Config{
		Identity:     []byte(r.key.KcID.String()),
		Key:          r.key.Kc.Bytes(),
		CipherSuites: []uint16{tlspsk.TLS_PSK_WITH_AES_128_GCM_SHA256},
	})
	if err != nil {
		return nil, err
	}
	return &client{c, bufio.NewReader(c)}, nil
}

// A client is one connection of the device.
type client struct {
	*tlspsk.Conn
	r *bufio.Reader
}

// request sends one and reads the answer.
func (c *client) request(content string) error {
	c.SetDeadline(time.Now().Add(patience))
	head := "GET /in-cse/meter/la HTTP/1.1\r\nHost: g\r\nX-M2M-Origin: Smeter7\r\nX-M2M-RI: 1\r\nX-M2M-RVI: 3\r\n\r\n"
	if content != "" {
		head = fmt.Sprintf("POST /in-cse/meter HTTP/1.1\r\nHost: g\r\nX-M2M-Origin: Smeter7\r\nX-M2M-RI: 1\r\nX-M2M-RVI: 3\r\n"+
			"Content-Type: application/json;ty=4\r\nContent-Length: %d\r\n\r\n", len(content))
	}
	if _, err := io.WriteString(c, head+content); err != nil {
		return err
	}
	r, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("answered %s", r.Status)
	}
	return nil
}

// spread does b.N things, some at once, and reports how many a second there were
// and the processor time of the rival for each.
func (r rival) spread(b *testing.B, parallel int, worker func(next func() bool) error) {
	var todo atomic.Int64
	todo.Store(int64(b.N))
	begin, before := time.Now(), cpu(b, r.pid)
	var all sync.WaitGroup
	for range parallel {
		all.Go(func() {
			if err := worker(func() bool { return todo.Add(-1) >= 0 }); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "per-s")
	b.ReportMetric((cpu(b, r.pid)-before)/float64(b.N), "cpu-us/each")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSideBySide compares mafgw with stunnel.
func BenchmarkSideBySide(b *testing.B) {
	const parallel = 16
	rivals := startRivals(b)
	kept := func(r rival, content string) func(next func() bool) error {
		return func(next func() bool) error {
			c, err := r.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			for next() {
				if err := c.request(content); err != nil {
					return err
				}
			}
			return nil
		}
	}
	large := `{"m2m:cin":{"con":"` + strings.Repeat("0123456789abcdef", 1<<16-2) + `"}}`
	for _, r := range rivals {
		b.Run("connections/"+r.name, func(b *testing.B) {
			r.spread(b, parallel, func(next func() bool) error {
				for next() {
					c, err := r.dial()
					if err != nil {
						return err
					}
					err = c.request("")
					c.Close()
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	for _, r := range rivals {
		b.Run("requests/"+r.name, func(b *testing.B) { r.spread(b, parallel, kept(r, "")) })
	}
	for _, r := range rivals {
		b.Run("creates/"+r.name, func(b *testing.B) {
			r.spread(b, parallel, kept(r, `{"m2m:cin":{"cnf":"text/plain:0","con":"21.5"}}`))
		})
	}
	for _, r := range rivals {
		b.Run("1MiB/"+r.name, func(b *testing.B) { r.spread(b, 4, kept(r, large)) })
	}
	for _, r := range rivals {
		b.Run("idle/"+r.name, func(b *testing.B) { r.idle(b) })
	}
}

// idle reports the memory of idle connections that have done one request.
func (r rival) idle(b *testing.B) {
	const conns = 1000
	for b.Loop() {
		before := resident(b, r.pid)
		var open []*client
		for range conns {
			c, err := r.dial()
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			open = append(open, c)
			if err := c.request(""); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(3 * time.Second) // what can be given back is
		b.ReportMetric(float64(resident(b, r.pid)-before)/conns, "KiB/conn")
		for _, c := range open {
			c.Close()
		}
	}
	b.ReportMetric(0, "ns/op")
}

// cpu returns the processor time that a process has used, in microseconds.
func cpu(b *testing.B, pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Skip("no /proc here: processor time can't be read")
	}
	// Behind the name, which may hold anything but ends with the last ")",
	// utime and stime are the fields 14 and 15 of proc(5), in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) * 10_000
}

// resident returns a process's memory in KiB.
func resident(b testing.TB, pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("no /proc here: memory can't be read")
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				b.Fatal(err)
			}
			return n
		}
	}
	b.Fatal("no VmRSS")
	return 0
}
