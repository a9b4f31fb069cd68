package mafd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// TestKill kills mafd with SIGKILL at random moments under load, again and
// again, and then finds every Kc whose handshake a client saw complete, and
// every client whose registration was confirmed, by asking a mafd that was
// started on what the killed one left.
//
// MAF_KILLS says how often; a long run has hundreds.
func TestKill(t *testing.T) {
	kills := 25
	if s := os.Getenv("MAF_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatalf("MAF_KILLS: %v", err)
		}
	}
	k := newKiller(t)
	slowest := time.Duration(0)
	for range kills {
		slowest = max(slowest, k.round())
	}
	k.start()
	k.verify(k.issued)
	k.verifyClients()
	k.process.terminate(t)
	t.Logf("%d kills: all %d keys and %d clients that were confirmed are there; the slowest start took %v",
		kills, len(k.issued), len(k.added), slowest.Round(time.Millisecond))
	if len(k.issued) < kills {
		t.Errorf("only %d keys were issued: there was no load", len(k.issued))
	}
}

// loaders is how many devices do handshakes all the time, half of them over
// each transport.
const loaders = 8

// A killer has a mafd on one state folder, over and over.
type killer struct {
	t       *testing.T
	random  *rand.Rand
	config  string // file
	state   string // folder
	process *mafdProcess
	*testMAF

	certificate tls.Certificate // Entity B's
	km          [loaders]secret.Key

	mu     sync.Mutex
	issued []saef.Key    // guarded by mu: what clients saw complete
	added  []onem2m.KmID // guarded by mu: what the admin API confirmed
}

