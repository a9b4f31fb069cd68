package saef

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// TestFlow is clause 8.2.2.3 over each pair of transports.
func TestFlow(t *testing.T) {
	for _, mafNetwork := range []string{"tcp", "udp"} {
		for _, network := range []string{"tcp", "udp"} {
			t.Run(mafNetwork+" then "+network, func(t *testing.T) {
				m := newMAF(t)
				b, _ := m.entityB(t, inCSE)
				addr, associations := listen(t, b, network)
				d := m.device()
				if d.MAFNetwork = mafNetwork; mafNetwork == "udp" {
					d.MAF = m.udp
				}
				var first Association
				for i := range 3 {
					before := time.Now()
					dial(t, d, network, addr)
					a := <-associations
					if a.AEID != aeID || a.Peer() != "//sp.example.com/in-cse/Cmeter7" || a.KmID != meter || a.CredentialID().String() != "11-meter7@maf.example.com" {
						t.Errorf("%+v", a)
					}
					if i == 0 {
						first = a
						if left := a.Expires.Sub(before); left < time.Hour || left > time.Hour+time.Minute {
							t.Errorf("Kc has %v left", left)
						}
					} else if a != first {
						t.Errorf("another association: %+v, %+v", a, first)
					}
				}
				if h, a := m.handshakes.Load(), m.asked.Load(); h != 1 || a != 1 {
					t.Errorf("%d MAF Handshakes and %d questions for three associations", h, a)
				}
			})
		}
	}
}

// TestPeer: whom Entity B takes the device for (8.2.2.3, last step but one).
func TestPeer(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	addr, associations := listen(t, b, "tcp")
	for _, c := range []struct {
		aeID  onem2m.AEID
		cseID onem2m.CSEID
		want  string
	}{
		{aeID: aeID, want: "//sp.example.com/in-cse/Cmeter7"},
		{cseID: onem2m.CSEID{SP: "sp.example.com", ID: "mn-cse"}, want: "//sp.example.com/mn-cse"},
		{want: "11-meter7@maf.example.com"},
	} {
		m.edit(func(client *fakeClient) { client.aeID, client.cseID = c.aeID, c.cseID })
		dial(t, m.device(), "tcp", addr)
		if a := <-associations; a.Peer() != c.want || a.AEID != c.aeID || a.CSEID != c.cseID {
			t.Errorf("%+v is %s, not %s", a, a.Peer(), c.want)
		}
	}
}

// expireKeys ends the life of all keys that b holds, and has the MAF forget
// them, as it does at the same time.
func expireKeys(m *fakeMAF, b *EntityB) {
	m.lose()
	b.keys.mu.Lock()
	defer b.keys.mu.Unlock()
	for id, e := range b.keys.keys {
		gone := *e
		gone.association.Expires = time.Now().Add(-time.Second)
		b.keys.keys[id] = &gone
	}
}

// TestRenewal: a refused key leads to a MAF Handshake and a second try, once.
func TestRenewal(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			m := newMAF(t)
			b, refusals := m.entityB(t, inCSE)
			addr, associations := listen(t, b, network)
			d := m.device()
			d.Config = impatient()
			dial(t, d, network, addr)
			old := <-associations

			expireKeys(m, b)
			dial(t, d, network, addr)
			if a := <-associations; a.KcID == old.KcID {
				t.Errorf("the expired %s was accepted", a.KcID)
			}
			r := <-refusals
			if !errors.Is(r.Err, tlspsk.ErrUnknownIdentity) || !strings.Contains(r.Err.Error(), "expired") || r.Identity != old.KcID.String() {
				t.Errorf("refused for %+v", r)
			}
			if n := m.handshakes.Load(); n != 2 {
				t.Errorf("%d MAF Handshakes", n)
			}

			// What Entity B has never seen, as after its restart, it asks for.
			again, _ := m.entityB(t, inCSE)
			addr, associations = listen(t, again, network)
			dial(t, d, network, addr)
			<-associations
			if n := m.handshakes.Load(); n != 2 {
				t.Errorf("%d MAF Handshakes for a key that is good", n)
			}
		})
	}
}

// impatient returns a Config for refusals over DTLS: servers there overlook a
// first record that doesn't verify, since anybody can send one.
func impatient() *tlspsk.Config { return &tlspsk.Config{RetransmitTimeout: 20 * time.Millisecond} }

