package httpgw

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A rig is a gateway before a CSE.
type rig struct {
	t        testing.TB
	site     *gwtest.Site
	server   *Server
	backend  *Backend
	listener *saef.Listener
	log      accessLog
}

// accessLog keeps what was recorded.
type accessLog struct {
	mu      sync.Mutex
	entries []access.Entry // guarded by mu
}

func (l *accessLog) Record(e access.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
}

func (l *accessLog) all() []access.Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.entries
}

// newRig starts a gateway before the CSE at a URL. change, when not nil, may
// change the configuration.
func newRig(t testing.TB, cse string, change func(*Config, *BackendConfig)) *rig {
	t.Helper()
	g := &rig{t: t, site: gwtest.New(t)}
	rules, err := policy.New(policy.Config{CSE: gwtest.CSE, Allowed: []policy.Allowance{{KmID: "lamp@*", AEIDs: []string{"C*"}}}})
	if err != nil {
		t.Fatal(err)
	}
	config := Config{Rules: rules, Recorder: &g.log}
	backend := BackendConfig{URL: cse}
	if change != nil {
		change(&config, &backend)
	}
	if g.backend, err = NewBackend(backend); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.backend.Close)
	config.Backend = g.backend
	if g.server, err = New(config); err != nil {
		t.Fatal(err)
	}
	l := g.site.Listen("tcp")
	g.listener = l
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := g.server.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := g.server.Shutdown(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return g
}

// meter is an AE with a known AE-ID.
func (g *rig) meter() *client { return g.dial(g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")) }

// A client is a device that speaks HTTP through an association.
type client struct {
	t      testing.TB
	conn   *tlspsk.Conn
	reader *http1.Reader
}

func (g *rig) dial(d *saef.Device) *client {
	g.t.Helper()
	conn, err := d.Dial(g.t.Context(), "tcp", g.listener.Addr().String())
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { conn.Close() })
	return &client{t: g.t, conn: conn, reader: http1.NewReader(conn)}
}

// A reply is what a device got.
type reply struct {
	status  int
	headers map[string]string
	content string
}

func (r reply) String() string { return fmt.Sprintf("%d %v %s", r.status, r.headers, r.content) }

func (r reply) rsc() int { n, _ := strconv.Atoi(r.headers["X-M2M-RSC"]); return n }

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) receive() (reply, error) {
	c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	var m http1.Message
	if err := c.reader.ReadResponse(&m); err != nil {
		return reply{}, err
	}
	body, err := c.reader.ReadBody(&m, nil, 100<<20)
	r := reply{m.Status, make(map[string]string), string(body)}
	for _, f := range m.Fields {
		r.headers[f.Name] = f.Value
	}
	return r, err
}

// ask sends a request as it stands, and returns the answer.
func (c *client) ask(text string) reply {
	c.t.Helper()
	c.send(text)
	r, err := c.receive()
	if err != nil {
		c.t.Fatalf("%q: %v", text, err)
	}
	return r
}

// request makes the text of a request: method and target, headers, content.
func request(line, headers, content string) string {
	text := line + " HTTP/1.1\r\nHost: gateway\r\n"
	if headers != "" {
		text += strings.ReplaceAll(strings.TrimSpace(headers), "\n", "\r\n") + "\r\n"
	}
	if content != "" {
		text += "Content-Length: " + strconv.Itoa(len(content)) + "\r\n"
	}
	return text + "\r\n" + content
}

func only(t *testing.T, b *backendtest.Backend) backendtest.Request {
	t.Helper()
	seen := b.Requests()
	if len(seen) != 1 {
		t.Fatalf("the CSE got %d requests: %+v", len(seen), seen)
	}
	return seen[0]
}
