package leaks

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/tlspsk"
)

const (
	city  = "//city.example/in-cse"
	rival = "//rival.example/in-cse"
	meter = "meter7@maf.localhost"
)

// TestPrograms has the real programs do what they are for, and fail in every way
// in which they can, at debug level, and searches all that they print and store.
func TestPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("building and running all programs is left out with -short")
	}
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			s := newStage(t)
			mafd, runtime := s.startMAF(format, nil)
			p := &play{stage: s, runtime: runtime}
			p.stateFolder()
			p.register()
			p.misuse()
			p.handshakes()
			p.sessions()
			p.refusals()
			p.associations()
			p.gateway(format)
			p.badRequests()
			if status := mafd.end(syscall.SIGTERM); status.ExitStatus() != 0 {
				t.Errorf("mafd ended with status %d\n%s", status.ExitStatus(), mafd.out.bytes())
			}
			s.check("state/keyset", "state/ca-key.pem")
		})
	}
}

// A play is what happens on a stage.
type play struct {
	*stage
	runtime adminapi.Runtime
	km      []byte // meter's
}

// stateFolder adds the secrets of mafd's own.
func (p *play) stateFolder() {
	p.t.Helper()
	addKeyset(p.t, p.secrets, p.path("state/keyset"))
	p.addPEM("private key of the authority", "state/ca-key.pem")
}

func (p *play) addPEM(name, file string) {
	p.t.Helper()
	text, err := os.ReadFile(p.path(file))
	if err != nil {
		p.t.Fatal(err)
	}
	addPEM(p.t, p.secrets, name, text)
}

// addKeyset adds the keys in a keyset's file to the secrets.
func addKeyset(t *testing.T, secrets *finder, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var content struct {
		Keyset struct {
			Key []struct{ KeyData struct{ Value []byte } }
		}
	}
	if err := json.Unmarshal(text, &content); err != nil || len(content.Keyset.Key) == 0 {
		t.Fatalf("the keyset: %v", err)
	}
	for _, k := range content.Keyset.Key {
		value := k.KeyData.Value // a protocol buffer that ends with the key
		secrets.add("key of the keyset", value[len(value)-32:])
	}
}

// addPEM adds the private key in a PEM text to the secrets, and the text itself,
// which may be shown encoded once more.
func addPEM(t *testing.T, secrets *finder, name string, text []byte) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if key, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			scalar, err := key.(*ecdsa.PrivateKey).Bytes()
			if err != nil {
				t.Fatal(err)
			}
			secrets.add(name, scalar)
			body := base64.StdEncoding.EncodeToString(block.Bytes)
			at := bytes.Index(block.Bytes, scalar)
			secrets.add(name+" in PEM", []byte(body[at/3*4+4:(at+len(scalar))/3*4]))
			return
		}
	}
	t.Fatalf("%s: there is none", name)
}

// register adds clients, with keys from all the places where they may come from.
func (p *play) register() {
	p.km = octets(32)
	p.secrets.add("Km of meter7", p.km)
	p.write("meter7.key", hex.EncodeToString(p.km)+"\n")
	p.run(call{args: []string{"client", "add", meter, "--entity-b", city, "--ae-id", "Smeter7", "--km-file", "meter7.key"}})

	other := octets(16)
	p.secrets.add("Km of meter8", other)
	p.run(call{args: []string{"client", "add", "meter8@maf.localhost", "--entity-b", city, "--km-file", "-", "--json"},
		stdin: base64.StdEncoding.EncodeToString(other)})

	p.run(call{args: []string{"client", "add", "made@maf.localhost", "--entity-b", city, "--km-out", "made.key"}})
	p.addKeyFile("Km that mafd made", "made.key")

	p.write("brief.key", hex.EncodeToString(p.km)+"\n")
	p.run(call{args: []string{"client", "add", "brief@maf.localhost", "--entity-b", city, "--lifetime", "2s", "--km-file", "brief.key"}})
	p.run(call{args: []string{"client", "add", "disabled@maf.localhost", "--entity-b", city, "--disabled", "--km-file", "meter7.key"}})
	p.run(call{args: []string{"client", "add", "removed@maf.localhost", "--entity-b", city, "--km-file", "meter7.key"}})
	p.run(call{args: []string{"client", "remove", "removed@maf.localhost"}})

	// What is shown, on purpose and once.
	text := p.run(call{args: []string{"client", "add", "shown@maf.localhost", "--entity-b", city, "--json"}, private: true})
	var shown struct{ Km []byte }
	for _, line := range strings.Split(text, "\n") {
		if json.Unmarshal([]byte(line), &shown) == nil && len(shown.Km) > 0 {
			break
		}
	}
	p.secrets.add("Km that was shown", shown.Km)
	p.secrets.shows(p.t, "maf client add", "Km that was shown", []byte(text))

	p.run(call{args: []string{"client", "list"}})
	p.run(call{args: []string{"client", "list", "--json"}})
	p.run(call{args: []string{"client", "show", "shown@maf.localhost"}})
	p.run(call{args: []string{"status"}})

	p.run(call{args: []string{"entity-b", "add", city, "--out", "city"}})
	p.addPEM("private key of Entity B", "city/key.pem")
	p.run(call{args: []string{"entity-b", "add", rival, "--out", "rival"}})
	p.addPEM("private key of the other Entity B", "rival/key.pem")
}