// alertOf returns the alert in an error, which the peer must have sent.
func alertOf(t *testing.T, err error) tlspsk.Alert {
	t.Helper()
	var alert *tlspsk.AlertError
	if !errors.As(err, &alert) || !alert.Remote {
		t.Errorf("%v is no alert of the peer's", err)
		return 0
	}
	return alert.Alert
}

// TestOneHandshakePerDial: a fresh key that is refused is not renewed again.
func TestOneHandshakePerDial(t *testing.T) {
	m := newMAF(t)
	m.edit(func(c *fakeClient) { c.idB = onem2m.CSEID{SP: "sp.example.com", ID: "other-cse"} })
	b, refusals := m.entityB(t, inCSE)
	addr, _ := listen(t, b, "tcp")
	d := m.device()
	for dials := range int64(2) {
		_, err := d.Dial(t.Context(), "tcp", addr)
		if got := alertOf(t, err); got != tlspsk.AlertBadRecordMAC {
			t.Errorf("another Entity B's key is refused with %v", got)
		}
		// The second Dial has a key from the first.
		if n := m.handshakes.Load(); n != dials+1 {
			t.Errorf("%d MAF Handshakes after %d Dials", n, dials+1)
		}
	}
	if r := <-refusals; !errors.Is(r.Err, keyclient.ErrNotFound) {
		t.Errorf("refused for %+v", r)
	}
}

