package deployment

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// curl calls a URL and returns the answer with its head.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		peers.Missing(t, err.Error())
	}
	out, err := exec.Command(path, append([]string{"-sS", "-i", "-m", "30"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// proxy starts maf proxy for a device, and returns where it listens.
func (s *site) proxy(t *testing.T, name string, more ...string) string {
	t.Helper()
	key := s.write(t, name+".key", hex.EncodeToString(km)+"\n")
	args := append([]string{"proxy", "--json", "--as", meter(name).String(), "--maf", s.maf.TLS[0], "--km-file", key}, more...)
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), programEnv+"=maf")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log := new(bytes.Buffer)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("maf proxy: %v\n%s", err, log)
		}
	})
	var result struct{ Listening string }
	if err := json.NewDecoder(stdout).Decode(&result); err != nil {
		t.Fatal(err)
	}
	return result.Listening
}

// TestCurl: a program that knows no keys reaches the CSE through maf proxy and
// mafgw as who it is, and as nobody else.
func TestCurl(t *testing.T) {
	s := newSite(t, "")
	s.register(t, "meter7")
	url := "http://" + s.proxy(t, "meter7", s.addresses["http"]) + "/in-cse"
	headers := []string{"-H", "X-M2M-RI: 1", "-H", "X-M2M-RVI: 3"}

	got := curl(t, append(headers, "-H", "X-M2M-Origin: Smeter7", url)...)
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") || !strings.Contains(got, "X-M2M-RI: 1\r\n") {
		t.Errorf("as itself:\n%s", got)
	}
	got = curl(t, append(headers, "-H", "X-M2M-Origin: Smeter7", "-H", "Content-Type: application/json;ty=4",
		"-d", `{"m2m:cin":{"con":"`+strings.Repeat("x", 100_000)+`"}}`, url)...)
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("creating:\n%s", got)
	}
	if seen := s.cse.Requests(); len(seen) != 2 || seen[0].Origin != "Smeter7" || seen[1].Origin != "Smeter7" {
		t.Errorf("the CSE saw %+v", seen)
	}
	for _, c := range []struct{ from, status, rsc string }{
		{"Smeter8", "403", "4106"},
		{"CAdmin", "403", "4106"},
		{"//sp.example.com/Smeter7", "400", "4000"},
		{"", "400", "4000"},
	} {
		got := curl(t, append(headers, "-H", "X-M2M-Origin: "+c.from, url)...) // without a value curl sends none
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") || !strings.Contains(got, "X-M2M-RSC: "+c.rsc+"\r\n") {
			t.Errorf("as %q:\n%s", c.from, got)
		}
	}
	if seen := s.cse.Requests(); len(seen) != 0 {
		t.Errorf("the CSE saw %+v", seen)
	}

	metrics := curl(t, "http://"+s.addresses["telemetry"]+"/metrics")
	for _, want := range []string{
		`mafgw_requests_total{binding="http",direction="in",operation="retrieve",outcome="passed"} 1`,
		`mafgw_requests_total{binding="http",direction="in",operation="create",outcome="passed"} 1`,
		`mafgw_maf_up{maf="maf.localhost"} 1`,
		`mafgw_maf_revocations_followed{maf="maf.localhost"} 1`,
		`mafgw_certificate_expires_seconds `,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
	if n := len(s.gateway.log("request refused")); n != 4 {
		t.Errorf("%d refused requests in the access log", n)
	}
	if n := len(s.gateway.log("request")); n != 2 {
		t.Errorf("%d requests in the access log", n)
	}
}

// TestOpenSSL: no code of ours on the device at all.
func TestOpenSSL(t *testing.T) {
	s := newSite(t, "")
	key, err := s.register(t, "meter7").Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	client := peers.SClient(t, peers.Options{
		Network: "tcp", Addr: s.addresses["http"], Identity: []byte(key.KcID.String()), PSK: key.Kc.Bytes(),
	}, "EXPORTER-oneM2M-Connection", "-quiet", "-ign_eof")
	fmt.Fprintf(client.Stdin, "GET /in-cse HTTP/1.1\r\nHost: g\r\nX-M2M-Origin: Smeter7\r\nX-M2M-RI: 1\r\nX-M2M-RVI: 3\r\nConnection: close\r\n\r\n")
	if status, ok := client.Await("HTTP/1.1 "); !ok || !strings.HasPrefix(status, "200") {
		t.Errorf("got %q, %v", status, ok)
	}
	if seen := s.cse.Requests(); len(seen) != 1 || seen[0].Origin != "Smeter7" {
		t.Errorf("the CSE saw %+v", seen)
	}
}