// misuse gives keys in ways that don't work.
func (p *play) misuse() {
	good := hex.EncodeToString(p.km)
	typo := good + "zz"
	p.write("typo.key", typo)
	p.write("large.key", strings.Repeat(good, 100))
	long := octets(65)
	p.secrets.add("a Km that is too long", long)
	p.write("long.key", hex.EncodeToString(long))
	for _, c := range []call{
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0], "--km-file", "typo.key"}, exit: 1},
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0], "--km-file", "large.key"}, exit: 1},
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0], "--km-file", "-"}, stdin: typo, exit: 1},
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0], "--insecure-km", typo}, exit: 1},
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0], "--insecure-km", good, "--km-file", "typo.key"}, exit: 1},
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0], "--insecure-km", good, "--no-such-flag"}, exit: 2},
		{args: []string{"handshake", meter, "--maf", p.runtime.TLS[0]}, env: []string{"MAF_KM=" + typo}, exit: 1},
		{args: []string{"handshake", meter, "one", "too many"}, env: []string{"MAF_KM=" + good}, exit: 2},
		{args: []string{"client", "add", "meter9@maf.localhost", "--entity-b", city, "--km-file", "typo.key"}, exit: 1},
		{args: []string{"client", "add", "meter9@maf.localhost", "--entity-b", city, "--km-file", "long.key"}, exit: 4},
		{args: []string{"client", "add", meter, "--entity-b", city, "--km-file", "meter7.key"}, exit: 4},
		{args: []string{"client", "add", meter, "--entity-b", city, "--km-file", "meter7.key", "--json"}, exit: 4},
		{args: []string{"client", "add", "meter9@maf.example.org", "--entity-b", city, "--km-file", "meter7.key"}, exit: 4},
		{args: []string{"client", "add", "made2@maf.localhost", "--entity-b", city, "--km-out", "made.key"}, exit: 1},
		{args: []string{"entity-b", "add", city, "--out", "city"}, exit: 1},
	} {
		p.run(c)
	}
}

// handshakes is the device on the command line.
func (p *play) handshakes() {
	for _, args := range [][]string{
		{"--km-file", "meter7.key", "--maf", p.runtime.TLS[0]},
		{"--km-file", "meter7.key", "--maf", p.runtime.DTLS[0], "--dtls", "--json"},
		{"--km-file", "meter7.key", "--maf", p.runtime.TLS[0], "--kc-file", "meter7.kc"},
		{"--insecure-km", hex.EncodeToString(p.km), "--maf", p.runtime.TLS[0], "--kc-file", "json.kc", "--json"},
	} {
		p.run(call{args: append([]string{"handshake", meter}, args...)})
	}
	p.addKeyFile("Kc in a file", "meter7.kc")
	p.addKeyFile("Kc in another file", "json.kc")

	text := p.run(call{args: []string{"handshake", meter, "--km-file", "meter7.key", "--maf", p.runtime.TLS[0], "--show-key", "--kc-file", "shown.kc"}, private: true})
	p.addKeyFile("Kc that was shown", "shown.kc")
	p.secrets.shows(p.t, "maf handshake --show-key", "Kc that was shown", []byte(text))
}

// sessions are handshakes whose keys we work out.
func (p *play) sessions() {
	for _, network := range []string{"tcp", "udp"} {
		for _, suite := range tlspsk.CipherSuites() {
			if suite.ForwardSecret {
				continue
			}
			for _, ems := range []tlspsk.Policy{tlspsk.PolicyRequire, tlspsk.PolicyDisable} {
				session(p.t, p.secrets, network, p.address(network), &tlspsk.Config{
					Identity: []byte(meter), Key: p.km, ServerName: "maf.localhost",
					CipherSuites: []uint16{suite.ID}, ExtendedMasterSecret: ems,
				})
			}
		}
	}
}

func (p *play) address(network string) string {
	if network == "udp" {
		return p.runtime.DTLS[0]
	}
	return p.runtime.TLS[0]
}

