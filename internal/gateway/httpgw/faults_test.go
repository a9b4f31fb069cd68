package httpgw

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

const get = "GET /in-cse"

func originator(n int) string { return fmt.Sprintf("X-M2M-RI: %d\nX-M2M-Origin: Cmeter7", n) }

// script starts a server that does with each connection, once a request is
// there, what do says, and then closes it.
func script(t *testing.T, do func(c net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
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
				if r := http1.NewReader(c); r.ReadRequest(&m) == nil {
					do(c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "http://" + l.Addr().String()
}

// Whatever the CSE does, the device gets a whole answer that says so, and may
// ask again on the same connection.
func TestFaultsOfTheCSE(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nContent-Type: application/json\r\n"
	says := func(text string) func(net.Conn) { return func(c net.Conn) { io.WriteString(c, text) } }
	down, slow := onem2m.StatusTargetNotReachable, onem2m.StatusRequestTimeout
	for _, c := range []struct {
		name string
		do   func(net.Conn)
		want onem2m.ResponseStatusCode
	}{
		{"closes", func(net.Conn) {}, down},
		{"resets", func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }, down},
		{"says nothing", func(c net.Conn) { c.Read(make([]byte, 1)) }, slow},
		{"stops in the head", says("HTTP/1.1 200 OK\r\nX-M2M"), down},
		{"stops in the content", says(ok + "Content-Length: 100\r\n\r\n{"), down},
		{"stops in a chunk", says(ok + "Transfer-Encoding: chunked\r\n\r\n64\r\n{"), down},
		{"goes on no further in the content", func(c net.Conn) {
			io.WriteString(c, ok+"Content-Length: 100\r\n\r\n{")
			c.Read(make([]byte, 1))
		}, slow},
		{"is no HTTP", says("SSH-2.0-OpenSSH_9.2\r\n\r\n"), down},
		{"is octets", says(strings.Repeat("\xff\x00", 5000)), down},
		{"is a web server", says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\nsory"), down},
		{"has no status code", says("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), down},
		{"has two status codes", says(ok + "X-M2M-RSC: 2001\r\nContent-Length: 2\r\n\r\n{}"), down},
		{"has a status code of words", says("HTTP/1.1 200 OK\r\nX-M2M-RSC: fine\r\nContent-Length: 2\r\n\r\n{}"), down},
		{"answers somebody else", says(ok + "X-M2M-RI: 4711\r\nContent-Length: 2\r\n\r\n{}"), down},
		{"answers too much", says(ok + "Content-Length: 3000\r\n\r\n" + strings.Repeat("a", 3000)), down},
		{"answers too much until it closes", says(ok + "\r\n" + strings.Repeat("a", 3000)), down},
		{"answers twice", says(ok + "Content-Length: 2\r\n\r\n{}" + ok + "Content-Length: 2\r\n\r\n{}"), down},
		{"answers until it closes", says(ok + "\r\n{}"), onem2m.StatusOK},
		{"answers in chunks", says(ok + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"), onem2m.StatusOK},
		{"answers after 100", says("HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\n{}"), onem2m.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t, script(t, c.do), func(_ *Config, b *BackendConfig) {
				b.MaxResponse = 1000
				if c.want == slow {
					b.Timeout = 500 * time.Millisecond
				}
			})
			device := g.meter()
			for n := range 2 {
				got := device.ask(request(get, originator(n), ""))
				if got.rsc() != int(c.want) || got.status != c.want.HTTPStatus() || got.headers["X-M2M-RI"] != fmt.Sprint(n) {
					t.Errorf("%v, want %v", got, c.want)
				}
				if strings.Contains(got.content, "127.0.0.1") {
					t.Errorf("the device learns an address: %s", got.content)
				}
			}
		})
	}
}

func TestCSEIsDown(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	g := newRig(t, "http://"+l.Addr().String(), nil)
	got := g.meter().ask(request(get, originator(1), ""))
	if got.rsc() != int(onem2m.StatusTargetNotReachable) {
		t.Errorf("%v", got)
	}
	g.server.Shutdown(t.Context())
	if e := g.log.all(); len(e) != 1 || !e[0].Refused || !strings.Contains(e[0].Reason, "refused") {
		t.Errorf("%+v", e)
	}
}

// A CSE that closes a connection that it promised to keep costs no RETRIEVE.
func TestCSEClosesKeptConnections(t *testing.T) {
	g := newRig(t, script(t, func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nContent-Length: 0\r\n\r\n")
	}), nil)
	device := g.meter()
	for n := range 50 {
		if got := device.ask(request(get, originator(n), "")); got.rsc() != 2000 {
			t.Fatalf("%v", got)
		}
	}
}

// One CSE reads once, and can't bear more than fits its buffer.
func TestWhatABackendCanBear(t *testing.T) {
	cse := backendtest.Start(t, backendtest.FirstWins)
	g := newRig(t, cse.URL, func(_ *Config, b *BackendConfig) { b.NoKeepAlive, b.MaxRequest = true, 10000 })
	device := g.meter()
	post := func(n, size int) reply {
		return device.ask(request("POST /in-cse", originator(n)+"\nContent-Type: application/json;ty=4",
			`{"m2m:cin":{"con":"`+strings.Repeat("a", size)+`"}}`))
	}
	for n := range 3 {
		if got := post(n, 9000); got.rsc() != 2001 {
			t.Errorf("%v", got)
		}
	}
	for _, r := range cse.Requests() {
		if r.Reads != 1 || !strings.Contains(r.Raw, "Connection: close\r\n") || strings.Contains(r.Raw, "chunked") {
			t.Errorf("%d reads for %.300s", r.Reads, r.Raw)
		}
	}
	if got := post(4, 10000); got.rsc() != 4000 || len(cse.Requests()) != 0 {
		t.Errorf("%v", got)
	}
	// The device's own chunks are no matter to the CSE.
	device.send("POST /in-cse HTTP/1.1\r\nHost: g\r\nX-M2M-RI: 9\r\nX-M2M-Origin: Cmeter7\r\nContent-Type: application/json;ty=4\r\n" +
		"Transfer-Encoding: chunked\r\n\r\n4\r\n{\"m2\r\nb\r\nm:cin\":{}}\n\r\n0\r\n\r\n")
	if got, err := device.receive(); err != nil || got.rsc() != 2001 {
		t.Errorf("%v, %v", got, err)
	}
	if seen := only(t, cse); seen.Content != `{"m2m:cin":{}}` || strings.Contains(seen.Raw, "chunked") {
		t.Errorf("%s", seen.Raw)
	}
}

// The bound on connections holds, and who has to wait gets a turn.
func TestConnectionsToTheCSEAreBounded(t *testing.T) {
	var mu sync.Mutex
	now, most := 0, 0
	g := newRig(t, script(t, func(c net.Conn) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		mu.Lock()
		now--
		mu.Unlock()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
	}), func(_ *Config, b *BackendConfig) { b.MaxConns = 2 })
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	var all sync.WaitGroup
	for range 10 {
		device := g.dial(meter)
		all.Go(func() {
			for n := range 3 {
				device.send(request(get, originator(n), ""))
				if got, err := device.receive(); err != nil || got.rsc() != 2000 {
					t.Errorf("%v, %v", got, err)
				}
			}
		})
	}
	all.Wait()
	if most > 2 {
		t.Errorf("%d at a time", most)
	}
}

// hanging starts a CSE that never answers, and tells when it has a request and
// when that has been given up.
func hanging(t *testing.T) (url string, asked, ended <-chan struct{}) {
	a, e := make(chan struct{}, 10), make(chan struct{}, 10)
	return script(t, func(c net.Conn) {
		a <- struct{}{}
		c.Read(make([]byte, 1))
		e <- struct{}{}
	}), a, e
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("%s: not within a minute", what)
	}
}

// When the device goes, nobody waits for the answer any more.
func TestDeviceGoes(t *testing.T) {
	cse, asked, ended := hanging(t)
	g := newRig(t, cse, nil)
	device := g.meter()
	device.send(request(get, originator(1), ""))
	wait(t, "the CSE is asked", asked)
	device.conn.Close()
	wait(t, "the CSE is left alone", ended)
	g.server.Shutdown(t.Context())
	if e := g.log.all(); len(e) != 1 || e[0].Status != 0 || e[0].Reason != errGone.Error() {
		t.Errorf("%+v", e)
	}
}

const registration = `{"m2m:ae":{"api":"Nlamp","rr":true,"srv":["3"]}}`

func register(query, headers string) string {
	return request("POST /in-cse"+query, "X-M2M-RI: 1\nX-M2M-Origin: C\nContent-Type: application/json;ty=2\n"+headers, registration)
}

// A device that goes before it hears how the CSE has it registered is registered:
// else it could leave any number of AEs at the CSE that are nobody's.
func TestDeviceGoesWhileItRegisters(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	cse := backendtest.Start(t, backendtest.LastWins)
	cse.Answer = func(*backendtest.Request) (int, string) {
		asked <- struct{}{}
		<-release
		return 2001, `{"m2m:ae":{"aei":"Clamp5"}}`
	}
	g := newRig(t, cse.URL, nil)
	lamp := g.dial(g.site.Unnamed("lamp"))
	lamp.send(register("", ""))
	wait(t, "the CSE is asked", asked)
	lamp.conn.Close()
	time.Sleep(2 * watchAfter) // until the gateway has noticed
	close(release)
	if err := g.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	peer := g.server.config.Rules.Peer(saef.Association{KmID: onem2m.KmID{Relative: "lamp", FQDN: gwtest.FQDN}})
	if own := peer.AEIDs(); len(own) != 1 || own[0].Stem != "Clamp5" {
		t.Errorf("it has %v", own)
	}
}

// Shutdown does not wait for a registration either.
func TestShutdownUnderARegistration(t *testing.T) {
	cse, asked, ended := hanging(t)
	g := newRig(t, cse, nil)
	g.dial(g.site.Unnamed("lamp")).send(register("", ""))
	wait(t, "the CSE is asked", asked)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.server.Shutdown(ctx); err != context.Canceled {
		t.Errorf("%v", err)
	}
	wait(t, "the CSE is left alone", ended)
}

// fullDisk is a memory that has no room left.
type fullDisk struct{}

func (fullDisk) Load() ([]policy.Claim, error) { return nil, nil }
func (fullDisk) Add(policy.Claim) error        { return syscall.ENOSPC }

// A device does not hear that it is registered when that would not hold.
func TestRegistrationThatIsNotKept(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	g := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) {
		var err error
		c.Rules, err = policy.New(policy.Config{CSE: gwtest.CSE, Allowed: []policy.Allowance{{KmID: "lamp@*", AEIDs: []string{"C*"}}}, Memory: fullDisk{}})
		if err != nil {
			t.Fatal(err)
		}
	})
	got := g.dial(g.site.Unnamed("lamp")).ask(register("", ""))
	if got.rsc() != int(onem2m.StatusInternalServerError) || strings.Contains(got.content, "space") {
		t.Errorf("%v", got)
	}
}

