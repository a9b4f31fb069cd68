package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

const (
	mafFQDN = "maf.example.com"
	cse     = "//sp.example.com/in-cse"
)

// A maf is a running mafd, made by the programs that an operator has.
type maf struct {
	runtime  adminapi.Runtime
	programs string // folder of mafd and maf
	dir      string
}

// programs builds mafd and maf, once for all tests of the run, in the folder that TestMain removes.
var programs = sync.OnceValues(func() (dir string, err error) {
	dir = scratch
	cmd := exec.Command("go", "build", "-o", dir, "github.com/onem2m-maf/maf/cmd/mafd", "github.com/onem2m-maf/maf/cmd/maf")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("%v\n%s", err, out)
	}
	return dir, nil
})

// startMAF starts mafd with a configuration file and an empty state, and ends it with the test.
func startMAF(t *testing.T) *maf {
	t.Helper()
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "maf-") // a test's own folder can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "mafd.toml")
	text := fmt.Sprintf("state = \"state\"\nfqdns = [%q]\nkeyapi.listen = [\"127.0.0.1:0\"]\n"+
		"[handshake]\ntls = [\"127.0.0.1:0\"]\ndtls = [\"127.0.0.1:0\"]\n", mafFQDN)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(bin, "mafd"), "-config", config)
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("mafd: %v\n%s", err, &log)
		}
	})
	m := &maf{programs: bin, dir: dir}
	for range 1000 {
		if m.runtime, err = adminapi.ReadRuntime(filepath.Join(dir, "state")); err == nil {
			return m
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("mafd ended: %v\n%s", err, &log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("mafd does not listen")
	return nil
}

// tool runs the maf program.
func (m *maf) tool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(m.programs, "maf"), args...)
	cmd.Env = append(os.Environ(), adminapi.SocketVariable+"="+m.runtime.Admin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("maf %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// addClient provisions a device as an operator does, and returns its master key.
func (m *maf) addClient(t *testing.T, kmID string, flags ...string) []byte {
	t.Helper()
	file := filepath.Join(m.dir, strings.ReplaceAll(kmID, "@", "-")+".km")
	m.tool(t, append([]string{"client", "add", kmID, "--entity-b", cse, "--km-out", file}, flags...)...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	km, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return km
}

// address is where devices find the MAF.
func (m *maf) address(network string) string {
	if network == "tcp" {
		return m.runtime.TLS[0]
	}
	return m.runtime.DTLS[0]
}

// An entityB greets each peer by the name that the MAF gave it, and then echoes as package
// peers wants it.
type entityB struct {
	addr     map[string]string // by network
	accepted chan saef.Association
}

// startEntityB starts Entity B on both transports, with a certificate from `maf entity-b add`.
func startEntityB(t *testing.T, m *maf) *entityB {
	t.Helper()
	folder := filepath.Join(m.dir, "in-cse")
	m.tool(t, "entity-b", "add", cse, "--out", folder)
	certificate, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(folder, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	refused := new(refusals)
	t.Cleanup(func() { refused.logTo(t) })
	b := &saef.EntityB{
		MAFs:        map[onem2m.FQDN]string{mafFQDN: "https://" + m.runtime.KeyAPI[0]},
		Certificate: certificate,
		RootCAs:     roots,
		OnRefused:   refused.add,
	}
	e := &entityB{addr: make(map[string]string), accepted: make(chan saef.Association, 16)}
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the listeners are closed
	for _, network := range []string{"tcp", "udp"} {
		l, err := b.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		e.addr[network] = l.Addr().String()
		serving.Go(func() { e.serve(network, l) })
		t.Cleanup(func() { l.Close() })
	}
	t.Cleanup(func() { b.Close() })
	return e
}

// refusals collects why Entity B failed handshakes, to be shown when a test fails.
type refusals struct {
	mu   sync.Mutex
	list []saef.Refusal // guarded by mu
}

func (r *refusals) add(refusal saef.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, refusal)
}

func (r *refusals) logTo(t *testing.T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, refusal := range r.list {
		t.Logf("Entity B refused %q: %v", refusal.Identity, refusal.Err)
	}
}

func (e *entityB) serve(network string, l *saef.Listener) {
	for {
		c, err := l.AcceptAssociation()
		if err != nil {
			return
		}
		e.accepted <- c.Association()
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(peers.Limit))
			buf := make([]byte, 64<<10)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				reply, _ := pingPong.answer(network, buf[:n])
				if bytes.HasPrefix(buf[:n], []byte("hello")) {
					reply = fmt.Appendf(nil, "hello %s\n", c.Association().Peer())
				}
				if _, err := c.Write(reply); err != nil {
					return
				}
			}
		}()
	}
}

// next is the association of the device that connected last.
func (e *entityB) next(t *testing.T) saef.Association {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), peers.Limit)
	defer cancel()
	select {
	case a := <-e.accepted:
		return a
	case <-ctx.Done():
		t.Fatal("no association")
		return saef.Association{}
	}
}
