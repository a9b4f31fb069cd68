package httpgw

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// serveContacts starts Contacts that the CSE reaches at a port of loopback.
func serveContacts(t testing.TB, networks []netip.Prefix) *Contacts {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewContacts(ContactsConfig{URL: "http://" + l.Addr().String(), Networks: networks, Key: saef.NewSecret([]byte("key"))})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := c.Serve(l); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return c
}

// notified starts a device's own HTTP server, which answers what is given.
func notified(t *testing.T, answer string) (url string, got chan string) {
	got = make(chan string, 10)
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
			var m http1.Message
			r := http1.NewReader(c)
			if r.ReadRequest(&m) == nil {
				body, _ := r.ReadBody(&m, nil, 1<<20)
				text := m.Method + " " + m.Target
				for _, f := range m.Fields {
					text += "|" + f.Name + "=" + f.Value
				}
				got <- text + "|" + string(body)
				io.WriteString(c, answer)
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return "http://" + l.Addr().String() + "/notify?x=1", got
}

// address finds the gateway's address in what a CSE got.
func address(t *testing.T, c *Contacts, text string) (url, host, target string) {
	t.Helper()
	i := strings.Index(text, c.base)
	if i < 0 {
		t.Fatalf("no address of the gateway's in %s", text)
	}
	url, _, _ = strings.Cut(text[i:], `"`)
	host, target, _ = strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	return url, host, target
}

// deviceRegistration is a subscription of the meter's that names its address.
func subscription(url string) string {
	return request("POST /in-cse/Cmeter7", "X-M2M-RI: 1\nX-M2M-Origin: Cmeter7\nX-M2M-RVI: 3\nContent-Type: application/json;ty=23",
		`{"m2m:sub":{"rn":"s","nu":["`+url+`","/in-cse/Cother"],"su":"`+url+`"}}`)
}

func TestNotification(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nX-M2M-RI: whatever\r\nServer: meter\r\nContent-Length: 0\r\n\r\n"
	for name, c := range map[string]struct {
		form   string // of the CSE's request: its target, then its host
		answer string // of the device's
		status int    // at the CSE
		rsc    string
	}{
		"well formed":             {"POST /%[1]s HTTP/1.1\r\nHost: %[2]s\r\nX-M2M-RI: 7\r\nX-M2M-Origin: /in-cse\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", ok, 200, "2000"},
		"absolute":                {"POST http://%[2]s/%[1]s HTTP/1.1\r\nHost: %[2]s\r\nContent-Length: 2\r\n\r\n{}", ok, 200, "2000"},
		"without slash, and NULs": {"POST %[1]s HTTP/1.1\r\nHost: %[2]s\r\nX-M2M-Origin: /in-cse\r\nContent-Length: 2\r\n\r\n{}\r\n" + strings.Repeat("\x00", 60000), ok, 200, "2000"},
		"bare LF":                 {"POST /%[1]s HTTP/1.0\nContent-Length: 2\n\n{}", ok, 200, "2000"},
		"device without RSC":      {"POST /%[1]s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "2000"},
		"device says no":          {"POST /%[1]s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 403 No\r\nX-M2M-RSC: 4103\r\nContent-Length: 0\r\n\r\n", 403, "4103"},
		"device talks nonsense":   {"POST /%[1]s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "nonsense", 404, "5103"},
		"device closes":           {"POST /%[1]s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}", "", 404, "5103"},
	} {
		t.Run(name, func(t *testing.T) {
			contacts := serveContacts(t, loopback)
			cse := backendtest.Start(t, backendtest.LastWins)
			device := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) { c.Contacts = contacts }).meter()
			url, got := notified(t, c.answer)
			if r := device.ask(subscription(url)); r.rsc() != 2001 {
				t.Fatalf("%v", r)
			}
			seen := only(t, cse)
			if strings.Contains(seen.Raw, url) || !strings.Contains(seen.Raw, `"/in-cse/Cother"`) {
				t.Errorf("the CSE got %s", seen.Raw)
			}
			_, host, target := address(t, contacts, seen.Content)
			conn, err := net.Dial("tcp", host)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(time.Minute))
			text := strings.NewReplacer("%[1]s", target, "%[2]s", host).Replace(c.form)
			if _, err := io.WriteString(conn, text); err != nil {
				t.Fatal(err)
			}
			var m http1.Message
			if err := http1.NewReader(conn).ReadResponse(&m); err != nil {
				t.Fatal(err)
			}
			if m.Status != c.status || m.Fields[0] != (http1.Field{Name: "X-M2M-RSC", Value: c.rsc}) || strings.Contains(fmt.Sprint(m.Fields), "whatever") {
				t.Errorf("the CSE got %d %v", m.Status, m.Fields)
			}
			n := <-got
			if !strings.HasPrefix(n, "POST /notify?x=1|Host=127.0.0.1:") || !strings.HasSuffix(n, "|{}") || strings.Count(n, "X-M2M-RI=") != 1 {
				t.Errorf("the device got %s", n)
			}
		})
	}
}