// A registration that the CSE refuses is refused in its words, however it puts them.
func TestRegistrationThatTheCSERefuses(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	cse.Answer = func(*backendtest.Request) (int, string) { return 4105, "already there" }
	g := newRig(t, cse.URL, nil)
	got := g.dial(g.site.Unnamed("lamp")).ask(register("", ""))
	if got.rsc() != 4105 || got.content != "already there" {
		t.Errorf("%v", got)
	}
}

// Nothing has the CSE answer a registration later, or without the AE-ID.
func TestRegistrationIsBlocking(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	g := newRig(t, cse.URL, nil)
	got := g.dial(g.site.Unnamed("lamp")).ask(register("?rt=2&rcn=0&atrl=apn", "X-M2M-RTU: /in-cse/Cother"))
	if seen := only(t, cse); got.rsc() != 2001 || strings.Contains(seen.Raw, "?") || strings.Contains(seen.Raw, "RTU") {
		t.Errorf("%v\n%s", got, seen.Raw)
	}
}

// The time for an answer is not that for what comes before the next one.
func TestContinueAfterAWhile(t *testing.T) {
	const long = time.Second
	cse := backendtest.Start(t, backendtest.LastWins)
	device := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) { c.Limits.WriteTimeout = long }).meter()
	if got := device.ask(request(get, originator(1), "")); got.rsc() != 2000 {
		t.Fatalf("%v", got)
	}
	time.Sleep(2 * long)
	head, content, _ := strings.Cut(request("POST /in-cse", originator(2)+"\nExpect: 100-continue\nContent-Type: application/json;ty=4", `{"m2m:cin":{}}`), "\r\n\r\n")
	device.send(head + "\r\n\r\n")
	interim := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(device.conn, interim); err != nil {
		t.Fatal(err)
	}
	if got := device.ask(content); got.rsc() != 2001 {
		t.Errorf("%v", got)
	}
}

