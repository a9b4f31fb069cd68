package cost

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/mafd"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

const (
	label    = "EXPORTER-oneM2M-Connection"
	identity = "meter7@maf.example.com"
	keyHex   = "7369787465656e2062797465732e2e2e"
)

var key = []byte("sixteen bytes...")

// serveEnv makes this test binary a server: "mafd" or, on the named network,
// a bare one.
const serveEnv = "MAF_COST_SERVE"

func TestMain(m *testing.M) {
	switch what := os.Getenv(serveEnv); what {
	case "":
		os.Exit(m.Run())
	case "mafd":
		os.Exit(mafd.Main(os.Args[1:], os.Stdout, os.Stderr))
	default:
		serve(what)
	}
}

// serve is a server with the engine and nothing else.
func serve(network string) {
	l, err := tlspsk.Listen(network, "127.0.0.1:0", &tlspsk.Config{
		GetPSK: func(context.Context, *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
			return &tlspsk.PSK{Key: key}, nil
		},
		VerifyConnection: func(_ context.Context, cs *tlspsk.ConnectionState) error {
			_, err := cs.ExportKeyingMaterial(label, nil, 48)
			return err
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("ready", l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if c.(*tlspsk.Conn).Handshake() == nil {
				io.Copy(io.Discard, c) // until the client closes
			}
		}()
	}
}

// A server is a process under measurement.
type server struct {
	pid  int
	addr string
}

// start runs a command until the benchmark ends. ready finds the server's
// address in what it prints.
func start(b *testing.B, cmd *exec.Cmd, ready func(line string) (addr string, ok bool)) *server {
	b.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdin, err := cmd.StdinPipe() // s_server ends at the end of its input
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); cmd.Process.Kill(); cmd.Wait() })
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if addr, ok := ready(lines.Text()); ok {
			go io.Copy(io.Discard, stdout)
			return &server{cmd.Process.Pid, addr}
		}
	}
	b.Fatalf("%s ended before it was ready", cmd.Path)
	return nil
}

func startEngine(b *testing.B, network string, _ uint16) *server {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveEnv+"="+network)
	cmd.Stderr = os.Stderr
	return start(b, cmd, func(line string) (string, bool) { return strings.CutPrefix(line, "ready ") })
}

// startOpenSSL runs OpenSSL as a server. Over TLS that is openssl s_server, which
// serves one client after the other. Over DTLS s_server stays connected to its
// first peer, so there it is libcoap's server, on OpenSSL.
func startOpenSSL(b *testing.B, network string, suite uint16) *server {
	if network == "udp" {
		return startLibcoap(b)
	}
	path, err := exec.LookPath("openssl")
	if err != nil {
		b.Skip("openssl is not installed: nothing to compare with")
	}
	cipher := map[uint16]string{
		tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256: "PSK-AES128-CBC-SHA256",
		tlspsk.TLS_PSK_WITH_AES_128_GCM_SHA256: "PSK-AES128-GCM-SHA256",

		tlspsk.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256: "ECDHE-PSK-CHACHA20-POLY1305",
	}[suite]
	args := []string{"s_server", "-accept", "127.0.0.1:0", "-nocert", "-psk", keyHex, "-tls1_2",
		"-cipher", cipher + ":@SECLEVEL=0", "-keymatexport", label, "-keymatexportlen", "48"}
	return start(b, exec.Command(path, args...), func(line string) (string, bool) { return strings.CutPrefix(line, "ACCEPT ") })
}

func startLibcoap(b *testing.B) *server {
	path, err := exec.LookPath("coap-server-openssl")
	if err != nil {
		b.Skip("libcoap3-bin is not installed: nothing to compare with")
	}
	// Plain CoAP listens on the port below.
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := c.LocalAddr().(*net.UDPAddr).Port
	c.Close()
	cmd := exec.Command(path, "-A", "127.0.0.1", "-p", strconv.Itoa(port), "-k", string(key), "-h", "hint")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &server{cmd.Process.Pid, net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))}
}

// cpu returns the processor time that a process has used, in microseconds.
func cpu(b *testing.B, pid int) float64 {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		b.Skip("no /proc here: processor time can't be read")
	}
	// Behind the name, which may hold anything but ends with the last ")",
	// utime and stime are the fields 14 and 15 of proc(5), in ticks of 10 ms.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var ticks float64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseFloat(f, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return ticks * 10_000
}

// load does b.N handshakes, parallel at a time, and reports the server's
// processor time for each.
func load(b *testing.B, s *server, network string, parallel int, config func(i int) *tlspsk.Config) {
	for i := range 20 { // warm
		if err := once(s, network, config(i)); err != nil {
			b.Fatal(err)
		}
	}
	before := cpu(b, s.pid)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				if err := once(s, network, config(int(i))); err != nil {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		b.Fatalf("%d of %d handshakes failed", n, b.N)
	}
	b.ReportMetric((cpu(b, s.pid)-before)/float64(b.N), "server-us/handshake")
	b.ReportMetric(0, "ns/op") // the client's and the machine's time says nothing
}

