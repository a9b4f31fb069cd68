package flood

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// TestBlackout: all devices of a city begin their MAF Handshakes at once, when
// the power is back. Each gets its key, in the end.
func TestBlackout(t *testing.T) {
	needs(t, 0)
	n := size(1000, 20_000)
	v := startMAF(t, "")
	begin := time.Now()
	keys := v.register(t, n)
	t.Logf("%d devices registered in %v", n, time.Since(begin).Round(time.Millisecond))
	for _, network := range []string{"tcp", "udp"} {
		for _, oneSource := range []bool{false, true} {
			name := network + "/many sources"
			if oneSource {
				name = network + "/one source"
			}
			t.Run(name, func(t *testing.T) { blackout(t, v, network, oneSource, keys) })
		}
	}
	t.Log(v.turnedAway(t))
}

func blackout(t *testing.T, v *victim, network string, oneSource bool, keys []secret.Key) {
	// Each device has an open socket, so it takes some processes to play all.
	perProcess := min(5000, openFiles(t)-spareFiles)
	var crowds []*crowdProcess
	for first := 0; first < len(keys); first += perProcess {
		order := crowdOrder{Network: network, To: v.address(network), First: first, OneSource: oneSource}
		for _, km := range keys[first:min(len(keys), first+perProcess)] {
			order.Keys = append(order.Keys, km.Bytes())
		}
		crowds = append(crowds, startCrowd(t, order))
	}
	cpu := v.cpu(t)
	for _, c := range crowds {
		c.start(t)
	}
	var devices []deviceReport
	for _, c := range crowds {
		devices = append(devices, c.finish(t)...)
	}
	cpu = v.cpu(t) - cpu

	var took []time.Duration
	tries, most := 0, 0
	for i, d := range devices {
		if d.KcID == (onem2m.KcID{}) {
			t.Errorf("device %d has no key after %d tries in %v: %s", i, d.Tries, d.Took, d.Error)
		}
		took = append(took, d.Took)
		tries += d.Tries
		most = max(most, d.Tries)
	}
	slices.Sort(took)
	at := func(share float64) time.Duration {
		return took[min(len(took)-1, int(share*float64(len(took))))].Round(time.Millisecond)
	}
	t.Logf("%d devices: all done after %v, p50 %v, p99 %v; %.2f tries each, at most %d; %v of mafd's processor time each; mafd's memory: at most %d MiB",
		len(devices), at(1), at(0.5), at(0.99), float64(tries)/float64(len(devices)), most,
		(cpu / time.Duration(len(devices))).Round(time.Microsecond), v.peak(t)>>10)
	if t.Failed() {
		t.Log(v.log(t))
	}
	checkStored(t, v, devices)
}

// checkStored asks the key API for some of the keys.
func checkStored(t *testing.T, v *victim, devices []deviceReport) {
	client := v.keyAPI(t)
	defer client.CloseIdleConnections()
	for range 200 {
		i := rand.IntN(len(devices))
		key, err := client.Get(t.Context(), devices[i].KcID)
		if err != nil {
			t.Fatalf("device %d: %v", i, err)
		}
		if key.KmID != meter(i) {
			t.Errorf("the key of device %d is %v's", i, key.KmID)
		}
	}
}

// A crowdProcess is a process that plays devices.
type crowdProcess struct {
	cmd *exec.Cmd
	in  *json.Encoder
	out *json.Decoder
}

func startCrowd(t *testing.T, order crowdOrder) *crowdProcess {
	t.Helper()
	c := &crowdProcess{cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), playEnv+"=devices")
	c.cmd.Stderr = os.Stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.cmd.Process.Kill(); c.cmd.Wait() })
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(out)
	var ready string
	if err := c.in.Encode(order); err != nil {
		t.Fatal(err)
	}
	if err := c.out.Decode(&ready); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *crowdProcess) start(t *testing.T) {
	t.Helper()
	if err := c.in.Encode("go"); err != nil {
		t.Fatal(err)
	}
}

func (c *crowdProcess) finish(t *testing.T) crowdReport {
	t.Helper()
	var report crowdReport
	if err := c.out.Decode(&report); err != nil {
		t.Fatal(fmt.Errorf("a crowd does not report: %w", err))
	}
	io.Copy(io.Discard, c.out.Buffered())
	return report
}
