package admission

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// enter is Enter for those who must get in.
func enter(t *testing.T, g *Gate, from netip.Prefix, cut func()) *Handshake {
	t.Helper()
	if cut == nil {
		cut = func() { t.Errorf("a handshake of %v was cut", from) }
	}
	h, err := g.Enter(from, cut)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// check compares what the gate holds with what its counters say.
func check(t *testing.T, g *Gate) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	counted := make(map[netip.Prefix]int)
	for i, h := range g.open {
		counted[h.source]++
		if h.at != i || h.shed {
			t.Fatalf("handshake %d thinks that it is %d", i, h.at)
		}
	}
	if len(counted) != len(g.sources) {
		t.Fatalf("%d sources, the gate has %d", len(counted), len(g.sources))
	}
	for s, n := range counted {
		if g.sources[s] != n {
			t.Fatalf("%v has %d, not %d", s, n, g.sources[s])
		}
	}
	if most := g.config.Total + g.config.Total/8 + 1; g.stats.Peak > most || g.stats.UnderWay > g.stats.Peak {
		t.Fatalf("%+v, at most %d should be", g.stats, most)
	}
}

// TestShedsTheCrowd: one source that holds on to all it can get sheds its own,
// the older ones, and nobody else's.
func TestShedsTheCrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 400
		g := NewGate(Config{Total: total})
		var honest, crowd []*Handshake
		var cut []int
		join := func() {
			n := len(crowd)
			crowd = append(crowd, enter(t, g, source(1000), func() { cut = append(cut, n) }))
		}
		for range total {
			join()
			time.Sleep(time.Millisecond)
		}
		if len(cut) > 0 {
			t.Fatalf("%d were cut before the house was full", len(cut))
		}
		for n := range 3000 {
			time.Sleep(time.Millisecond)
			if n%5 == 0 {
				honest = append(honest, enter(t, g, source(n), nil))
			} else {
				join()
			}
			if len(honest) > 20 { // an honest handshake takes 100 ms
				if !honest[0].Commit() {
					t.Fatal("an honest handshake was shed")
				}
				honest[0].Leave(false)
				honest = honest[1:]
			}
			for _, n := range cut {
				if h := crowd[n]; h != nil {
					if h.Commit() {
						t.Fatal("a handshake that was cut may go on")
					}
					h.Leave(true)
					crowd[n] = nil
				}
			}
			check(t, g)
		}
		for i, n := range cut { // none was of the youngest quarter
			if n > i+total*3/4 {
				t.Errorf("number %d was cut, while older ones stayed", n)
			}
		}
		if s := g.Stats(); s.Failed != 0 || s.Shed != uint64(len(cut)) || s.UnderWay > total {
			t.Errorf("%+v", s)
		}
	})
}

// TestAuthenticatedStay: what is authenticated is never shed. When all are,
// newcomers wait until one has left.
func TestAuthenticatedStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Total: 4})
		var inside []*Handshake
		for range 4 {
			h := enter(t, g, source(1), nil)
			for range 2 { // the second does nothing
				if !h.Commit() {
					t.Error("Commit refuses")
				}
			}
			inside = append(inside, h)
		}
		entered := make(chan *Handshake)
		for n := range 2 {
			go func() { entered <- enter(t, g, source(2+n), func() {}) }()
		}
		synctest.Wait()
		select {
		case <-entered:
			t.Fatal("a newcomer got in although nobody could go")
		default:
		}
		inside[0].Leave(false)
		<-entered
		// The second takes the place of the first, which is not authenticated.
		synctest.Wait()
		if h := <-entered; h == nil || g.Stats().Shed != 1 {
			t.Errorf("%+v", g.Stats())
		}
		check(t, g)
	})
}

// TestShedAreBounded: those who were cut count until they have left.
func TestShedAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total = 64
		g := NewGate(Config{Total: total})
		cut := make(chan struct{}, 1000)
		done := make(chan struct{})
		for range 500 {
			go func() {
				h := enter(t, g, source(1), func() { cut <- struct{}{} })
				<-done
				h.Leave(true)
			}()
		}
		time.Sleep(time.Minute) // nobody leaves
		if n := len(cut); n != total/8+1 {
			t.Errorf("%d were cut", n)
		}
		if s := g.Stats(); s.UnderWay != total+total/8+1 {
			t.Errorf("%+v", s)
		}
		close(done)
		synctest.Wait()
		check(t, g)
		if s := g.Stats(); s.UnderWay != 0 || s.Admitted != 500 || s.Failed+s.Shed != 500 {
			t.Errorf("%+v", s)
		}
	})
}

