package httpgw

import (
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/saef"
)

// openssl s_client with somebody typing HTTP.
func TestSClient(t *testing.T) {
	cse := backendtest.Start(t, backendtest.FirstWins)
	g := newRig(t, cse.URL, nil)
	key, err := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7").Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := peers.SClient(t, peers.Options{Network: "tcp", Addr: g.listener.Addr().String(),
		Identity: []byte(key.KcID.String()), PSK: key.Kc.Bytes()}, kdf.ConnectionLabel, "-quiet")
	for _, c := range []struct{ id, from, rsc string }{{"1", "Cmeter7", "2000"}, {"2", thief, "4106"}, {"3", "Cmeter7", "2000"}} {
		io.WriteString(s.Stdin, request(get, "X-M2M-RI: "+c.id+"\nX-M2M-Origin: "+c.from, ""))
		_, answered := s.Await("X-M2M-RI: " + c.id)
		if _, right := s.Await("X-M2M-RSC: " + c.rsc); !answered || !right {
			t.Fatalf("as %s: no answer, or not %s", c.from, c.rsc)
		}
	}
	s.Stop()
	seen := cse.Requests()
	if len(seen) != 2 {
		t.Errorf("the CSE got %d requests", len(seen))
	}
	for _, r := range seen {
		if r.Origin != "Cmeter7" {
			t.Errorf("the CSE got %s", r.Raw)
		}
	}
}

// curl, whose stream an association carries.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		peers.Missing(t, err.Error())
	}
	cse := backendtest.Start(t, backendtest.LastWins)
	g := newRig(t, cse.URL, nil)
	address := carry(t, g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"), g.listener.Addr().String())
	large := `{"m2m:cin":{"con":"` + strings.Repeat("a", 1<<20-100) + `"}}`
	for _, c := range []struct{ want, args, stdin string }{
		{"2000", "-H X-M2M-Origin:Cmeter7 http://" + address + "/in-cse?fu=1&ty=3", ""},
		{"4106", "-H X-M2M-Origin:" + thief + " http://" + address + "/in-cse", ""},
		{"2001", "-H X-M2M-Origin:Cmeter7 -H Content-Type:application/json;ty=4 -H Expect:100-continue --data-binary @- http://" + address + "/in-cse/Cmeter7/c", large},
		{"2001", "-H X-M2M-Origin:Cmeter7 -H Content-Type:application/json;ty=4 -H Transfer-Encoding:chunked --data-binary @- http://" + address + "/in-cse/Cmeter7/c", large},
		{"4000", "-H X-M2M-Origin:Cmeter7 --path-as-is http://" + address + "/in-cse/../x", ""},
		{"4005", "-H X-M2M-Origin:Cmeter7 -X PATCH -d {} http://" + address + "/in-cse", ""},
		{"2002", "-H X-M2M-Origin:Cmeter7 -X DELETE http://" + address + "/in-cse/Cmeter7", ""},
	} {
		cmd := exec.CommandContext(t.Context(), curl, append([]string{"-s", "-S", "--noproxy", "*", "--max-time", "60", "-D", "-", "-o", "/dev/null",
			"-H", "X-M2M-RI: " + c.want + c.args[len(c.args)-8:]}, strings.Fields(c.args)...)...)
		cmd.Stdin = strings.NewReader(c.stdin)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "X-M2M-RSC: "+c.want+"\r\n") {
			t.Errorf("curl %s: %v\n%s\nwant %s", c.args, err, out, c.want)
		}
	}
	for _, r := range cse.Requests() {
		if r.Origin != "Cmeter7" || strings.Contains(r.Raw, "curl") {
			t.Errorf("the CSE got %.500s", r.Raw)
		}
	}
}

// carry listens in clear and carries each stream through an association.
func carry(t *testing.T, d *saef.Device, to string) (address string) {
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
			far, err := d.Dial(t.Context(), "tcp", to)
			if err != nil {
				t.Error(err)
				c.Close()
				return
			}
			all.Go(func() { io.Copy(far, c); far.CloseWrite() })
			all.Go(func() { io.Copy(c, far); c.Close(); far.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}