// TestLibcoap: CoAP devices before a CSE that only speaks HTTP.
func TestLibcoap(t *testing.T) {
	for _, library := range []string{"openssl", "gnutls"} {
		t.Run(library, func(t *testing.T) {
			s := newSite(t, "coap = { listen = [\"127.0.0.1:0\"] }\n")
			device := s.register(t, "meter7")
			var key saef.Key
			// libcoap's client takes the key as an argument, in which no NUL can be.
			for key.IsZero() || bytes.IndexByte(key.Kc.Bytes(), 0) >= 0 {
				var err error
				if key, err = device.Handshake(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			o := peers.Options{Network: "udp", Addr: s.addresses["coap"], Identity: []byte(key.KcID.String()), PSK: key.Kc.Bytes()}
			for i, from := range []string{"Smeter7", "Smeter8"} {
				// The answer has a critical option that libcoap's client does not know
				// (RSC), so it waits for another one: not for long.
				peers.CoAPClient(t, library, o, "in-cse", "-B", "3", "-O", "279,"+from, "-O", fmt.Sprintf("283,%d", i), "-O", "271,3").Wait()
			}
			if seen := s.cse.Requests(); len(seen) != 1 || seen[0].Origin != "Smeter7" || seen[0].Path != "/in-cse" {
				t.Errorf("the CSE saw %+v", seen)
			}
			if n := len(s.gateway.log("request refused")); n != 1 {
				t.Errorf("%d refused requests in the access log", n)
			}
		})
	}
}

// get does a request on an open association.
func get(conn net.Conn, from string) (*http.Response, error) {
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /in-cse HTTP/1.1\r\nHost: g\r\nX-M2M-Origin: %s\r\nX-M2M-RI: 1\r\nX-M2M-RVI: 3\r\n\r\n", from)
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	return r, err
}

// TestRevocation: a device that is disabled at the MAF loses the association that
// it has, and gets none; another one goes on.
func TestRevocation(t *testing.T) {
	s := newSite(t, "")
	var conns []*tlspsk.Conn
	for _, name := range []string{"meter7", "meter8"} {
		conn, err := s.register(t, name).Dial(t.Context(), "tcp", s.addresses["http"])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if r, err := get(conn, "S"+name); err != nil || r.StatusCode != 200 {
			t.Fatalf("%v, %v", r, err)
		}
		conns = append(conns, conn)
	}
	yes := true
	begin := time.Now()
	if _, err := adminapi.Open(s.maf.Admin).Change(t.Context(), meter("meter7"), adminapi.ClientChange{Disabled: &yes}); err != nil {
		t.Fatal(err)
	}
	conns[0].SetDeadline(time.Now().Add(patience))
	if n, err := conns[0].Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("read %d, %v", n, err)
	}
	t.Logf("closed %v after the order", time.Since(begin).Round(time.Millisecond))
	if _, err := s.device("meter7").Dial(t.Context(), "tcp", s.addresses["http"]); err == nil {
		t.Error("it got a new association")
	}
	if r, err := get(conns[1], "Smeter8"); err != nil || r.StatusCode != 200 {
		t.Errorf("the other device: %v, %v", r, err)
	}
}

// TestMAFDown: while the MAF is away associations go on, keys that are known go on
// to open new ones, and others fail fast and say why.
func TestMAFDown(t *testing.T) {
	s := newSite(t, "")
	known, unknown := s.register(t, "meter7"), s.register(t, "meter8")
	conn, err := known.Dial(t.Context(), "tcp", s.addresses["http"])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := unknown.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.mafd.stop(t)

	if r, err := get(conn, "Smeter7"); err != nil || r.StatusCode != 200 {
		t.Errorf("the association: %v, %v", r, err)
	}
	again, err := known.Dial(t.Context(), "tcp", s.addresses["http"])
	if err != nil {
		t.Fatalf("with a known key: %v", err)
	}
	again.Close()
	if _, err := unknown.Dial(t.Context(), "tcp", s.addresses["http"]); err == nil {
		t.Error("with an unknown key: an association")
	}
	until(t, "the log says why", func() bool {
		for _, entry := range s.gateway.log("association refused") {
			if entry["reason"] == "maf_unavailable" {
				return true
			}
		}
		return false
	})
	ready := "http://" + s.addresses["telemetry"] + "/readyz"
	if got := curl(t, ready); !strings.HasPrefix(got, "HTTP/1.1 503 ") {
		t.Errorf("readyz:\n%s", got)
	}

	s.startMAF(t)
	until(t, "an association with the key that was unknown", func() bool {
		conn, err := unknown.Dial(t.Context(), "tcp", s.addresses["http"])
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	if got := curl(t, ready); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("readyz:\n%s", got)
	}
	if r, err := get(conn, "Smeter7"); err != nil || r.StatusCode != 200 {
		t.Errorf("the association, still: %v, %v", r, err)
	}
}

// TestReload: a new certificate is taken without a restart, and one that can't be
// read is not.
func TestReload(t *testing.T) {
	s := newSite(t, "")
	const read, kept = "certificates read again", "the certificates can't be read again; the ones from before stay in use"
	s.write(t, "cert.pem", "nonsense")
	s.gateway.Process.Signal(syscall.SIGHUP)
	until(t, kept, func() bool { return len(s.gateway.log(kept)) == 1 })
	s.issue(t)
	s.gateway.Process.Signal(syscall.SIGHUP)
	until(t, read, func() bool { return len(s.gateway.log(read)) > 0 })
	conn, err := s.register(t, "meter7").Dial(t.Context(), "tcp", s.addresses["http"])
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