// TestMAFRefuses: whatever the MAF refuses ends Dial.
func TestMAFRefuses(t *testing.T) {
	m := newMAF(t)
	for name, edit := range map[string]func(*Device){
		"unknown KmId": func(d *Device) { d.KmID.Relative = "meter8" },
		"wrong Km":     func(d *Device) { d.Km = NewSecret(make([]byte, 32)) },
		"another MAF":  func(d *Device) { d.KmID.FQDN = "other.example" },
	} {
		for _, network := range []string{"tcp", "udp"} {
			d := m.device()
			if d.MAFNetwork = network; network == "udp" {
				d.MAF = m.udp
			}
			d.Config = impatient()
			edit(d)
			_, err := d.Dial(t.Context(), "tcp", "127.0.0.1:1")
			if got := alertOf(t, err); got != tlspsk.AlertBadRecordMAC {
				t.Errorf("%s over %s: %v", name, network, err)
			}
			if !strings.Contains(err.Error(), "MAF Handshake with "+d.MAF) {
				t.Errorf("%s: the error does not say where: %v", name, err)
			}
		}
	}
	for name, d := range map[string]*Device{
		"no KmID": {MAF: m.tcp, Km: km},
		"no Km":   {MAF: m.tcp, KmID: meter},
	} {
		if _, err := d.Dial(t.Context(), "tcp", "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "no Km") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRefusals: what Entity B is told and what the peer is told.
func TestRefusals(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	key, err := m.device().Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := key.KcID
	other.Relative[0] ^= 1
	for _, network := range []string{"tcp", "udp"} {
		addr, _ := listen(t, b, network)
		for name, c := range map[string]struct {
			identity, kc string
			reason       error  // nil for a wrong key
			text         string // in the reason
		}{
			"wrong Kc":         {key.KcID.String(), strings.Repeat("x", 32), nil, ""},
			"unknown KcId":     {other.String(), string(key.Kc.Bytes()), keyclient.ErrNotFound, ""},
			"KmId":             {meter.String(), string(km.Bytes()), tlspsk.ErrUnknownIdentity, "not a valid KcId"},
			"foreign MAF":      {strings.Replace(key.KcID.String(), "maf.", "foreign.", 1), "x", keyclient.ErrUnknownMAF, "foreign.example.com"},
			"NUL":              {key.KcID.String() + "\x00x", string(key.Kc.Bytes()), tlspsk.ErrUnknownIdentity, "not a valid KcId"},
			"no MAF":           {key.KcID.Relative.String(), string(key.Kc.Bytes()), tlspsk.ErrUnknownIdentity, "no @"},
			"nothing":          {"", "x", tlspsk.ErrUnknownIdentity, "not a valid KcId"},
			"of 1024 octets":   {strings.Repeat("\xff", 1024), "x", tlspsk.ErrUnknownIdentity, "not a valid KcId"},
			"a space in front": {" " + key.KcID.String(), string(key.Kc.Bytes()), tlspsk.ErrUnknownIdentity, "not a valid KcId"},
		} {
			config := impatient()
			config.Identity, config.Key = []byte(c.identity), []byte(c.kc)
			_, err := tlspsk.Dial(network, addr, config)
			if got := alertOf(t, err); got != tlspsk.AlertBadRecordMAC {
				t.Errorf("%s over %s: the peer gets %v", name, network, err)
			}
			r := <-refusals
			if r.Identity != c.identity || r.RemoteAddr == nil || !strings.Contains(r.Err.Error(), c.text) ||
				errors.Is(r.Err, tlspsk.ErrUnknownIdentity) != (c.reason != nil) || c.reason != nil && !errors.Is(r.Err, c.reason) {
				t.Errorf("%s over %s: refused for %+v", name, network, r)
			}
		}
	}
}

// TestMAFDown: keys that Entity B has go on working; a device whose key Entity B
// can't get now does not take that for a refusal.
func TestMAFDown(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	addr, associations := listen(t, b, "tcp")
	known, late := m.device(), m.device()
	dial(t, known, "tcp", addr)
	<-associations
	if _, err := late.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.stopKeyAPI()

	dial(t, known, "tcp", addr)
	<-associations
	_, err := late.Dial(t.Context(), "tcp", addr)
	if got := alertOf(t, err); got != tlspsk.AlertInternalError {
		t.Errorf("the device is told %v", got)
	}
	if r := <-refusals; !errors.Is(r.Err, keyclient.ErrUnavailable) {
		t.Errorf("refused for %+v", r)
	}
	if n := m.handshakes.Load(); n != 2 {
		t.Errorf("%d MAF Handshakes: the device renewed a good key", n)
	}
}

// TestCrowd: goroutines that need a key at once share what it takes to get one.
func TestCrowd(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	addr, associations := listen(t, b, "tcp")
	d := m.device()
	crowd := func() {
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() { dial(t, d, "tcp", addr) })
		}
		all.Wait()
		for range 20 {
			<-associations
		}
	}
	crowd()
	if h, a := m.handshakes.Load(), m.asked.Load(); h != 1 || a != 1 {
		t.Errorf("%d MAF Handshakes and %d questions for 20 devices at once", h, a)
	}
	expireKeys(m, b)
	crowd()
	if h, a := m.handshakes.Load(), m.asked.Load(); h != 2 || a != 2 {
		t.Errorf("%d MAF Handshakes and %d questions after 20 refusals at once", h, a)
	}
}

// TestSlowPeers: those who don't go on with their handshake, however many they
// are, keep nobody out and lose their place to whoever comes.
func TestSlowPeers(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	b.MaxHandshakes = 5
	listener, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	var idle []net.Conn
	for range 4 * b.MaxHandshakes {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	for range 3 * b.MaxHandshakes {
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
		conn, err := m.device().Dial(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		accepted, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
	}
	shed := len(idle) - b.MaxHandshakes
	for range shed {
		if r := <-refusals; !errors.Is(r.Err, ErrTurnedAway) || r.Identity != "" {
			t.Errorf("%+v", r)
		}
	}
	s := listener.Stats()
	// The last that was shed takes a moment to go.
	for give := time.Now().Add(10 * time.Second); s.UnderWay > b.MaxHandshakes && time.Now().Before(give); {
		time.Sleep(time.Millisecond)
		s = listener.Stats()
	}
	if s.Shed < uint64(shed) || s.UnderWay > b.MaxHandshakes || s.Peak > b.MaxHandshakes+1 || s.Failed != 0 {
		t.Errorf("%+v, with %d idle", s, len(idle))
	}
}

// TestFailingSource: a source whose handshakes fail on and on is turned away
// before the next, until some are forgiven; a MAF that is down is not its fault.
func TestFailingSource(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	b.MaxFailures, b.FailuresPerSecond = 3, 1
	addr, associations := listen(t, b, "tcp")
	bad := impatient()
	bad.Identity, bad.Key = []byte("nobody"), []byte("none")
	failures, begin := 0, time.Now()
	for turnedAway := false; !turnedAway; {
		_, err := tlspsk.Dial("tcp", addr, bad)
		if err == nil {
			t.Fatal("got in")
		}
		if r := <-refusals; errors.Is(r.Err, ErrTurnedAway) {
			turnedAway = true
			if refusesKey(err) {
				t.Errorf("who is turned away takes it for a refusal of the key: %v", err)
			}
		} else {
			failures++
		}
	}
	if most := b.MaxFailures + 1 + int(time.Since(begin).Seconds()); failures < b.MaxFailures || failures > most {
		t.Errorf("%d handshakes failed, not %d to %d", failures, b.MaxFailures, most)
	}
	d := m.device()
	conn, err := d.Dial(t.Context(), "tcp", addr)
	for try := 0; err != nil && try < 100; try++ { // forgiven in a second
		if refusesKey(err) {
			t.Errorf("the device takes it for a refusal of its key: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		conn, err = d.Dial(t.Context(), "tcp", addr)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-associations
}

// TestNotItsFault: handshakes that fail because the MAF is down count against
// nobody.
func TestNotItsFault(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	b.MaxFailures, b.FailuresPerSecond = 3, 1
	addr, _ := listen(t, b, "tcp")
	key, err := m.device().Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.stopKeyAPI()
	for range 20 {
		config := impatient()
		config.Identity, config.Key = []byte(key.KcID.String()), key.Kc.Bytes()
		if _, err := tlspsk.Dial("tcp", addr, config); alertOf(t, err) != tlspsk.AlertInternalError {
			t.Errorf("the device gets %v", err)
		}
		if r := <-refusals; !errors.Is(r.Err, keyclient.ErrUnavailable) {
			t.Errorf("%+v", r)
		}
	}
}

// TestAdmission: what the fields mean.
func TestAdmission(t *testing.T) {
	type rate = admission.Rate
	for _, c := range []struct {
		b    *EntityB
		want admission.Config
	}{
		{&EntityB{}, admission.Config{Total: 4096, Failures: rate{Burst: 16384, PerSecond: 50}}},
		{&EntityB{MaxHandshakes: 10, MaxHandshakesPerSource: 2}, admission.Config{Total: 10, PerSource: 2, Failures: rate{Burst: 40, PerSecond: 50}}},
		{&EntityB{MaxFailures: 5, FailuresPerSecond: 1}, admission.Config{Total: 4096, Failures: rate{Burst: 5, PerSecond: 1}}},
		{&EntityB{MaxFailures: -1}, admission.Config{Total: 4096}},
		{&EntityB{FailuresPerSecond: -1}, admission.Config{Total: 4096}},
	} {
		if got := c.b.admission(); got != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}

func TestListenerClose(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	for _, network := range []string{"tcp", "udp"} {
		listener, err := b.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if listener.Addr().Network() != network {
			t.Errorf("listens on %v", listener.Addr())
		}
		// One who is slow, one who was accepted, and one who is ready.
		idle, err := net.Dial(network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		d := m.device()
		first, err := d.Dial(t.Context(), network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		accepted, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer accepted.Close()
		ready, err := d.Dial(t.Context(), network, listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer ready.Close()

		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed twice: %v", err)
		}
		if c, err := listener.Accept(); !errors.Is(err, net.ErrClosed) || c != nil {
			t.Errorf("accepted after Close: %v, %v", c, err)
		}
		first.Write([]byte("still there"))
		buf := make([]byte, 100)
		if n, err := accepted.Read(buf); err != nil || string(buf[:n]) != "still there" {
			t.Errorf("%q, %v", buf[:n], err)
		}
		if n, err := ready.Read(buf); err == nil {
			t.Errorf("%q from a connection that nobody accepted", buf[:n])
		}
		if len(refusals) > 0 {
			t.Errorf("a refusal is reported for Close: %+v", <-refusals)
		}
	}
}

func TestAcceptWaits(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	listener, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := listener.Accept()
		done <- err
	}()
	listener.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// failOnce is a listener whose first Accept fails.
type failOnce struct {
	net.Listener
	failed bool // owned by the goroutine that accepts
}

var errTooMany = errors.New("too many open files")

func (l *failOnce) Accept() (net.Conn, error) {
	if !l.failed {
		l.failed = true
		return nil, errTooMany
	}
	return l.Listener.Accept()
}

// TestAcceptFails: a failure to accept is the caller's to see, and not the end.
func TestAcceptFails(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	if err := b.init(); err != nil {
		t.Fatal(err)
	}
	inner, err := tlspsk.Listen("tcp", "127.0.0.1:0", b.serverConfig())
	if err != nil {
		t.Fatal(err)
	}
	listener := newListener(&failOnce{Listener: inner}, b)
	defer listener.Close()
	if _, err := listener.Accept(); !errors.Is(err, errTooMany) {
		t.Errorf("Accept: %v", err)
	}
	c, err := m.device().Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	accepted.Close()
}

func TestListenRefuses(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	if _, err := b.Listen("unix", "x"); err == nil {
		t.Error("listens on a Unix socket")
	}
	if _, err := (&EntityB{}).Listen("tcp", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), "no MAF") {
		t.Errorf("an empty EntityB listens: %v", err)
	}
	if err := (&EntityB{}).Close(); err != nil {
		t.Error(err)
	}
}

// TestConfig: the caller's settings hold, and who is who does not come from
// there.
func TestConfig(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	b.Config = &tlspsk.Config{
		CipherSuites: []uint16{tlspsk.TLS_PSK_WITH_AES_128_CCM_8, tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256},
		GetPSK:       func(context.Context, *tlspsk.PSKRequest) (*tlspsk.PSK, error) { panic("not this one") },
	}
	addr, associations := listen(t, b, "tcp")
	d := m.device()
	d.Config = &tlspsk.Config{
		CipherSuites: []uint16{tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256},
		Identity:     []byte("nobody"), Key: []byte("none"), ServerName: "nowhere",
	}
	before := *d.Config
	c, err := d.Dial(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-associations
	if got := c.ConnectionState().CipherSuite; got != tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256 {
		t.Errorf("the suite is %s", tlspsk.CipherSuiteName(got))
	}
	if c.ConnectionState().ServerName != "" {
		t.Errorf("SNI says %q for an IP address", c.ConnectionState().ServerName)
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	named, err := d.Dial(t.Context(), "tcp", "localhost:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	<-associations
	if named.ConnectionState().ServerName != "localhost" {
		t.Errorf("SNI says %q for localhost", named.ConnectionState().ServerName)
	}
	if fmt.Sprint(*d.Config) != fmt.Sprint(before) {
		t.Error("the caller's Config was changed")
	}
}

func TestServerName(t *testing.T) {
	for addr, want := range map[string]string{
		"in-cse.example.com:8443": "in-cse.example.com", "IN-CSE.example.com:1": "in-cse.example.com", "localhost:1": "localhost",
		"127.0.0.1:8443": "", "[::1]:8443": "", "[fe80::1%eth0]:1": "", ":8443": "", "in_cse:1": "", "in-cse.example.com": "",
	} {
		if got := serverName(addr); got != want {
			t.Errorf("%s: SNI is %q, want %q", addr, got, want)
		}
	}
}

func TestRefusesKey(t *testing.T) {
	for alert := range tlspsk.Alert(255) {
		want := alert == 20 || alert == 40 || alert == 51 || alert == 115
		if got := refusesKey(fmt.Errorf("x: %w", &tlspsk.AlertError{Alert: alert, Remote: true})); got != want {
			t.Errorf("%v refuses the key: %v", alert, got)
		}
		if refusesKey(&tlspsk.AlertError{Alert: alert}) {
			t.Errorf("our own %v refuses the key", alert)
		}
	}
	if refusesKey(nil) || refusesKey(context.DeadlineExceeded) {
		t.Error("what is no alert refuses the key")
	}
}

// TestNoKeyIsShown prints everything there is to print.
func TestNoKeyIsShown(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	addr, associations := listen(t, b, "tcp")
	var out bytes.Buffer
	d := m.device()
	d.Log = slog.New(slog.NewTextHandler(&out, nil))
	dial(t, d, "tcp", addr)
	association := <-associations
	expireKeys(m, b)
	dial(t, d, "tcp", addr)
	<-associations
	key := d.key
	fmt.Fprintf(&out, "%v %+v %#v %v %+v %#v %+v %+v", key, key, key, d, d, d, association, <-refusals)
	if !strings.Contains(out.String(), "Entity B refused Kc") || !strings.Contains(out.String(), key.KcID.String()) {
		t.Errorf("the log does not say what happened:\n%s", out.String())
	}
	for _, secret := range [][]byte{km.Bytes(), key.Kc.Bytes()} {
		for _, form := range []string{string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), strings.Trim(fmt.Sprint(secret), "[]")} {
			if strings.Contains(out.String(), form) {
				t.Errorf("a key shows:\n%s", out.String())
			}
		}
	}
}
