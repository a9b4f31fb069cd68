package mqttgw

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/saef"
)

// tool returns the path of a program of mosquitto's, or ends the test for want of
// it.
func tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil { // Debian's daemons are not in everybody's PATH
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		peers.Missing(t, err.Error())
	}
	return path
}

// settings are a broker's that is the gateway's and the CSE's alone. "user" keeps
// mosquitto, when it is started by root, from giving up the right to read them.
const settings = `listener %d 127.0.0.1
allow_anonymous false
password_file %s
acl_file %s
message_size_limit 1048576
persistent_client_expiration 14d
user root
`

// acl gives either user what it needs.
const acl = `user gateway
topic readwrite /oneM2M/#

user in-cse
topic read /oneM2M/req/+/in-cse/#
topic read /oneM2M/reg_req/+/in-cse/#
topic read /oneM2M/resp/in-cse/#
topic write /oneM2M/#
`

// mosquitto starts a broker that admits the gateway and the CSE by password. Its
// output is a log.
func mosquitto(t *testing.T) (addr string, log *process) {
	t.Helper()
	broker, passwd := tool(t, "mosquitto"), tool(t, "mosquitto_passwd")
	dir := t.TempDir()
	passwords, config := filepath.Join(dir, "passwords"), filepath.Join(dir, "mosquitto.conf")
	for _, args := range [][]string{{"-c", "-b", passwords, "gateway", "secret"}, {"-b", passwords, "in-cse", "secret"}} {
		if out, err := exec.Command(passwd, args...).CombinedOutput(); err != nil {
			t.Fatalf("mosquitto_passwd: %v: %s", err, out)
		}
	}
	rights := filepath.Join(dir, "acl")
	if err := os.WriteFile(rights, []byte(acl), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 5 { // a free port may be taken meanwhile
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		l.Close()
		text := fmt.Sprintf(settings, port, passwords, rights)
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		addr, p := l.Addr().String(), start(t, broker, "-v", "-c", config)
		if p.listens(addr) {
			return addr, p
		}
	}
	t.Fatal("mosquitto does not start")
	return "", nil
}

// A process is a foreign program. It ends with the test.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended

	mu  sync.Mutex
	out bytes.Buffer // what it has written so far; guarded by mu
}

func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.cmd.Wait(); close(p.done) }()
	t.Cleanup(func() { cancel(); <-p.done })
	return p
}

func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *process) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// says waits until the process has written a text.
func (p *process) says(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.output(), text); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v does not say %q but %s", p.cmd.Args[0], text, p.output())
		}
	}
}

// ends waits for the process's end and returns its exit code and output.
func (p *process) ends(t *testing.T) (int, string) {
	t.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode(), p.output()
	case <-time.After(patience):
		t.Fatalf("%v does not end: %s", p.cmd.Args[0], p.output())
		return 0, ""
	}
}