// refusals is what the MAF refuses, and what is no handshake at all.
func (p *play) refusals() {
	errs := p.output("errors of devices")
	wrong := octets(32)
	p.secrets.add("a wrong Km", wrong)
	for _, c := range []struct {
		identity, sni string
		key           []byte
	}{
		{meter, "maf.localhost", wrong},
		{meter, "maf.localhost", p.km[:31]},
		{"nobody@maf.localhost", "maf.localhost", p.km},
		{"disabled@maf.localhost", "maf.localhost", p.km},
		{"removed@maf.localhost", "maf.localhost", p.km},
		{meter, "maf.example.org", p.km},
		{"meter7@maf.example.org", "", p.km},
		{"meter7", "", p.km},
		{"", "", p.km},
		{"\x00\xff\n", "maf.localhost", p.km},
	} {
		for _, network := range []string{"tcp", "udp"} {
			_, err := tlspsk.Dial(network, p.address(network), &tlspsk.Config{
				Identity: []byte(c.identity), Key: c.key, ServerName: c.sni,
				RetransmitTimeout: 50 * time.Millisecond, HandshakeTimeout: patience})
			if err == nil {
				p.t.Errorf("%q got in", c.identity)
			}
			fmt.Fprintf(errs, "%v %+v %#v\n", err, err, err)
		}
	}
	for _, text := range []string{"GET / HTTP/1.1\r\n\r\n", "\x16\x03\x03\x40\x00", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", string(p.km)} {
		for _, network := range []string{"tcp", "udp"} {
			conn, err := net.Dial(network, p.address(network))
			if err != nil {
				p.t.Fatal(err)
			}
			io.WriteString(conn, text)
			conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			conn.Read(make([]byte, 100))
			conn.Close()
		}
	}
	p.run(call{args: []string{"handshake", "nobody@maf.localhost", "--km-file", "meter7.key", "--maf", p.runtime.TLS[0]}, exit: 4})
	p.run(call{args: []string{"handshake", meter, "--km-file", "made.key", "--maf", p.runtime.TLS[0], "--json"}, exit: 4})
	p.run(call{args: []string{"handshake", meter, "--km-file", "meter7.key", "--maf", "127.0.0.1:1"}, exit: 3})
}

// associations is the device with Entity Bs.
func (p *play) associations() {
	cityB, cityAddress := p.startPlatform(p.runtime, "city")
	rivalB, rivalAddress := p.startPlatform(p.runtime, "rival")
	connect := func(address, as, keyFile, kcFile string, exit int) {
		p.t.Helper()
		p.run(call{args: []string{"connect", address, "--as", as, "--maf", p.runtime.TLS[0],
			"--km-file", keyFile, "--kc-file", kcFile}, stdin: "hello\n", exit: exit})
	}
	connect(cityAddress, meter, "meter7.key", "meter7.kc", 0)
	connect(rivalAddress, meter, "meter7.key", "rival.kc", 4)
	p.addKeyFile("Kc for the wrong Entity B", "rival.kc")
	connect("127.0.0.1:1", meter, "meter7.key", "meter7.kc", 3)

	connect(cityAddress, "brief@maf.localhost", "brief.key", "brief.kc", 0)
	p.addKeyFile("Kc that expires", "brief.kc")
	time.Sleep(2100 * time.Millisecond)
	connect(cityAddress, "brief@maf.localhost", "brief.key", "brief.kc", 0)
	p.addKeyFile("Kc in its place", "brief.kc")

	text, err := os.ReadFile(p.path("meter7.kc"))
	if err != nil {
		p.t.Fatal(err)
	}
	p.write("cut.kc", string(text[:len(text)-5])) // no JSON any more
	connect(cityAddress, meter, "meter7.key", "cut.kc", 0)
	p.addKeyFile("Kc for a broken file", "cut.kc")

	cityB.end(syscall.SIGINT)
	rivalB.end(syscall.SIGINT)
}