func newKiller(t *testing.T) *killer {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := shortDir(t)
	k := &killer{t: t, random: rand.New(rand.NewPCG(seed, 0)),
		config: filepath.Join(dir, "mafd.toml"), state: filepath.Join(dir, "state")}
	const text = `
state = "state"
fqdns = ["maf.example.com"]
log.level = "error"
handshake = { tls = ["127.0.0.1:0"], dtls = ["127.0.0.1:0"] }
keyapi.listen = ["127.0.0.1:0"]
`
	if err := os.WriteFile(k.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	k.start()
	k.certificate = k.testMAF.certificate(t, cityCSE)
	for i := range k.km {
		k.km[i] = k.add(t, fmt.Sprintf("loader%d@maf.example.com", i), nil)
	}
	k.process.kill(t)
	return k
}

// start starts mafd and waits until it listens. It returns how long that took.
func (k *killer) start() time.Duration {
	k.t.Helper()
	begin := time.Now()
	k.process = startProcess(k.t, k.config)
	runtime := k.process.await(k.t, k.state)
	took := time.Since(begin)
	k.testMAF = &testMAF{&Daemon{Runtime: runtime}, adminapi.Open(runtime.Admin), nil}
	return took
}

// round starts mafd, checks what it knows of the round before, puts it under
// load and kills it.
func (k *killer) round() time.Duration {
	if k.random.IntN(5) == 0 { // some die before they listen
		p := startProcess(k.t, k.config)
		time.Sleep(time.Duration(k.random.IntN(60)) * time.Millisecond)
		p.kill(k.t)
	}
	took := k.start()
	last := len(k.issued) - min(len(k.issued), 50)
	k.verify(k.issued[last:]) // the youngest are in danger; all follow at the end

	ctx, cancel := context.WithCancel(k.t.Context())
	defer cancel()
	var load sync.WaitGroup
	for i := range loaders {
		load.Go(func() { k.handshakes(ctx, i) })
	}
	load.Go(func() { k.register(ctx) })
	time.Sleep(time.Duration(k.random.IntN(150)) * time.Millisecond)
	k.process.kill(k.t)
	cancel()
	load.Wait()
	return took
}

// handshakes does one after the other until ctx ends, and notes the keys of
// those that it saw complete.
func (k *killer) handshakes(ctx context.Context, i int) {
	network := [...]string{"tcp", "udp"}[i%2]
	device := &saef.Device{
		MAF: k.address(network), MAFNetwork: network,
		KmID: onem2m.KmID{Relative: fmt.Sprintf("loader%d", i), FQDN: served}, Km: k.km[i],
		Config: &tlspsk.Config{RetransmitTimeout: quickly},
	}
	for ctx.Err() == nil {
		key, err := device.Handshake(ctx)
		if err != nil {
			var alert *tlspsk.AlertError
			if errors.As(err, &alert) {
				k.t.Errorf("handshake: %v", err) // being killed is no excuse for a wrong answer
				return
			}
			continue
		}
		k.mu.Lock()
		k.issued = append(k.issued, key)
		k.mu.Unlock()
	}
}

// register adds clients until ctx ends.
func (k *killer) register(ctx context.Context) {
	for ctx.Err() == nil {
		id := onem2m.KmID{Relative: fmt.Sprintf("new%x", rand.Uint64()), FQDN: served}
		_, err := k.admin.Add(ctx, adminapi.NewClient{Client: adminapi.Client{
			KmID: id, EntityB: onem2m.CSEID{SP: "city.example", ID: "in-cse"}}})
		if err != nil {
			var refusal *adminapi.Error
			if errors.As(err, &refusal) {
				k.t.Errorf("add: %v", err)
				return
			}
			continue
		}
		k.mu.Lock()
		k.added = append(k.added, id)
		k.mu.Unlock()
	}
}

// verify asks the key API for the keys.
func (k *killer) verify(keys []saef.Key) {
	k.t.Helper()
	client := k.keys(k.t, k.certificate)
	defer client.CloseIdleConnections()
	for _, want := range keys {
		got, err := client.Get(k.t.Context(), want.KcID)
		if err != nil {
			k.t.Fatalf("a key is lost: %v: %v", want.KcID, err)
		}
		if !got.Kc.Equal(want.Kc) {
			k.t.Fatalf("a key is another: %v", want.KcID)
		}
	}
}

// verifyClients asks the admin API for the clients.
func (k *killer) verifyClients() {
	k.t.Helper()
	listed := make(map[onem2m.KmID]bool)
	for c, err := range k.admin.All(k.t.Context(), adminapi.Filter{}, onem2m.KmID{}) {
		if err != nil {
			k.t.Fatal(err)
		}
		listed[c.KmID] = true
	}
	for _, id := range k.added {
		if !listed[id] {
			k.t.Errorf("a client is lost: %v", id)
		}
	}
}

// A mafdProcess is a mafd that can be killed.
type mafdProcess struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	log  *lockedBuffer
}

func startProcess(t *testing.T, config string) *mafdProcess {
	t.Helper()
	return runProcess(t, exec.Command(os.Args[0], "-config", config))
}

// runProcess starts a command that becomes a mafd.
func runProcess(t *testing.T, cmd *exec.Cmd) *mafdProcess {
	t.Helper()
	p := &mafdProcess{cmd: cmd, done: make(chan struct{}), log: &lockedBuffer{}}
	p.cmd.Env = append(os.Environ(), asProcess+"=1")
	p.cmd.Stderr = p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() { p.kill(t) })
	return p
}

// await waits until the process listens.
func (p *mafdProcess) await(t *testing.T, state string) adminapi.Runtime {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		// A killed mafd leaves its file behind.
		if r, err := adminapi.ReadRuntime(state); err == nil && r.PID == p.cmd.Process.Pid {
			return r
		}
		select {
		case <-p.done:
			t.Fatalf("mafd ended: %v\n%s", p.cmd.ProcessState, p.log)
		default:
		}
	}
	t.Fatalf("mafd does not listen\n%s", p.log)
	panic("unreachable")
}

func (p *mafdProcess) kill(t *testing.T) {
	p.cmd.Process.Kill() // an error means that it has ended
	<-p.done
}

// terminate asks the process to end, and demands that it does so in order.
func (p *mafdProcess) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatal("mafd does not end")
	}
	if code := p.cmd.ProcessState.ExitCode(); code != exitOK {
		t.Errorf("mafd ended with %v\n%s", p.cmd.ProcessState, p.log)
	}
}