// The CSE forwards requests to a registered CSE below the address it gave.
func TestNotificationBelowAnAddress(t *testing.T) {
	contacts := serveContacts(t, loopback)
	url, got := notified(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	base := strings.TrimSuffix(url, "/notify?x=1")
	conn, err := net.Dial("tcp", contacts.host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	target := strings.TrimPrefix(contacts.address("//sp.example.com/mn-cse", base), "http://"+contacts.host)
	io.WriteString(conn, "GET "+target+"/~/mn-cse/base?rcn=1 HTTP/1.1\r\nHost: h\r\nX-M2M-RI: 1\r\n\r\n")
	if n := <-got; !strings.HasPrefix(n, "GET /~/mn-cse/base?rcn=1|") {
		t.Errorf("the device got %s", n)
	}
}

// An address that the gateway did not make is nobody's.
func TestForgedAddresses(t *testing.T) {
	contacts := serveContacts(t, loopback)
	url, got := notified(t, "")
	good := strings.TrimPrefix(contacts.address("owner", url), contacts.base)
	other, err := NewContacts(ContactsConfig{URL: contacts.config.URL, Networks: loopback})
	if err != nil {
		t.Fatal(err)
	}
	flipped := []byte(good)
	flipped[3] ^= 1
	for _, target := range []string{
		"/", "/n/", "/n/AAAA", "/" + good, "/n/" + good[1:], "/n/" + good[:len(good)-4], "/n/" + string(flipped), "/n/" + good + "=", "/m/" + good,
		"/n/" + strings.TrimPrefix(other.address("owner", url), other.base),
	} {
		conn, err := net.Dial("tcp", contacts.host)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "POST "+target+" HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}")
		var m http1.Message
		if err := http1.NewReader(conn).ReadResponse(&m); err != nil || m.Status != 404 {
			t.Errorf("%s: %d, %v", target, m.Status, err)
		}
		conn.Close()
	}
	if len(got) > 0 {
		t.Errorf("the device got %s", <-got)
	}
}

// No device may have the gateway or the CSE call whom it wants.
func TestAddressesThatAreRefused(t *testing.T) {
	for name, networks := range map[string][]netip.Prefix{"none": nil, "one": loopback} {
		contacts := serveContacts(t, networks)
		cse := backendtest.Start(t, backendtest.LastWins)
		g := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) { c.Contacts = contacts })
		device := g.meter()
		urls := []string{
			"http://10.0.0.1/", "http://[::1]/", "http://169.254.169.254/latest", "https://127.0.0.1/", "HTTP://10.0.0.1/",
			"http://user@127.0.0.1/", "http://127.0.0.1/#x", "http:///x", "http://[::ffff:10.0.0.1]/", "http://10.0.0.1:80:80/",
			" http://127.0.0.1/", "mqtt://127.0.0.1/oneM2M/req/x/y", "coap://127.0.0.1/", "ws://127.0.0.1/", "file:///etc/passwd",
			"//127.0.0.1:80/x", "", "Cmeter7?ct=http://10.0.0.1", "a:b",
			contacts.base + "AAAA", contacts.address("//sp.example.com/in-cse/Cother", "http://127.0.0.1/"),
		}
		if networks == nil {
			urls = append(urls, "http://127.0.0.1/", "http://localhost/")
		}
		for _, url := range urls {
			if r := device.ask(subscription(url)); r.rsc() != int(onem2m.StatusBadRequest) || len(cse.Requests()) > 0 {
				t.Errorf("%s networks, %s: %v", name, url, r)
			}
			r := device.ask(request("GET /in-cse", "X-M2M-RI: 1\nX-M2M-Origin: Cmeter7\nX-M2M-RTU: Cmeter7&"+url, ""))
			if r.rsc() != int(onem2m.StatusBadRequest) || len(cse.Requests()) > 0 {
				t.Errorf("%s networks, X-M2M-RTU %s: %v", name, url, r)
			}
		}
	}
}