// TestFailingSource: a source that fails on and on is refused, others are not,
// and it gets in again when it has waited. Success, and being shed, cost nothing.
func TestFailingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Total: 100, Failures: Rate{Burst: 20, PerSecond: 2}})
		bad, good := source(1), source(2)
		attempts := func(n int, from netip.Prefix, failed bool) (admitted int) {
			for range n {
				h, err := g.Enter(from, func() {})
				if err == nil {
					admitted++
					h.Leave(failed)
				} else if !errors.Is(err, ErrFailing) {
					t.Error(err)
				}
			}
			return admitted
		}
		if n := attempts(500, good, false); n != 500 {
			t.Errorf("%d of 500 good ones got in", n)
		}
		if n := attempts(500, bad, true); n != 20 {
			t.Errorf("%d failed, the burst is 20", n)
		}
		if n := attempts(500, bad, false); n != 0 {
			t.Errorf("%d got in, the bucket is empty", n)
		}
		if n := attempts(500, good, false); n != 500 {
			t.Errorf("%d of 500 of another source got in", n)
		}
		time.Sleep(5 * time.Second)
		if n := attempts(500, bad, true); n != 10 {
			t.Errorf("%d failed after 5 s, the rate is 2", n)
		}
		time.Sleep(time.Second)
		if n := attempts(500, bad, false); n != 500 {
			t.Errorf("%d got in that succeed", n)
		}
		if s := g.Stats(); s.Failed != 30 || s.Admitted != 1530 || s.RefusedFailing != 480+500+490 || s.RefusedCrowded != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestShedIsNoFailure: a crowd of honest devices behind one address that shed
// each other don't lock themselves out.
func TestShedIsNoFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Total: 10, Failures: Rate{Burst: 20, PerSecond: 0.001}})
		for range 1000 {
			var h *Handshake
			h = enter(t, g, source(1), func() { go func() { h.Leave(true) }() })
			synctest.Wait()
		}
		if s := g.Stats(); s.Failed != 0 || s.Shed != 990 {
			t.Errorf("%+v", s)
		}
	})
}

// TestFastOnesAreNotShed: when more come at once than there are places, and all
// go on as fast as the server can serve them, it is of no use to shed any:
// newcomers wait. However slow that is, as soon as it is usual.
func TestFastOnesAreNotShed(t *testing.T) {
	for _, each := range []time.Duration{100 * time.Microsecond, time.Millisecond, 20 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			const total, crowd = 50, 2000
			g := NewGate(Config{Total: total})
			inside := make(chan *Handshake, total+total/8+1) // first come, first served
			done := make(chan struct{})
			go func() {
				for range crowd {
					h := <-inside
					time.Sleep(each)
					if h.Commit() {
						h.Leave(false)
					} else {
						h.Leave(true)
					}
				}
				close(done)
			}()
			for range crowd {
				inside <- enter(t, g, source(1), func() {})
			}
			<-done
			if s := g.Stats(); s.Shed > crowd/50 { // before it is known what is usual
				t.Errorf("with %v for each: %+v", each, s)
			}
		})
	}
}

// TestPatience: how long a handshake may take follows from how long they
// usually take, within bounds.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(Config{Total: 1})
		for _, c := range []struct{ takes, patience time.Duration }{
			{time.Millisecond, leastPatience},
			{200 * time.Millisecond, 800 * time.Millisecond},
			{4 * time.Second, mostPatience},
			{time.Millisecond, leastPatience},
		} {
			for range 200 {
				h := enter(t, g, source(1), nil)
				time.Sleep(c.takes)
				h.Commit()
				h.Leave(false)
			}
			g.mu.Lock()
			got := g.patience()
			g.mu.Unlock()
			if (got - c.patience).Abs() > time.Millisecond {
				t.Errorf("when %v are usual, the patience is %v, not %v", c.takes, got, c.patience)
			}
			// A newcomer waits as long for one who does not go on.
			var stuck *Handshake
			stuck = enter(t, g, source(1), func() { go func() { stuck.Leave(true) }() })
			begin := time.Now()
			enter(t, g, source(2), nil).Leave(false)
			if waited := time.Since(begin); waited != got {
				t.Errorf("waited %v, not %v", waited, got)
			}
		}
	})
}