// listens waits until the process accepts connections, or has ended.
func (p *process) listens(addr string) bool {
	for {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return true
		}
		select {
		case <-p.done:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// tools runs mosquitto's clients as a device.
type tools struct {
	t    testing.TB
	args []string
}

func (f *fixture) tools(d *saef.Device) *tools {
	f.t.Helper()
	key, err := d.Handshake(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(f.address)
	if err != nil {
		f.t.Fatal(err)
	}
	return &tools{f.t, []string{"-h", host, "-p", port, "-V", "mqttv311",
		"--psk-identity", key.KcID.String(), "--psk", hex.EncodeToString(key.Kc.Bytes())}}
}

func (d *tools) start(name string, more ...string) *process {
	d.t.Helper()
	return start(d.t, tool(d.t, name), append(d.args[:len(d.args):len(d.args)], more...)...)
}

// startCSE connects a CSE to the broker that answers every request with 2000, as echo
// does. It returns what the CSE gets.
func startCSE(t *testing.T, addr, clientID string) (*session, <-chan *mqtt.Publish) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s, r := &session{t: t, conn: conn}, bufio.NewReader(conn)
	s.send(&mqtt.Connect{CleanSession: true, ClientID: clientID, HasUsername: true, Username: "in-cse",
		HasPassword: true, Password: []byte("secret")})
	s.send(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{
		{Topic: "/oneM2M/req/+/in-cse/#", QoS: 2}, {Topic: "/oneM2M/reg_req/+/in-cse/#", QoS: 2}, {Topic: "/oneM2M/resp/in-cse/#", QoS: 2},
	}})
	for range 2 { // CONNACK and SUBACK
		if _, err := mqtt.Read(r, 100); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan *mqtt.Publish, 1000)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			p, err := mqtt.Read(r, 1<<20)
			if err != nil {
				return
			}
			switch p := p.(type) {
			case *mqtt.Publish:
				if p.QoS == 1 {
					s.send(&mqtt.Ack{Kind: mqtt.TypePuback, ID: p.ID})
				} else if p.QoS == 2 {
					s.send(&mqtt.Ack{Kind: mqtt.TypePubrec, ID: p.ID})
				}
				if !strings.HasPrefix(p.Topic, "/oneM2M/resp/") {
					echo(s, p)
				}
				got <- p
			case *mqtt.Ack:
				if p.Kind == mqtt.TypePubrel {
					s.send(&mqtt.Ack{Kind: mqtt.TypePubcomp, ID: p.ID})
				}
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
	return s, got
}

// mosquitto's own clients, with the KcId and Kc of a MAF Handshake for their
// --psk-identity and --psk, reach a CSE behind a real mosquitto, and no further
// than they may.
func TestMosquitto(t *testing.T) {
	addr, broker := mosquitto(t)
	f := newFixture(t, addr, policy.Config{}, nil)
	s, got := startCSE(t, addr, "C::in-cse")
	meter := f.tools(f.site.AE("meter7", meter7))
	other := f.tools(f.site.AE("meter8", "//sp.example.com/in-cse/Cmeter8"))

	t.Run("request and response", func(t *testing.T) {
		for _, qos := range []string{"0", "1", "2"} {
			p := meter.start("mosquitto_rr", "-W", "15", "-q", qos, "-t", meterReq, "-e", meterResp, "-m", retrieve("Cmeter7", "rr"+qos))
			code, out := p.ends(t)
			if code != 0 || !strings.Contains(out, `"rsc":2000`) || !strings.Contains(out, `"rqi":"rr`+qos) {
				t.Errorf("QoS %s: %d: %s", qos, code, out)
			}
			next(t, got)
		}
	})
	t.Run("subscriber and publisher", func(t *testing.T) {
		sub := meter.start("mosquitto_sub", "-C", "3", "-W", "15", "-t", "/oneM2M/resp/Cmeter7/#", "-q", "2", "-i", "sub")
		broker.says(t, "Sending SUBACK to A::in-cse:Cmeter7;sub\n")
		for _, qos := range []string{"0", "1", "2"} {
			if code, out := meter.start("mosquitto_pub", "-r", "-q", qos, "-t", meterReq, "-m", retrieve("Cmeter7", "q"+qos)).ends(t); code != 0 {
				t.Errorf("mosquitto_pub: %d: %s", code, out)
			}
			p := next(t, got)
			for name, parse := range parsers {
				if from, err := parse(p.Payload); err != nil || from != "Cmeter7" {
					t.Errorf("%s: %q, %v", name, from, err)
				}
			}
		}
		if code, out := sub.ends(t); code != 0 || !strings.Contains(out, `"rqi":"q0"`) || !strings.Contains(out, `"rqi":"q2"`) {
			t.Errorf("mosquitto_sub: %d: %s", code, out)
		}
	})
	t.Run("refusals", func(t *testing.T) {
		p := meter.start("mosquitto_rr", "-W", "15", "-q", "1", "-t", meterReq, "-e", meterResp, "-m", retrieve("Cmeter8", "spoof"))
		if code, out := p.ends(t); code != 0 || !strings.Contains(out, `"rsc":4106`) || !strings.Contains(out, `"rqi":"spoof"`) {
			t.Errorf("another's fr: %d: %s", code, out)
		}
		for _, topic := range []string{"/oneM2M/req/Cmeter8/in-cse/json", "/oneM2M/resp/in-cse/Cmeter8/json", "temperature"} {
			for _, qos := range []string{"0", "1", "2"} {
				// mosquitto_pub ends well: the message is acknowledged.
				if code, out := meter.start("mosquitto_pub", "-q", qos, "-t", topic, "-m", retrieve("Cmeter8", "spoof")).ends(t); code != 0 {
					t.Errorf("%s: %d: %s", topic, code, out)
				}
			}
		}
		for _, filter := range []string{"#", "/oneM2M/#", "/oneM2M/resp/Cmeter8/+/json", "$SYS/#", "$share/g//oneM2M/req/+/in-cse/json"} {
			sub := meter.start("mosquitto_sub", "-W", "15", "-t", filter)
			if code, out := sub.ends(t); !strings.Contains(out, "All subscription requests were denied") {
				t.Errorf("mosquitto_sub %s: %d: %s", filter, code, out)
			}
		}
		for _, version := range []string{"mqttv5", "mqttv31"} {
			p := meter.start("mosquitto_pub", "-V", version, "-t", meterReq, "-m", "x")
			if code, out := p.ends(t); code == 0 || !strings.Contains(strings.ToLower(out), "protocol version") {
				t.Errorf("%s: %d: %s", version, code, out)
			}
		}
	})
	t.Run("retained by the broker", func(t *testing.T) {
		_, again := startCSE(t, addr, "again") // a CSE that starts once more
		s.send(&mqtt.Publish{Topic: "/oneM2M/resp/in-cse/Cend/json", Payload: []byte("{}")})
		if p := next(t, again); p.Topic != "/oneM2M/resp/in-cse/Cend/json" {
			t.Errorf("the CSE gets %+v again", p)
		}
		next(t, got)
	})
	t.Run("sessions", func(t *testing.T) {
		// Two devices of one ClientID, each with a session that lasts.
		args := []string{"-c", "-i", "same", "-q", "1", "-W", "15", "-t"}
		first := meter.start("mosquitto_sub", append(args, "/oneM2M/req/+/Cmeter7/json")...)
		broker.says(t, "Sending SUBACK to A::in-cse:Cmeter7;same\n")
		second := other.start("mosquitto_sub", append(args, "/oneM2M/req/+/Cmeter8/json", "-C", "1")...)
		broker.says(t, "Sending SUBACK to A::in-cse:Cmeter8;same\n")
		first.cmd.Process.Kill()
		first.ends(t)
		for _, name := range []string{"Cmeter7", "Cmeter8"} {
			s.send(&mqtt.Publish{Topic: "/oneM2M/req/in-cse/" + name + "/json",
				Payload: []byte(`{"op":5,"to":"` + name + `","fr":"/in-cse","rqi":"n` + name + `"}`), QoS: 1, ID: 1})
		}
		if code, out := second.ends(t); code != 0 || !strings.Contains(out, "nCmeter8") || strings.Contains(out, "nCmeter7") {
			t.Errorf("second: %d: %s", code, out)
		}
		first = meter.start("mosquitto_sub", append(args, "/oneM2M/req/+/Cmeter7/json", "-C", "1")...)
		if code, out := first.ends(t); code != 0 || !strings.Contains(out, "nCmeter7") || strings.Contains(out, "nCmeter8") {
			t.Errorf("first: %d: %s", code, out)
		}
	})
	t.Run("will", func(t *testing.T) {
		will := []string{"-i", "mortal", "-t", meterResp, "--will-qos", "1", "--will-topic", meterReq, "--will-payload"}
		sub := meter.start("mosquitto_sub", append(will, retrieve("Cmeter7", "will"))...)
		broker.says(t, "Sending SUBACK to A::in-cse:Cmeter7;mortal\n")
		sub.cmd.Process.Kill()
		if p := next(t, got); !strings.Contains(string(p.Payload), "will") {
			t.Errorf("the CSE got %s", p.Payload)
		}
		bad := meter.start("mosquitto_sub", append(will, retrieve("Cmeter8", "will"))...)
		if code, out := bad.ends(t); code == 0 || !strings.Contains(out, "not authorised") {
			t.Errorf("another's: %d: %s", code, out)
		}
	})
	if n := len(got); n > 0 {
		t.Errorf("the CSE got %d messages more", n)
	}
}

func next(t *testing.T, got <-chan *mqtt.Publish) *mqtt.Publish {
	t.Helper()
	select {
	case p := <-got:
		return p
	case <-time.After(patience):
		t.Fatal("the CSE gets nothing")
		return nil
	}
}