// Without Contacts there is nobody whom a device may have called.
func TestAddressesWithoutContacts(t *testing.T) {
	cse := backendtest.Start(t, backendtest.LastWins)
	device := newRig(t, cse.URL, nil).meter()
	for _, url := range []string{"http://10.0.0.1/", "http://127.0.0.1/", "mqtt://10.0.0.1/x"} {
		if r := device.ask(subscription(url)); r.rsc() != 4000 || len(cse.Requests()) > 0 {
			t.Errorf("%s: %v", url, r)
		}
		r := device.ask(request("GET /in-cse?rt=2", originator(1)+"\nX-M2M-RTU: "+url, ""))
		if r.rsc() != 4000 || len(cse.Requests()) > 0 {
			t.Errorf("X-M2M-RTU %s: %v", url, r)
		}
		r = device.ask(request("POST /in-cse/Cmeter7", originator(1)+"\nContent-Type: application/json;ty=63",
			`{"m2m:actr":{"apv":{"op":1,"to":"/in-cse","fr":"Cmeter7","rqi":"1","ty":23,"pc":{"m2m:sub":{"nu":["`+url+`"]}}}}}`))
		if r.rsc() != 4000 || len(cse.Requests()) > 0 {
			t.Errorf("within, %s: %v", url, r)
		}
	}
	for _, resource := range []string{"Cmeter7", "/in-cse/Cmeter7", "//sp.example.com/in-cse/Cmeter7", "in-cse/meter7?ct=json"} {
		if r := device.ask(subscription(resource)); r.rsc() != 2001 || !strings.Contains(only(t, cse).Content, `"nu":["`+resource+`"`) {
			t.Errorf("%s: %v", resource, r)
		}
	}
}

// A name is looked up when it is called, and its address counts.
func TestNamesAreCheckedWhenCalled(t *testing.T) {
	contacts := serveContacts(t, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	n := notification{original: "http://localhost:1/", head: http1.Message{Method: "POST"}}
	if _, err := contacts.call(&n); err == nil || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("%v", err)
	}
}

// The owner reads the address that it wrote; others read the gateway's; and
// nobody reads the CSE's own.
func TestAddressesInAnswers(t *testing.T) {
	contacts := serveContacts(t, loopback)
	cse := backendtest.Start(t, backendtest.LastWins)
	const own = "http://127.0.0.1:9/a?b&c"
	kept := contacts.address("//sp.example.com/in-cse/Cmeter7", own)
	content := `{"m2m:sub":{"nu":["` + kept + `"],"poa":["http://10.0.0.5:8080","http://10.0.0.5:8080/x","http://10.0.0.5:80801"],` +
		`"con":"{\"nu\":\"` + kept + `\"}","x":"` + kept + `\\","e":""}}`
	cse.Answer = func(*backendtest.Request) (int, string) { return 2000, content }
	g := newRig(t, cse.URL, func(c *Config, _ *BackendConfig) {
		c.Contacts, c.Addresses, c.Public = contacts, []string{"10.0.0.5:8080"}, "https://gateway.example.com:8443/"
	})
	got := g.meter().ask(request(get, originator(1), ""))
	want := strings.Replace(content, `["`+kept, `["`+own, 1)
	want = strings.Replace(want, `"http://10.0.0.5:8080"`, `"https://gateway.example.com:8443"`, 1)
	want = strings.Replace(want, `"http://10.0.0.5:8080/x"`, `"https://gateway.example.com:8443/x"`, 1)
	if got.content != want {
		t.Errorf("the owner got\n%s\nwant\n%s", got.content, want)
	}
	other := g.dial(g.site.AE("meter8", "//sp.example.com/in-cse/Cmeter8"))
	got = other.ask(request(get, "X-M2M-RI: 1\nX-M2M-Origin: Cmeter8", ""))
	if !strings.Contains(got.content, kept) || strings.Contains(got.content, own) {
		t.Errorf("another got %s", got.content)
	}
	// What the owner reads it can write again, and what it has written before.
	device := g.meter()
	for _, url := range []string{own, kept} {
		cse.Requests()
		if r := device.ask(subscription(url)); r.status != 200 || !strings.Contains(only(t, cse).Content, kept) {
			t.Errorf("%s: %v", url, r)
		}
	}
}

// Locations name the backend; what is left of one is a path.
func TestWithoutHost(t *testing.T) {
	for in, want := range map[string]string{
		"/in-cse/x": "/in-cse/x", "in-cse/x": "in-cse/x", "http://10.0.0.5:8080/~/in-cse/x": "/~/in-cse/x",
		"HTTPS://h/x": "/x", "http://h": "", "coap://h/x": "", "/a b": "", "": "",
	} {
		if got := withoutHost(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
