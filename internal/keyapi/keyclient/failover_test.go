package keyclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// bad is an address of a MAF that gives no answers.
func bad(t *testing.T, how string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	switch how {
	case "closed":
		l.Close()
	case "silent": // connects, and says nothing: its queue of connections is all there is
		t.Cleanup(func() { l.Close() })
	case "no TLS":
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				c.Close()
			}
		}()
		t.Cleanup(func() { l.Close() })
	default:
		t.Fatal(how)
	}
	return addr
}

// One of two addresses is out of order, in every way: the other one answers, and
// is asked first from then on.
func TestFailover(t *testing.T) {
	for _, how := range []string{"closed", "silent", "no TLS"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			m := serve(t, nil)
			dead := bad(t, how)
			log := new(strings.Builder)
			c := m.client(t, func(c *Config) {
				c.MAFs[maf] = "https://" + dead + "  https://" + m.addr
				c.Timeout = time.Minute
				if how == "silent" {
					c.Timeout = 8 * time.Second // half of it for each
				}
				c.Log = slog.New(slog.NewTextHandler(log, nil))
			})
			for range 3 {
				if _, err := c.Get(t.Context(), kcID); err != nil {
					t.Fatal(err)
				}
				// "No such key" is an answer too.
				if _, err := c.Get(t.Context(), onem2m.KcID{FQDN: maf}); !errors.Is(err, ErrNotFound) {
					t.Fatal(err)
				}
			}
			if strings.Count(log.String(), "another address") != 1 || c.Address(maf) != "https://"+m.addr {
				t.Errorf("in use is %s; %s", c.Address(maf), log)
			}
		})
	}
}

// Answers that are none make a client ask elsewhere as well.
func TestFailoverOnNonsense(t *testing.T) {
	var nonsense atomic.Int64
	first := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		nonsense.Add(1)
		http.Error(w, "<h1>It works!</h1>", http.StatusNotFound)
	}))
	second := serveAs(t, nil, first.ca)
	c := first.client(t, func(c *Config) { c.MAFs[maf] = "https://" + first.addr + " https://" + second.addr })
	for range 3 {
		if _, err := c.Get(t.Context(), kcID); err != nil {
			t.Fatal(err)
		}
	}
	if n := nonsense.Load(); n != 1 {
		t.Errorf("the one that talks nonsense was asked %d times", n)
	}
}

// None answers: the error tells of all.
func TestAllAddressesFail(t *testing.T) {
	m := serve(t, nil)
	one, two := bad(t, "closed"), bad(t, "no TLS")
	c := m.client(t, func(c *Config) { c.MAFs[maf] = "https://" + one + " https://" + two })
	_, err := c.Get(t.Context(), kcID)
	if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), one) || !strings.Contains(err.Error(), two) {
		t.Errorf("%v", err)
	}
}

func TestAddressOrder(t *testing.T) {
	a := &addresses{hosts: []string{"a", "b", "c"}}
	now := time.Now()
	want := func(want ...int) {
		t.Helper()
		if got := a.order(now); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("order %v, want %v", got, want)
		}
	}
	want(0, 1, 2)
	a.answered(2, now)
	want(2, 0, 1)
	now = now.Add(goBack - 1)
	want(2, 0, 1)
	now = now.Add(1)
	want(0, 2, 1) // one request tries
	want(2, 0, 1) // and the others don't
	a.answered(2, now)
	now = now.Add(goBack)
	want(0, 2, 1)
	a.answered(0, now)
	want(0, 1, 2)
}

// The client's certificate and the MAF's authority are replaced, both at once, and
// requests go on.
func TestSetCertificates(t *testing.T) {
	m := serve(t, nil)
	other := serve(t, nil)
	c := m.client(t, func(c *Config) { c.Certificate = other.certificate(t, inCSE) })
	if _, err := c.Get(t.Context(), kcID); !errors.Is(err, ErrUnavailable) {
		t.Fatalf("with an untrusted certificate: %v", err)
	}
	if err := c.SetCertificates(m.certificate(t, inCSE), m.ca.Pool()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), kcID); err != nil {
		t.Error(err)
	}
	// The connection that is open was made on the old terms, and is not used again.
	if err := c.SetCertificates(m.certificate(t, inCSE), other.ca.Pool()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), kcID); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the MAF is not trusted any more: %v", err)
	}
	if err := c.SetCertificates(tls.Certificate{}, nil); err == nil {
		t.Error("no certificate was accepted")
	}
	if err := c.SetCertificates(m.certificate(t, inCSE), m.ca.Pool()); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			for range 10 {
				if _, err := c.Get(context.Background(), kcID); err != nil {
					t.Error(err)
				}
			}
		})
		if err := c.SetCertificates(m.certificate(t, inCSE), m.ca.Pool()); err != nil {
			t.Error(err)
		}
	}
	all.Wait()
}