// The next answer is where the reader of one to HEAD looks for it.
func TestHead(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	device := newRig(t, cse.URL, nil).meter()
	if got := device.ask(request("HEAD /in-cse", originator(1), "")); got.rsc() != 4005 || got.content != "" {
		t.Errorf("%v", got)
	}
	if got := device.ask(request(get, originator(2), "")); got.rsc() != 2000 {
		t.Errorf("%v", got)
	}
}

// A revoked key closes the association under a request.
func TestRevocationUnderARequest(t *testing.T) {
	cse, asked, ended := hanging(t)
	g := newRig(t, cse, nil)
	device := g.meter()
	device.send(request(get, originator(1), ""))
	wait(t, "the CSE is asked", asked)
	g.server.mu.Lock()
	for d := range g.server.conns {
		d.conn.Close() // as Entity B does it
	}
	g.server.mu.Unlock()
	wait(t, "the CSE is left alone", ended)
	if got, err := device.receive(); err == nil {
		t.Errorf("the device still got %v", got)
	}
	for deadline := time.Now().Add(time.Minute); g.server.Conns() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the connection is still served")
		}
	}
}

// A request that comes while another one is being answered waits and is not
// lost: reading ahead is how the gateway notices that a device has gone.
func TestPipelinedRequests(t *testing.T) {
	release := make(chan struct{})
	cse := backendtest.Start(t, backendtest.LastWins)
	cse.Answer = func(*backendtest.Request) (int, string) { <-release; return 2000, "" }
	device := newRig(t, cse.URL, nil).meter()
	for n := range 20 {
		device.send(request(get, originator(n), ""))
	}
	time.Sleep(2 * watchAfter)
	close(release)
	for n := range 20 {
		if got, err := device.receive(); err != nil || got.headers["X-M2M-RI"] != fmt.Sprint(n) {
			t.Fatalf("%v, %v", got, err)
		}
	}
}

