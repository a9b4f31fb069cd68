//go:build unix

package httpgw

import (
	"cmp"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/tlspsk"
)

// quickCSE answers every request at once with the same content, at as little
// cost as may be.
func quickCSE(b testing.TB, content string) (url string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	answer := []byte("HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(content)) + "\r\n\r\n" + content)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				var m http1.Message
				var body []byte
				r := http1.NewReader(c)
				for {
					if r.ReadRequest(&m) != nil {
						return
					}
					if body, err = r.ReadBody(&m, body[:0], 100<<20); err != nil {
						return
					}
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			})
		}
	})
	b.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}

// exchange asks as often as b wants on one connection. What the device and the
// CSE cost is part of the figure, for all that is measured here.
func (c *client) benchmark(b *testing.B, text string) {
	out := []byte(text)
	var m http1.Message
	var body []byte
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		if _, err := c.conn.Write(out); err != nil {
			b.Fatal(err)
		}
		if err := c.reader.ReadResponse(&m); err != nil {
			b.Fatal(err)
		}
		var err error
		if body, err = c.reader.ReadBody(&m, body[:0], 100<<20); err != nil || m.Status != 200 {
			b.Fatal(m.Status, err)
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/1e3/float64(b.N), "cpu-us/op")
}

// cpu is what the process has used, in nanoseconds: the time of day tells little
// on a machine that others use as well.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func contents() map[string]string {
	return map[string]string{
		"small": `{"m2m:cin":{"con":"21.5","lbl":["unit:C"]}}`,
		"1MiB":  `{"m2m:cin":{"con":"` + strings.Repeat("a", 1<<20-100) + `"}}`,
	}
}

// BenchmarkGateway and BenchmarkReverseProxy differ in what stands between the
// association and the CSE.
func BenchmarkGateway(b *testing.B) {
	for size, content := range contents() {
		b.Run("post-"+size, func(b *testing.B) {
			g := newRig(b, quickCSE(b, "{}"), nil)
			g.meter().benchmark(b, benchRequest(content))
			b.StopTimer()
			g.backend.Close()
		})
		b.Run("get-"+size, func(b *testing.B) {
			g := newRig(b, quickCSE(b, content), nil)
			g.meter().benchmark(b, request(get, originator(1), ""))
			b.StopTimer()
			g.backend.Close()
		})
	}
}

func BenchmarkReverseProxy(b *testing.B) {
	for size, content := range contents() {
		b.Run("post-"+size, func(b *testing.B) {
			proxied(b, quickCSE(b, "{}")).benchmark(b, benchRequest(content))
		})
		b.Run("get-"+size, func(b *testing.B) {
			proxied(b, quickCSE(b, content)).benchmark(b, request(get, originator(1), ""))
		})
	}
}

func benchRequest(content string) string {
	return request("POST /in-cse/Cmeter7/values", originator(1)+"\nX-M2M-RVI: 3\nContent-Type: application/json;ty=4", content)
}

// proxied is the meter before net/http and its reverse proxy.
func proxied(b *testing.B, cse string) *client {
	g := newRig(b, cse, nil)
	target, err := url.Parse(cse)
	if err != nil {
		b.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	transport := &http.Transport{DisableCompression: true}
	proxy.Transport = transport
	server := &http.Server{Handler: proxy}
	l := g.site.Listen("tcp")
	go server.Serve(l)
	b.Cleanup(func() { server.Close(); transport.CloseIdleConnections() })
	g.listener = l
	return g.meter()
}

// An idle association costs some 16 KB, a third of which is the cipher's and
// the socket's. MAF_IDLE_ASSOCIATIONS says how many to measure with.
func TestIdleMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("not in short mode: the race detector's memory would be measured")
	}
	n, _ := strconv.Atoi(os.Getenv("MAF_IDLE_ASSOCIATIONS"))
	n = cmp.Or(n, 500)
	g := newRig(t, quickCSE(t, "{}"), func(c *Config, _ *BackendConfig) { c.Limits.ConnsPerPeer = n + 1 })
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	used := func() (uint64, uint64) {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse, m.StackInuse
	}
	device := g.dial(meter)
	device.ask(request(get, originator(1), ""))
	before, stacks := used()
	key, err := meter.Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	config := &tlspsk.Config{Identity: []byte(key.KcID.String()), Key: key.Kc.Bytes(), ServerName: key.KcID.FQDN.String()}
	sockets := make([]net.Conn, 0, n)
	for range n {
		sockets = append(sockets, g.idle(config))
	}
	after, stacksAfter := used()
	t.Logf("%d idle associations: %d octets each, %d of them stacks", g.server.Conns(), (after-before)/uint64(n), (stacksAfter-stacks)/uint64(n))
	if each := (after - before) / uint64(n); after < before || each > 32<<10 {
		t.Errorf("%d octets each", each)
	}
	for _, c := range sockets {
		c.Close()
	}
}

// idle opens an association that has had a request. Of the device's end it
// leaves the socket only, so that nothing else of it is in what this process
// uses.
func (g *rig) idle(config *tlspsk.Config) net.Conn {
	socket, err := net.Dial("tcp", g.listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	conn := tlspsk.Client(socket, config)
	c := &client{t: g.t, conn: conn, reader: http1.NewReader(conn)}
	c.ask(request(get, originator(1), ""))
	return socket
}