// serveFeed runs a key API whose feed gives these answers, one after the other.
func serveFeed(t *testing.T, answers []string) (*testMAF, *atomic.Pointer[string]) {
	var n atomic.Int64
	var asked atomic.Pointer[string]
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uri := r.URL.RequestURI()
		asked.Store(&uri)
		status, body, _ := strings.Cut(answers[int(n.Add(1)-1)%len(answers)], " ")
		w.Header().Set("Content-Type", keyapi.ContentType)
		if status == "html" {
			w.Header().Set("Content-Type", "text/html")
			status = "200"
		}
		var code int
		fmt.Sscan(status, &code)
		w.WriteHeader(code)
		io.WriteString(w, body)
	})), &asked
}

func TestFeed(t *testing.T) {
	meter := onem2m.KmID{Relative: "meter7", FQDN: maf}
	m, asked := serveFeed(t, []string{
		`200 {"next":7,"revocations":[]}`,
		`200 {"next":9,"revocations":[{"KmID":"meter7@maf.example.com"},{"KmID":"meter7@other.example"}]}`,
		`503 {"error":"the disk is on fire"}`,
		`503 {"error":"the disk is on fire"}`,
		`200 {"next":99,"revocations":[]}`, // it is back, and that is all we wanted to know
		`200 {"next":9,"revocations":[]}`,
		`410 {"error":"too old"}`, `200 {"next":3,"revocations":[]}`,
		`410 {"error":"too old"}`, `410 {"error":"too old"}`,
		`200 {"next":98,"revocations":[]}`,
		`410 {"error":"too old"}`, `200 {"next":4,"revocations":[]}`,
		`200 {"next":4,"revocations":[{"KmID":"meter7@maf.example.com"}]}`, // the same for ever
		`200 {"next":98,"revocations":[]}`,
		`html <h1>`,
		`404 {"error":"no such key"}`,
	})
	f := m.client(t, nil).Feed(maf)
	for i, want := range []struct {
		asked     string
		startOver bool
		list      int
		err       error
	}{
		{"/v1/revocations", true, 0, nil},
		{"/v1/revocations?after=7", false, 1, nil}, // one MAF must not end what is another's
		{"/v1/revocations?after=9", false, 0, ErrUnavailable},
		{"/v1/revocations", false, 0, ErrUnavailable},
		{"/v1/revocations", false, 0, nil},
		{"/v1/revocations?after=9", false, 0, nil},
		{"/v1/revocations", true, 0, nil},
		{"/v1/revocations", false, 0, ErrUnavailable},
		{"/v1/revocations", false, 0, nil},
		{"/v1/revocations", true, 0, nil},
		{"/v1/revocations?after=4", false, 0, ErrUnavailable},
		{"/v1/revocations", false, 0, nil},
		{"/v1/revocations?after=4", false, 0, ErrUnavailable},
		{"/v1/revocations", false, 0, ErrNoFeed},
	} {
		list, startOver, err := f.Next(t.Context())
		if got := *asked.Load(); got != want.asked || startOver != want.startOver || len(list) != want.list || !errors.Is(err, want.err) || (err == nil) != (want.err == nil) {
			t.Errorf("%d: asked %s, %v, %v, %v", i, got, list, startOver, err)
		}
		if len(list) > 0 && list[0] != (keyapi.Revocation{KmID: meter}) {
			t.Errorf("%d: %v", i, list)
		}
	}
	f.Reset()
	if _, startOver, err := f.Next(t.Context()); err != nil || !startOver {
		t.Errorf("after Reset: %v, %v", startOver, err)
	}
	if _, _, err := m.client(t, nil).Feed("other.example").Next(t.Context()); !errors.Is(err, ErrUnknownMAF) {
		t.Error(err)
	}
}