func TestPerSource(t *testing.T) {
	g := NewGate(Config{Total: 10, PerSource: 3, Failures: Rate{Burst: 4}})
	var three []*Handshake
	for range 3 {
		three = append(three, enter(t, g, source(1), nil))
	}
	for range 10 {
		if _, err := g.Enter(source(1), nil); !errors.Is(err, ErrCrowded) {
			t.Errorf("the fourth of a source: %v", err)
		}
	}
	enter(t, g, source(2), nil).Leave(false)
	three[0].Leave(false)
	three[0] = enter(t, g, source(1), nil)
	three[1].Commit() // what is authenticated doesn't count
	enter(t, g, source(1), nil)
	if s := g.Stats(); s.RefusedCrowded != 10 || s.RefusedFailing != 0 || s.Shed != 0 {
		t.Errorf("%+v", s)
	}
	check(t, g)
}

// TestManySources: an attacker with many addresses holds as many handshakes
// open as he can, and begins new ones all the time, so that the house turns over
// in a second. Honest clients that need a tenth of that get through, and so does
// a city behind one address.
func TestManySources(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const total, rounds = 1000, 400
		const perRound, round = 50, 50 * time.Millisecond
		g := NewGate(Config{Total: total})
		tried, got := make(map[bool]int), make(map[bool]int)
		var mu sync.Mutex // guards got
		for n := range rounds {
			for i := range perRound {
				var h *Handshake
				h = enter(t, g, source(1000+n*perRound+i), func() { go func() { h.Leave(true) }() })
			}
			for i := range 20 {
				from, city := source(i), i >= 10
				if city {
					from = source(999)
				}
				tried[city]++
				h := enter(t, g, from, func() {})
				go func() {
					time.Sleep(50*time.Millisecond + rand.N(50*time.Millisecond))
					if h.Commit() {
						mu.Lock()
						got[city]++
						mu.Unlock()
					}
					h.Leave(false)
				}()
			}
			time.Sleep(round)
		}
		time.Sleep(time.Second)
		mu.Lock()
		defer mu.Unlock()
		alone := float64(got[false]) / float64(tried[false])
		city := float64(got[true]) / float64(tried[true])
		t.Logf("%.1f %% of those with an address of their own, and %.1f %% of the city, got through at once; %+v", 100*alone, 100*city, g.Stats())
		if alone < 0.99 || city < 0.97 {
			t.Error("too few")
		}
		if s := g.Stats(); s.Shed < rounds*perRound/2 {
			t.Errorf("hardly anybody was shed: %+v", s)
		}
	})
}

// TestGateConcurrent has many goroutines do it all, for the race detector and
// for the counters.
func TestGateConcurrent(t *testing.T) {
	g := NewGate(Config{Total: 50, Failures: Rate{Burst: 100, PerSecond: 1e6}})
	var refused, shed atomic.Int64
	var all sync.WaitGroup
	for worker := range 200 {
		all.Go(func() {
			for n := range 100 {
				cut := make(chan struct{})
				h, err := g.Enter(source(worker%7), func() { close(cut) })
				if err != nil {
					refused.Add(1)
					continue
				}
				switch n % 3 {
				case 0: // holds it until it is cut, or for a while
					select {
					case <-cut:
					case <-time.After(time.Millisecond):
					}
				case 1:
					if !h.Commit() {
						shed.Add(1)
					}
				}
				h.Leave(n%2 == 0)
			}
		})
	}
	all.Wait()
	check(t, g)
	s := g.Stats()
	if s.UnderWay != 0 || s.Admitted+uint64(refused.Load()) != 20_000 || s.RefusedFailing != uint64(refused.Load()) ||
		len(g.open) != 0 || g.ending != 0 || s.Shed < uint64(shed.Load()) {
		t.Errorf("%+v, %d refused, %d shed", s, refused.Load(), shed.Load())
	}
}

// TestSetLimits: limits that change count from the next handshake on, and those
// under way lose nothing.
func TestSetLimits(t *testing.T) {
	g := NewGate(Config{Total: 10})
	var under []*Handshake
	for range 4 {
		under = append(under, enter(t, g, source(1), func() {}))
	}
	g.SetLimits(4, Rate{Burst: 2, PerSecond: 1})
	if _, err := g.Enter(source(1), func() {}); err != ErrCrowded {
		t.Errorf("a fifth of one source: %v, want %v", err, ErrCrowded)
	}
	for _, h := range under {
		h.Leave(false)
	}
	for range 2 {
		enter(t, g, source(1), func() {}).Leave(true)
	}
	if _, err := g.Enter(source(1), func() {}); err != ErrFailing {
		t.Errorf("after two failures: %v, want %v", err, ErrFailing)
	}
	g.SetLimits(0, Rate{})
	enter(t, g, source(1), func() {}).Leave(true)
	check(t, g)
}
