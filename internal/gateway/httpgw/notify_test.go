package httpgw

import (
	"encoding/base64"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/http1"
)

// post sends a notification, as the CSE does, to the gateway's address for a
// device's, and returns the status and the content of the answer.
func post(t *testing.T, c *Contacts, url string) (status int, headers, content string) {
	t.Helper()
	conn, err := net.Dial("tcp", c.host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	target := strings.TrimPrefix(c.address("owner", url), "http://"+c.host)
	io.WriteString(conn, "POST "+target+" HTTP/1.1\r\nHost: h\r\nX-M2M-RI: 1\r\nContent-Length: 2\r\n\r\n{}")
	var m http1.Message
	r := http1.NewReader(conn)
	if err := r.ReadResponse(&m); err != nil {
		return 0, "", ""
	}
	body, err := r.ReadBody(&m, nil, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Fields {
		headers += f.Name + "=" + f.Value + "|"
	}
	return m.Status, headers, string(body)
}

// What a device answers a notification with reaches the CSE only as far as it was
// read, like a request.
func TestAnswersOfDevices(t *testing.T) {
	contacts := serveContacts(t, loopback)
	const head = "HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nX-M2M-Origin: CAdmin\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		answer  string
		status  int
		content string
	}{
		"JSON":        {head + "Content-Length: 11\r\n\r\n{ \"a\" : 1 }", 200, `{"a":1}`},
		"broken JSON": {head + "Content-Length: 9\r\n\r\n{\"a\":1,}\x00", 404, ""},
		"twice":       {head + "Content-Length: 15\r\n\r\n{\"fr\":1,\"FR\":2}", 404, ""},
		"redirection": {strings.Replace(head, "200 OK", "307 There", 1) + "Location: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n", 404, ""},
	} {
		url, _ := notified(t, c.answer)
		status, headers, content := post(t, contacts, url)
		if status != c.status || content != c.content || strings.Contains(headers, "CAdmin") {
			t.Errorf("%s: the CSE got %d %s %q", name, status, headers, content)
		}
	}
}

// A device can't have the gateway speak to the CSE as the CSE, nor to itself.
func TestNotificationsToTheCSE(t *testing.T) {
	url, got := notified(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	host, _, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	_, port, _ := net.SplitHostPort(host)
	contacts := serveContacts(t, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")})
	contacts.config.Never = append(contacts.config.Never, "localhost:"+port)
	own, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range own { // where a CSE that listens everywhere would be
		at := netip.AddrPortFrom(netip.MustParsePrefix(a.String()).Addr(), 1)
		if !contacts.isForbidden(t.Context(), netip.MustParseAddrPort(strings.TrimSuffix(at.String(), "1")+port)) {
			t.Errorf("%s may be called", a)
		}
	}
	for _, url := range []string{url, "http://127.0.0.2:" + port, "http://0.0.0.0:" + port, "http://[::]:" + port, "http://[::ffff:0.0.0.0]:" + port, "http://localhost:" + port, "http://" + contacts.host + "/n/x"} {
		if status, _, _ := post(t, contacts, url); status != 404 || len(got) > 0 {
			t.Errorf("%s: status %d", url, status)
		}
	}
}

func TestWhoMayNotify(t *testing.T) {
	c, err := NewContacts(ContactsConfig{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	listed, err := NewContacts(ContactsConfig{URL: "http://127.0.0.1:1", From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string][2]bool{
		"127.0.0.1:9": {true, false}, "[::1]:9": {true, false}, "[::ffff:127.0.0.1]:9": {true, false}, "10.1.2.3:9": {false, true}, "192.0.2.1:9": {false, false},
	} {
		at := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(address))
		if got := [2]bool{c.mayNotify(at), listed.mayNotify(at)}; got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
}

// One device that lets each notification wait does not keep others from theirs.
func TestNotificationsOfOneDevice(t *testing.T) {
	contacts := serveContacts(t, loopback)
	release := make(chan struct{})
	slow := script(t, func(net.Conn) { <-release })
	var all sync.WaitGroup
	defer all.Wait()
	defer close(release)
	var mu sync.Mutex
	turnedAway := 0
	for range 2 * maxOfOne {
		all.Go(func() {
			if status, _, _ := post(t, contacts, slow); status == 404 {
				mu.Lock()
				turnedAway++
				mu.Unlock()
			}
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		mu.Lock()
		n := turnedAway
		mu.Unlock()
		if n == maxOfOne {
			return
		}
		if n > maxOfOne || time.Now().After(deadline) {
			t.Fatalf("%d were turned away", n)
		}
	}
}

// Close ends what a device would draw out.
func TestCloseBreaksDeliveriesOff(t *testing.T) {
	contacts := serveContacts(t, loopback)
	release, asked := make(chan struct{}), make(chan struct{}, 1)
	slow := script(t, func(net.Conn) { asked <- struct{}{}; <-release })
	defer close(release)
	done := make(chan struct{})
	go func() { post(t, contacts, slow); close(done) }()
	wait(t, "the device is notified", asked)
	contacts.Close()
	wait(t, "the CSE is answered", done)
}

// Who reads an address at the CSE learns nothing from it.
func TestAddressesAreSealed(t *testing.T) {
	c, err := NewContacts(ContactsConfig{URL: "http://127.0.0.1:1", Networks: loopback})
	if err != nil {
		t.Fatal(err)
	}
	one, two := c.address("11-lamp@maf.example.com", "http://10.0.0.7/x"), c.address("11-lamp@maf.example.com", "http://10.0.0.7/y")
	text, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(one, c.base))
	if err != nil || strings.Contains(string(text), "lamp") || strings.Contains(string(text), "10.0.0.7") || one[:len(c.base)+40] == two[:len(c.base)+40] {
		t.Errorf("%q, %v", text, err)
	}
	if again := c.address("11-lamp@maf.example.com", "http://10.0.0.7/x"); again != one {
		t.Error("the same address becomes two")
	}
}