// Long polling: a request waits for as long as it says that it may.
func TestRequestExpiration(t *testing.T) {
	release := make(chan struct{})
	cse := backendtest.Start(t, backendtest.LastWins)
	cse.Answer = func(*backendtest.Request) (int, string) { <-release; return 2000, "{}" }
	g := newRig(t, cse.URL, func(_ *Config, b *BackendConfig) { b.Timeout = 20 * time.Millisecond })
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	polls := map[string]string{
		"relative":        request(get, originator(1)+"\nX-M2M-RET: 600000", ""),
		"absolute":        request(get, originator(2)+"\nX-M2M-RET: "+onem2m.FormatTimestamp(time.Now().Add(time.Hour)), ""),
		"polling channel": request("GET /in-cse/Cmeter7/pch/pcu", originator(3), ""),
	}
	var all sync.WaitGroup
	for name, text := range polls {
		device := g.dial(meter)
		device.send(text)
		all.Go(func() {
			if got, err := device.receive(); err != nil || got.rsc() != 2000 {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		})
	}
	time.Sleep(10 * 20 * time.Millisecond)
	close(release)
	all.Wait()
}

// Shutdown lets a request end, says so, and closes what is idle.
func TestShutdown(t *testing.T) {
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	cse := backendtest.Start(t, backendtest.LastWins)
	cse.Answer = func(*backendtest.Request) (int, string) { asked <- struct{}{}; <-release; return 2000, "{}" }
	g := newRig(t, cse.URL, nil)
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	idle, busy := g.dial(meter), g.dial(meter)
	busy.send(request(get, originator(1), ""))
	wait(t, "the CSE is asked", asked)
	done := make(chan error)
	go func() { done <- g.server.Shutdown(t.Context()) }()
	if got, err := idle.receive(); err != io.EOF {
		t.Errorf("%v, %v", got, err)
	}
	close(release)
	if got, err := busy.receive(); err != nil || got.rsc() != 2000 || got.headers["Connection"] != "close" {
		t.Errorf("%v, %v", got, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Shutdown waits no longer than it may.
func TestShutdownWithoutPatience(t *testing.T) {
	cse, asked, ended := hanging(t)
	g := newRig(t, cse, nil)
	g.meter().send(request(get, originator(1), ""))
	wait(t, "the CSE is asked", asked)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.server.Shutdown(ctx); err != context.Canceled {
		t.Errorf("%v", err)
	}
	wait(t, "the CSE is left alone", ended)
}

// One master key has a bound on its connections, which others don't feel.
func TestConnectionsPerPeer(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	g := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) { c.Limits.ConnsPerPeer = 2 })
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	for range 2 {
		if got := g.dial(meter).ask(request(get, originator(1), "")); got.status != 200 {
			t.Errorf("%v", got)
		}
	}
	if got, err := g.dial(meter).receive(); err == nil {
		t.Errorf("a third: %v", got)
	}
	other := g.dial(g.site.AE("meter8", "//sp.example.com/in-cse/Cmeter8"))
	if got := other.ask(request(get, "X-M2M-RI: 1\nX-M2M-Origin: Cmeter8", "")); got.status != 200 {
		t.Errorf("another: %v", got)
	}
}

// Large contents pass in both directions, with Expect: 100-continue as curl
// sends it.
func TestLargeContent(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	large := `{"m2m:cin":{"con":"` + strings.Repeat("a", 1<<20-100) + `"}}`
	cse.Answer = func(*backendtest.Request) (int, string) { return 2001, large }
	device := newRig(t, cse.URL, nil).meter()
	head, _, _ := strings.Cut(request("POST /in-cse", originator(1)+"\nExpect: 100-continue\nContent-Type: application/json;ty=4", large), "\r\n\r\n")
	device.send(head + "\r\n\r\n")
	interim := make([]byte, len("HTTP/1.1 100 Continue\r\n\r\n"))
	if _, err := io.ReadFull(device.conn, interim); err != nil || !strings.HasPrefix(string(interim), "HTTP/1.1 100 ") {
		t.Fatalf("%q, %v", interim, err)
	}
	if got := device.ask(large); got.content != large {
		t.Errorf("%d octets", len(got.content))
	}
	if seen := only(t, cse); seen.Content != large {
		t.Errorf("the CSE got %d octets", len(seen.Content))
	}
	got := device.ask(request("POST /in-cse", originator(2)+"\nContent-Type: application/json;ty=4", large+strings.Repeat(" ", 1000)))
	if got.status != 413 || got.rsc() != 4000 || got.headers["Connection"] != "close" {
		t.Errorf("%v", got)
	}
}

// Devices that poll don't keep others from being served.
func TestPollsHaveTheirOwnConnections(t *testing.T) {
	cse, asked, ended := hanging(t)
	g := newRig(t, cse, func(_ *Config, b *BackendConfig) { b.MaxConns, b.MaxPolls = 1, 3 })
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	var polling []*client
	for n := range 3 {
		polling = append(polling, g.dial(meter))
		polling[n].send(request("GET /in-cse/Cmeter7/pch/pcu", originator(n), ""))
		wait(t, "the CSE is polled", asked)
	}
	other := g.dial(meter)
	other.send(request(get, originator(9), ""))
	wait(t, "the CSE is asked", asked)
	for range polling {
		polling[0].conn.Close()
		polling = polling[1:]
		wait(t, "a poll ends", ended)
	}
}

// A device that takes too long to send a request is left.
func TestSlowDevices(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	g := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) { c.Limits.ReadTimeout = 20 * time.Millisecond })
	meter := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
	for _, text := range []string{"G", "GET /in-cse HTTP/1.1\r\nHost: g\r\n", "POST / HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\n{}"} {
		device := g.dial(meter)
		device.send(text)
		if got, err := device.receive(); err != io.EOF {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if seen := cse.Requests(); len(seen) > 0 {
		t.Errorf("%+v", seen)
	}
}

// A device that is slow to begin one is left when it has been idle for too long.
func TestIdleTimeout(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	g := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) { c.Limits.IdleTimeout = 20 * time.Millisecond })
	if got, err := g.meter().receive(); err != io.EOF {
		t.Errorf("%v, %v", got, err)
	}
}