// gateway is the device with a CSE behind mafgw, and strangers at both.
func (p *play) gateway(format string) {
	cse := httptest.NewServer(http.NotFoundHandler())
	defer cse.Close()
	config := p.write("mafgw.toml", `
state = "gateway"
cse = "`+city+`"
certificate = "city/cert.pem"
key = "city/key.pem"
ca = "city/ca.pem"
maf = { "maf.localhost" = ["https://`+p.runtime.KeyAPI[0]+`"] }
http = { listen = ["127.0.0.1:0"], backend = "`+cse.URL+`" }
telemetry.listen = ["127.0.0.1:0"]
log = { level = "debug", format = "`+format+`" }
`)
	gateway := p.start("mafgw, log in "+format, p.command(nil, "mafgw", "-config", config))
	address := gateway.listening("http")
	connect := call{args: []string{"connect", address, "--as", meter, "--maf", p.runtime.TLS[0], "--km-file", "meter7.key", "--kc-file", "gateway.kc"},
		stdin: "GET /in-cse HTTP/1.1\r\nHost: in-cse\r\nX-M2M-Origin: Smeter7\r\nX-M2M-RI: 1\r\nX-M2M-RVI: 3\r\nConnection: close\r\n\r\n"}
	// The gateway gives up when the MAF takes seconds to answer, which it does on a
	// machine that is busy enough.
	for deadline := time.Now().Add(patience); ; {
		text, exit := p.try(connect)
		if exit == 0 {
			break
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the device does not get in: exit %d\n%s\n%s", exit, text, gateway.out.bytes())
		}
	}
	p.addKeyFile("Kc at the gateway", "gateway.kc")
	errs := p.output("errors of strangers at the gateway")
	for _, identity := range []string{"00112233445566778899AABBCCDDEEFF@maf.localhost", "nonsense"} {
		if _, err := tlspsk.Dial("tcp", address, &tlspsk.Config{Identity: []byte(identity), Key: p.km, ServerName: "maf.localhost"}); err == nil {
			p.t.Errorf("%s got in", identity)
		} else {
			fmt.Fprintf(errs, "%v %+v %#v\n", err, err, err)
		}
	}
	metrics := p.output("metrics of the gateway")
	response, err := http.Get("http://" + gateway.listening("telemetry") + "/metrics")
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	io.Copy(metrics, response.Body)
	if len(metrics.bytes()) == 0 {
		p.t.Error("there are no metrics")
	}
	if status := gateway.end(syscall.SIGTERM); status.ExitStatus() != 0 {
		p.t.Errorf("mafgw ended with status %d\n%s", status.ExitStatus(), gateway.out.bytes())
	}
}

// listening waits until mafgw says where a binding of its listens.
func (p *process) listening(binding string) string {
	p.s.t.Helper()
	line := regexp.MustCompile(`"?binding"?[=:]"?` + binding + `"?[ ,]"?address"?[=:]"?([^\s"]+)`)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if found := line.FindSubmatch(p.out.bytes()); found != nil {
			return string(found[1])
		}
	}
	p.s.t.Fatalf("%s does not listen\n%s", p.out.what, p.out.bytes())
	panic("unreachable")
}

// badRequests asks both APIs what they don't answer, and keeps their answers.
func (p *play) badRequests() {
	answers := p.output("answers of the APIs")
	ask := func(client *http.Client, method, url, body string) {
		p.t.Helper()
		request, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			p.t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			fmt.Fprintf(answers, "%v\n", err)
			return
		}
		defer response.Body.Close()
		if response.StatusCode == http.StatusOK || response.StatusCode == http.StatusCreated {
			p.t.Errorf("%s %s %s: %s", method, url, body, response.Status)
		}
		io.Copy(answers, response.Body)
	}
	admin := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.runtime.Admin)
		}}}
	good := base64.StdEncoding.EncodeToString(p.km)
	for _, body := range []string{
		`{"kmID":"x@maf.localhost","entityB":"` + city + `","km":"` + good + `zz"}`,
		`{"kmID":"x@maf.localhost","entityB":"` + city + `","km":["` + good + `"]}`,
		`{"kmID":"x@maf.localhost","entityB":"` + city + `","km":{"` + good + `":1}}`,
		`{"kmID":"x@maf.localhost","entityB":"","km":"` + good + `"}`,
		`{"kmID":"x@maf.localhost","entityB":"` + city + `","km":"` + good + `","lifetime":"1ns"}`,
		`{"kmID":"x@maf.localhost","entityB":"` + city + `","km":"` + good + `"} "and more"`,
		`{"kmID":"x@maf.localhost","entityB":"` + city + `","km":"` + good,
	} {
		ask(admin, "POST", "http://mafd/v1/clients", body)
	}
	keys := "https://" + p.runtime.KeyAPI[0] + "/v1/keys/maf.localhost/00112233445566778899AABBCCDDEEFF"
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(p.runtime.CA)
	if err != nil {
		p.t.Fatal(err)
	}
	roots.AppendCertsFromPEM(ca)
	certificate, err := tls.LoadX509KeyPair(p.path("rival/cert.pem"), p.path("rival/key.pem"))
	if err != nil {
		p.t.Fatal(err)
	}
	for _, certificates := range [][]tls.Certificate{nil, {certificate}} {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}}}
		ask(client, "GET", keys, "")
		ask(client, "GET", keys+"/more", "")
		ask(client, "POST", keys, good)
	}
}
