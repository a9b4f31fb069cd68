package interop

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pion/dtls/v3"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

// pion is the other DTLS in Go, which runs within the test. It has no encrypt-then-MAC.
func pion() *foreign {
	return &foreign{
		name: "pion", ems: optional, etm: never, talk: pingPong, untold: []string{"flags", "close"},
		suites: map[string][]string{"udp": {
			"TLS_PSK_WITH_AES_128_CBC_SHA256",
			"TLS_PSK_WITH_AES_128_CCM_8",
			"TLS_PSK_WITH_AES_128_CCM",
			"TLS_PSK_WITH_AES_128_GCM_SHA256",
			"TLS_PSK_WITH_CHACHA20_POLY1305_SHA256",
			"TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256",
			"TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256",
		}},
		client: pionClient,
		server: pionServer,
		can:    pionSuites,
	}
}

// pionID maps a suite's name to pion's type for its number, which is the registered one.
func pionID(name string) dtls.CipherSuiteID {
	for _, s := range tlspsk.CipherSuites() {
		if s.Name == name {
			return dtls.CipherSuiteID(s.ID)
		}
	}
	return 0
}

// pionOptions is what pion's client and server have in common.
func pionOptions(o peers.Options) []dtls.Option {
	var suites []dtls.CipherSuiteID
	for _, name := range o.Suites {
		suites = append(suites, pionID(name))
	}
	list := []dtls.Option{
		dtls.WithCipherSuites(suites...),
		dtls.WithPSK(func([]byte) ([]byte, error) { return o.PSK, nil }),
	}
	if o.NoEMS {
		list = append(list, dtls.WithExtendedMasterSecret(dtls.DisableExtendedMasterSecret))
	}
	if o.MTU > 0 {
		list = append(list, dtls.WithMTU(o.MTU))
	}
	return list
}

func pionDial(o peers.Options, more ...dtls.ClientOption) (*dtls.Conn, error) {
	addr, err := net.ResolveUDPAddr("udp", o.Addr)
	if err != nil {
		return nil, err
	}
	list := []dtls.ClientOption{dtls.WithPSKIdentityHint(o.Identity), dtls.WithServerName(o.ServerName)}
	for _, option := range pionOptions(o) {
		list = append(list, option)
	}
	return dtls.DialWithOptions("udp", addr, append(list, more...)...)
}

