package tlspsk

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// longRun reports whether the long form of the tests is wanted.
func longRun() bool { return os.Getenv("MAF_LONG") != "" }

// A badNet says how bad a network is.
type badNet struct {
	name             string
	loss, dup, flaws float64       // parts of the datagrams: lost, doubled, with a flipped bit
	delay            time.Duration // at most; random for each, so that they overtake each other
	mtu              int           // longer datagrams are lost; 0 for no limit
	timeout          time.Duration // of the handshake; 0 for the default

	// least is the part of handshakes that must succeed within the timeout.
	least float64
	// most is how many datagrams a handshake may take, on average, both
	// directions together.
	most float64
}

// The bounds leave room below what was measured; docs/engine-evidence.md has the
// figures. A flipped bit in an unprotected message, which UDP's checksum would
// have caught, can't be found before the Finished: those handshakes fail.
var badNets = []badNet{
	{name: "clean", least: 1, most: 6},
	{name: "loss 10 %", loss: .1, least: .98, most: 9},
	{name: "loss 30 %", loss: .3, least: .85, most: 16},
	{name: "loss 50 %", loss: .5, least: .35, most: 20},
	{name: "loss 50 %, 2 min", loss: .5, timeout: 2 * time.Minute, least: .55, most: 30},
	{name: "doubled 50 %", dup: .5, least: 1, most: 12},
	{name: "delay to 3 s", delay: 3 * time.Second, least: .97, most: 22},
	{name: "MTU 256", mtu: 256, least: 1, most: 24},
	{name: "bit flips 10 %", flaws: .1, least: .70, most: 12},
	{name: "all at once", loss: .2, dup: .2, flaws: .05, delay: time.Second, mtu: 400, least: .75, most: 30},
}

// filter returns the network's faults as a simNet's filter. Delayed datagrams
// are delivered by goroutines of the bubble.
func (b badNet) filter(n *simNet, seed uint64) func(from, to netip.AddrPort, p []byte) [][]byte {
	r := rand.New(rand.NewPCG(seed, 1))
	return func(from, to netip.AddrPort, p []byte) [][]byte {
		copies := 1
		if b.mtu != 0 && len(p) > b.mtu || r.Float64() < b.loss {
			return nil
		}
		if r.Float64() < b.dup {
			copies = 2
		}
		for range copies {
			p := bytes.Clone(p)
			if r.Float64() < b.flaws {
				p[r.IntN(len(p))] ^= 1 << r.IntN(8)
			}
			var delay time.Duration
			if b.delay > 0 {
				delay = time.Duration(r.Int64N(int64(b.delay)))
			}
			time.AfterFunc(delay, func() { n.deliver(from, to, p) })
		}
		return nil
	}
}

// TestBadNetworks does many handshakes, one after the other, over each
// network, and sends data over each session that comes to be. With MAF_LONG
// set it does ten times as many, and reports.
func TestBadNetworks(t *testing.T) {
	handshakes := 100
	if longRun() {
		handshakes = 2000
	}
	for _, b := range badNets {
		t.Run(b.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testBadNetwork(t, b, handshakes) })
		})
	}
}

func testBadNetwork(t *testing.T, b badNet, handshakes int) {
	n := newSimNet()
	cc, sc := clientConfig(), serverConfig()
	cc.HandshakeTimeout, sc.HandshakeTimeout = b.timeout, b.timeout
	l, conns := simListen(t, n, sc)
	n.setFilter(b.filter(n, 1))
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case a := <-conns:
				if a.err == nil {
					go echoServer(a.conn)
				}
			case <-stop:
				return
			}
		}
	}()
	var times []time.Duration
	var echoed int
	for i := range handshakes {
		client := simDial(n, fmt.Sprintf("198.51.100.7:%d", 1024+i), cc)
		start := time.Now()
		if err := client.Handshake(); err == nil {
			times = append(times, time.Since(start))
			if askEcho(client) {
				echoed++
			}
		}
		client.Close()
		time.Sleep(5 * time.Minute) // what is under way arrives or dies
	}
	success := float64(len(times)) / float64(handshakes)
	// Data and alerts are a few datagrams more; they count as the handshake's.
	perHandshake := float64(n.sentSoFar()) / float64(handshakes)
	slices.Sort(times)
	t.Logf("%-16s success %5.1f %%, data after it %5.1f %%, time p50 %v p99 %v, %.1f datagrams a session",
		b.name, 100*success, 100*float64(echoed)/float64(max(1, len(times))),
		times[len(times)/2].Round(time.Millisecond), times[len(times)*99/100].Round(time.Millisecond), perHandshake)
	if success < b.least {
		t.Errorf("%.3f succeeded, want %.3f", success, b.least)
	}
	if perHandshake > b.most+6 {
		t.Errorf("%.1f datagrams for each, want at most %.1f", perHandshake, b.most+6)
	}
	close(stop)
	l.Close()
}

// echoServer answers what it gets until it has been idle for a while.
func echoServer(c *Conn) {
	defer c.Close()
	b := make([]byte, 100)
	for {
		c.SetReadDeadline(time.Now().Add(3 * time.Minute)) // the client may still miss our Finished
		n, err := c.Read(b)
		if err != nil {
			return
		}
		c.Write(b[:n])
	}
}

// askEcho sends a line up to ten times until it comes back.
func askEcho(c *Conn) bool {
	b := make([]byte, 100)
	for range 10 {
		c.Write([]byte("are you there?"))
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if n, err := c.Read(b); err == nil && string(b[:n]) == "are you there?" {
			return true
		}
	}
	return false
}
