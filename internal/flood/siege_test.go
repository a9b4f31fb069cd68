package flood

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A siege is one attack on one mafd.
type siege struct {
	// places is mafd's max_concurrent, and other what its [handshake] table has
	// beside it.
	places int
	other  string
	// neighbour puts one more honest device behind the attacker's address.
	neighbour net.IP
	// files is how many the attack has open at once.
	files int
	// attack returns when what it has sent is sent. What it holds open it
	// gives to hold.
	attack func(t *testing.T, v *victim, hold func(net.Conn))
	// bothered is how many in a hundred tries of honest devices may fail.
	bothered float64
}

const (
	// What mafd has when nothing happens, and what each place may cost: both
	// generous, since how much the garbage collector leaves is its own affair.
	idleMemory     = 64 << 10 // KiB
	memoryPerPlace = 32       // KiB
	idleGoroutines = 100
)

// run does the siege and reports it.
func (s siege) run(t *testing.T) {
	needs(t, s.files)
	v := startMAF(t, fmt.Sprintf("max_concurrent = %d\n%s", s.places, s.other))
	keys := v.register(t, 8)
	tcp, udp := startHonest(t, v, "tcp", keys[:4], 0), startHonest(t, v, "udp", keys[4:], 4)
	if s.neighbour != nil {
		tcp.add("tcp", s.neighbour, v.address("tcp"), config(0, keys[0]))
		udp.add("udp", s.neighbour, v.address("udp"), config(4, keys[4]))
	}
	watch(tcp, udp)
	before, cpu := v.peak(t), v.cpu(t)
	calm := [2]outcome{tcp.reset(), udp.reset()}

	var mu sync.Mutex
	var held []net.Conn
	begin := time.Now()
	s.attack(t, v, func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, c)
	})
	took := time.Since(begin)
	goroutines := v.countGoroutines(t)
	cpu = v.cpu(t) - cpu
	watch(tcp, udp) // those inside stay, the honest go on
	storm := [2]outcome{tcp.stop(), udp.stop()}
	for _, c := range held {
		c.Close()
	}

	t.Logf("attack: %v, %v of mafd's processor time", took.Round(time.Millisecond), cpu)
	t.Logf("memory: %d MiB before, at most %d; goroutines at the end of the attack: %d", before>>10, v.peak(t)>>10, goroutines)
	for i, network := range []string{"tcp", "udp"} {
		t.Logf("%s before: %v", network, calm[i])
		t.Logf("%s during: %v", network, storm[i])
		if share := 100 * (1 - storm[i].rate()); share > s.bothered || len(storm[i].took) == 0 {
			t.Errorf("%s: %.2f %% of the tries of honest devices failed: %v", network, share, storm[i].failed)
		}
	}
	if most := idleMemory + 2*s.places*memoryPerPlace; v.peak(t) > most {
		t.Errorf("mafd took %d MiB, %d places should cost at most %d", v.peak(t)>>10, s.places, most>>10)
	}
	// A goroutine for each handshake, and for each session of the honest.
	if most := idleGoroutines + 2*(s.places+s.places/8); goroutines > most {
		t.Errorf("mafd had %d goroutines, %d places should need at most %d", goroutines, s.places, most)
	}
	t.Log(v.turnedAway(t))
}

// watch returns when the honest were watched for a while, before or after an
// attack, and each of them has had time for a try. On a busy machine that takes
// longer than the while: those who hold places are only shed after 0.25 s.
func watch(honest ...*honest) {
	time.Sleep(time.Duration(size(300, 2000)) * time.Millisecond)
	for _, h := range honest {
		for give := time.Now().Add(attemptTime); h.tries() < 4 && time.Now().Before(give); {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// turnedAway is the last line in mafd's log about those who were, for each
// transport.
func (v *victim) turnedAway(t *testing.T) string {
	v.stop(t) // which says what was not said yet
	var tls, dtls string
	for line := range strings.Lines(v.log(t)) {
		if _, text, ok := strings.Cut(line, `msg="handshakes turned away" `); !ok {
			continue
		} else if strings.Contains(text, "transport=dtls") {
			dtls = "\n" + strings.TrimSpace(text)
		} else {
			tls = "\n" + strings.TrimSpace(text)
		}
	}
	return "turned away:" + tls + dtls
}

// each does something n times, some of them at once, and stops at the first
// error.
func each(t *testing.T, n int, do func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

// dropped returns how many datagrams the kernel has thrown away because mafd's
// socket was full.
func (v *victim) dropped(t *testing.T) string {
	_, port, err := net.SplitHostPort(v.DTLS[0])
	if err != nil {
		t.Fatal(err)
	}
	var n int
	fmt.Sscanf(port, "%d", &n)
	text, err := os.ReadFile("/proc/net/udp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", n)) {
			return fields[len(fields)-1]
		}
	}
	return "unknown"
}