func once(s *server, network string, config *tlspsk.Config) error {
	c, err := tlspsk.Dial(network, s.addr, config)
	// A server that does not say when it is ready isn't, for a moment.
	for try := 0; errors.Is(err, syscall.ECONNREFUSED) && try < 2000; try++ {
		time.Sleep(time.Millisecond)
		c, err = tlspsk.Dial(network, s.addr, config)
	}
	if err != nil {
		return err
	}
	return c.Close()
}

// startMAF runs mafd with clients registered, and returns them as
// configurations.
func startMAF(b *testing.B, network, level string, suite uint16) (*server, []*tlspsk.Config) {
	dir, err := os.MkdirTemp("", "maf-cost-") // short: there is a socket in it
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "mafd.toml")
	text := fmt.Sprintf("state = %q\nfqdns = [\"maf.example.com\"]\n"+
		"handshake = { tls = [\"127.0.0.1:0\"], dtls = [\"127.0.0.1:0\"] }\n"+
		"keyapi.listen = [\"127.0.0.1:0\"]\nlog.level = %q\n", dir, level)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-config", config)
	cmd.Env = append(os.Environ(), serveEnv+"=mafd")
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	r, err := adminapi.ReadRuntime(dir)
	for try := 0; err != nil && try < 500; try++ {
		time.Sleep(10 * time.Millisecond)
		r, err = adminapi.ReadRuntime(dir)
	}
	if err != nil {
		b.Fatalf("mafd does not start: %v", err)
	}
	s := &server{r.PID, r.TLS[0]}
	if network == "udp" {
		s.addr = r.DTLS[0]
	}
	return s, register(b, r.Admin, suite)
}

// register adds clients to mafd.
func register(b *testing.B, socket string, suite uint16) []*tlspsk.Config {
	const clients, parallel = 2000, 64
	admin := adminapi.Open(socket)
	configs := make([]*tlspsk.Config, clients)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range parallel {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < clients; i = next.Add(1) - 1 {
				id := onem2m.KmID{Relative: fmt.Sprintf("meter%d", i), FQDN: "maf.example.com"}
				new := adminapi.NewClient{Km: adminapi.Key{Key: secret.New(key)}}
				new.KmID, new.EntityB = id, onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
				if _, err := admin.Add(b.Context(), new); err != nil {
					b.Error(err)
					return
				}
				configs[i] = clientConfig(suite)
				configs[i].Identity = []byte(id.String())
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
	return configs
}

// BenchmarkMAF compares mafd, which commits every key before it answers, with
// the engine alone, at the same number of clients at a time.
func BenchmarkMAF(b *testing.B) {
	const parallel = 256
	for _, s := range suites {
		b.Run(s.name+"/engine", func(b *testing.B) {
			config := clientConfig(s.suite)
			load(b, startEngine(b, s.network, s.suite), s.network, parallel, func(int) *tlspsk.Config { return config })
		})
		for _, level := range []string{"warn", "info"} {
			b.Run(s.name+"/mafd/log="+level, func(b *testing.B) {
				server, configs := startMAF(b, s.network, level, s.suite)
				load(b, server, s.network, parallel, func(i int) *tlspsk.Config { return configs[i%len(configs)] })
			})
		}
	}
}

func clientConfig(suite uint16) *tlspsk.Config {
	return &tlspsk.Config{Identity: []byte(identity), Key: key, CipherSuites: []uint16{suite}, ServerName: "maf.example.com"}
}

var suites = []struct {
	name, network string
	suite         uint16
}{
	{"TLS-CBC", "tcp", tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256},
	{"TLS-GCM", "tcp", tlspsk.TLS_PSK_WITH_AES_128_GCM_SHA256},
	{"TLS-ECDHE", "tcp", tlspsk.TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256},
	{"DTLS-CCM_8", "udp", tlspsk.TLS_PSK_WITH_AES_128_CCM_8},
}

// BenchmarkServer compares the engine with OpenSSL's. openssl s_server serves one
// client at a time: so both do, and the engine also with 16 at a time.
func BenchmarkServer(b *testing.B) {
	for _, s := range suites {
		config := clientConfig(s.suite)
		for _, c := range []struct {
			name     string
			parallel int
			start    func(*testing.B, string, uint16) *server
		}{
			{"openssl", 1, startOpenSSL},
			{"tlspsk", 1, startEngine},
			{"tlspsk", 16, startEngine},
		} {
			b.Run(fmt.Sprintf("%s/%s/parallel=%d", s.name, c.name, c.parallel), func(b *testing.B) {
				load(b, c.start(b, s.network, s.suite), s.network, c.parallel, func(int) *tlspsk.Config { return config })
			})
		}
	}
}