func pionListen(o peers.Options, more ...dtls.ServerOption) (net.Listener, error) {
	var list []dtls.ServerOption
	for _, option := range pionOptions(o) {
		list = append(list, option)
	}
	list = append(list, dtls.WithPSKIdentityHint([]byte(o.Hint)), dtls.WithPSK(func(identity []byte) ([]byte, error) {
		if string(identity) != string(o.Identity) {
			return nil, errors.New("unknown identity")
		}
		return o.PSK, nil
	}))
	return dtls.ListenWithOptions("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, append(list, more...)...)
}

func pionSuites(t testing.TB, network string) (names []string) {
	if network != "udp" {
		return nil
	}
	for _, name := range allSuites() {
		c, err := pionDial(peers.Options{Addr: "127.0.0.1:9", Suites: []string{name}, Identity: []byte("i"), PSK: []byte("k")})
		if err == nil { // it has not sent anything yet
			names = append(names, name)
			c.Close()
		}
	}
	return names
}

func pionClient(t testing.TB, o peers.Options) func() peers.Report {
	result := make(chan peers.Report, 1)
	go func() {
		var r peers.Report
		defer func() { result <- r }()
		c, err := pionDial(o)
		if err != nil {
			pionFailed(&r, err)
			return
		}
		defer c.Close()
		if pionSession(&r, c, o) {
			if err := pingPong.ask("udp", c); err != nil {
				pionFailed(&r, err)
				return
			}
			r.DataOK = true
		}
	}()
	return func() peers.Report { return <-result }
}

func pionServer(t testing.TB, o peers.Options) (string, func() peers.Report) {
	ln, err := pionListen(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	result := make(chan peers.Report, 1)
	go func() {
		var r peers.Report
		defer func() { result <- r }()
		c, err := ln.Accept()
		if err != nil {
			pionFailed(&r, err)
			return
		}
		defer c.Close()
		if pionSession(&r, c.(*dtls.Conn), o) {
			pionEcho(&r, c)
		}
	}()
	return ln.Addr().String(), func() peers.Report { return <-result }
}

// TestConnectionID moves a client to another address in the middle of a session, whose connection
// ID (RFC 9146) then carries it on. Of Debian's libraries none has the extension switched on.
func TestConnectionID(t *testing.T) {
	o := peers.Options{Network: "udp", Suites: []string{"TLS_PSK_WITH_AES_128_CCM_8"}, Identity: identity, PSK: key}
	withID := dtls.WithConnectionIDGenerator(dtls.RandomCIDGenerator(8))
	ours := cell{foreign: pion(), network: "udp", suite: o.Suites[0]}
	move := func(c net.Conn, relay *peers.Relay) error {
		for range 3 {
			if err := pingPong.ask("udp", c); err != nil {
				return err
			}
			relay.Rebind()
		}
		return nil
	}

	t.Run("their client", func(t *testing.T) {
		ours.weServe = true
		addr, wait := serveOne(t, "udp", ours.config(), pingPong)
		relay := peers.NewRelay(t, "udp", addr)
		o := o
		o.Addr = relay.Addr
		c, err := pionDial(o, withID)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(peers.Limit))
		if err := move(c, relay); err != nil {
			t.Error(err)
		}
		c.Close()
		if out := wait(); out.err != nil || !out.state.ConnectionID {
			t.Errorf("our server: %v, with a connection ID: %v", out.err, out.state.ConnectionID)
		}
	})
	t.Run("our client", func(t *testing.T) {
		ours.weServe = false
		ln, err := pionListen(o, withID)
		if err != nil {
			t.Fatal(err)
		}
		var r peers.Report
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := ln.Accept()
			if err != nil {
				pionFailed(&r, err)
				return
			}
			defer c.Close()
			pionEcho(&r, c)
		}()
		relay := peers.NewRelay(t, "udp", ln.Addr().String())
		out := dialOne("udp", relay.Addr, ours.config(), dialogue{ask: func(_ string, c net.Conn) error { return move(c, relay) }})
		if out.err != nil || !out.state.ConnectionID {
			t.Errorf("our client: %v, with a connection ID: %v", out.err, out.state.ConnectionID)
		}
		<-done
		ln.Close()
		if len(r.Failures) > 0 {
			t.Errorf("their server: %q", r.Lines)
		}
	})
}

// pionSession completes the handshake and notes what pion says of it.
func pionSession(r *peers.Report, c *dtls.Conn, o peers.Options) bool {
	ctx, cancel := context.WithTimeout(context.Background(), peers.Limit)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		pionFailed(r, err)
		return false
	}
	state, ok := c.ConnectionState()
	if !ok {
		pionFailed(r, errors.New("no state"))
		return false
	}
	export, err := state.ExportKeyingMaterial(label, nil, length)
	if err != nil {
		pionFailed(r, err)
		return false
	}
	s := peers.Session{Suite: tlspsk.CipherSuiteName(uint16(state.CipherSuiteID)), EMS: peers.Untold, EtM: peers.Untold,
		Identity: o.Identity, ServerName: o.ServerName, Export: export}
	if o.Addr == "" { // a server: what the client called itself
		s.Identity = state.IdentityHint
	}
	r.Sessions = append(r.Sessions, s)
	return true
}

func pionEcho(r *peers.Report, c net.Conn) {
	c.SetDeadline(time.Now().Add(peers.Limit))
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err == io.EOF {
			r.Closed = append(r.Closed, "notify")
			return
		}
		if err != nil {
			pionFailed(r, err)
			return
		}
		reply, _ := pingPong.answer("udp", buf[:n])
		if _, err := c.Write(reply); err != nil {
			pionFailed(r, err)
			return
		}
	}
}

func pionFailed(r *peers.Report, err error) {
	f := peers.Failure{Sent: -1, Received: -1, Text: err.Error()}
	if at := strings.Index(f.Text, "alert: Alert LevelFatal: "); at >= 0 {
		f.Received = 0 // pion tells its alerts by name
	}
	r.Failures = append(r.Failures, f)
	r.Lines = append(r.Lines, fmt.Sprintf("pion: %v", err))
}
