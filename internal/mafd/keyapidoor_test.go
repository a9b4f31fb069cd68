package mafd

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/internal/pki"
)

// A doorTest is a server behind a keyAPIDoor, and without a timeout of its own.
type doorTest struct {
	*keyAPIDoor
	t  *testing.T
	ca *pki.Authority
}

func newDoorTest(t *testing.T, places, perSource int) *doorTest {
	t.Helper()
	ca, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ca.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &doorTest{newKeyAPIDoor(l, places, slog.New(slog.DiscardHandler)), t, ca}
	d.perSource = perSource
	server := &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "in") }),
		ConnState: welcome,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{*cert}},
		ErrorLog:  slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.ServeTLS(d, "", "")
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
		waitFor(t, "all to have left", func() bool {
			d.mu.Lock()
			defer d.mu.Unlock()
			return len(d.sources) == 0 && d.gate.Stats().UnderWay == 0
		})
	})
	return d
}

// client returns a client that comes from an address, and keeps its connection.
func (d *doorTest) client(from string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{RootCAs: d.ca.Pool()}}
	d.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func (d *doorTest) ask(c *http.Client) error {
	response, err := c.Get("https://" + d.Addr().String())
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.ReadAll(response.Body)
	return err
}

// TestSilentAtKeyAPI: those who connect and say nothing keep nobody out.
func TestSilentAtKeyAPI(t *testing.T) {
	d := newDoorTest(t, 8, 100)
	for range 40 {
		conn, err := net.Dial("tcp", d.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	for n := range 4 {
		if err := d.ask(d.client("127.0.0.1")); err != nil {
			t.Errorf("Entity B %d: %v", n, err)
		}
	}
	if s := d.gate.Stats(); s.Shed == 0 {
		t.Errorf("nobody had to make room: %+v", s)
	}
}

// TestManyOfOneSource: one source has a part of the places.
func TestManyOfOneSource(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems have one loopback address")
	}
	d := newDoorTest(t, 8, 2)
	first, second := d.client("127.0.0.2"), d.client("127.0.0.2")
	for _, c := range []*http.Client{first, second, first} {
		if err := d.ask(c); err != nil {
			t.Error(err)
		}
	}
	if err := d.ask(d.client("127.0.0.2")); err == nil {
		t.Error("a third connection came in")
	}
	if err := d.ask(d.client("127.0.0.3")); err != nil {
		t.Errorf("from another source: %v", err)
	}
	second.CloseIdleConnections()
	waitFor(t, "a place of its own", func() bool { return d.ask(d.client("127.0.0.2")) == nil })
}

// TestLimitedLog: a flood of failures at the key API costs a bounded number of
// lines, and what succeeds is logged all the same.
func TestLimitedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		log, failures := newKeyAPILog(slog.New(slog.NewTextHandler(&out, nil)))
		log = log.With("remote", "somebody").WithGroup("g")
		const n = 1000
		for i := range n {
			log.Warn("no key", "i", i)
			log.Error("no store", "i", i)
			log.Info("released", "i", i)
		}
		log.Debug("not for now")
		if log.Enabled(context.Background(), slog.LevelDebug) {
			t.Error("levels are not minded")
		}
		failures.flush()
		text := out.String()
		if lines := strings.Count(text, "level=WARN") + strings.Count(text, "level=ERROR"); lines != failureRate.Burst+1 {
			t.Errorf("%d lines about failures, want %d and one about the others", lines, failureRate.Burst)
		}
		if lines := strings.Count(text, "msg=released"); lines != n {
			t.Errorf("%d of %d releases are logged", lines, n)
		}
		if !strings.Contains(text, fmt.Sprint("count=", 2*n-failureRate.Burst)) || !strings.Contains(text, "remote=somebody g.i=0") {
			t.Errorf("the log:\n%.2000s", text)
		}
	})
}
