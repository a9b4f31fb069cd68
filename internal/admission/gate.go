package admission

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Config is what bounds a Gate.
type Config struct {
	// Total is how many handshakes may be under way at once, at least 1. For a
	// moment there may be an eighth more, which have been shed and are ending.
	Total int
	// PerSource, when not 0, is how many of them may be of one source and not
	// authenticated yet.
	PerSource int
	// Failures is how many handshakes of one source may fail, those under way
	// counted as if they were going to: so with a Burst below Total, it also
	// bounds how many of one source can be under way. A zero Rate sets no limit.
	Failures Rate
}

// Why Enter refuses.
var (
	ErrFailing = errors.New("too many handshakes from this source failed")
	ErrCrowded = errors.New("too many handshakes from this source are under way")
)

// ErrShed is what a handshake that was cut ends with, if its owner says so.
var ErrShed = errors.New("ended to make room for another handshake")

// Stats are a Gate's counters.
type Stats struct {
	// UnderWay is how many handshakes are under way now, those that have been
	// shed and are ending included; Peak is the most that ever were.
	UnderWay, Peak int
	// What follows only grows. Admitted handshakes succeed, fail, are shed, or
	// end for a reason that is not the source's.
	Admitted uint64
	Failed   uint64
	Shed     uint64
	// Refused at the gate, for each of the two reasons.
	RefusedFailing, RefusedCrowded uint64
}

// A Gate bounds the handshakes under way. It may be used by any number of
// goroutines.
type Gate struct {
	config   Config
	failures Buckets[netip.Prefix]

	mu   sync.Mutex // guards what follows
	left sync.Cond  // signalled when a handshake has left, or may be shed by now
	// open are the handshakes that may be shed, in no order; sources counts
	// them by source.
	open    []*Handshake
	sources map[netip.Prefix]int
	ending  int // handshakes that have been shed and have not left
	// usual is how long it takes these days until a client is authenticated: an
	// average in which the last few dozen count most.
	usual time.Duration
	stats Stats
}

// maxSources is how many sources are remembered for their failures, in some
// hundred octets each.
const maxSources = 1 << 16

// NewGate returns a Gate.
func NewGate(config Config) *Gate {
	g := &Gate{
		config:   config,
		failures: Buckets[netip.Prefix]{Rate: config.Failures, Max: maxSources},
		sources:  make(map[netip.Prefix]int),
	}
	g.left.L = &g.mu
	return g
}

// SetLimits changes what one source may do, from the next handshake on.
func (g *Gate) SetLimits(perSource int, failures Rate) {
	g.failures.SetRate(failures)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.config.PerSource = perSource
}

// A Handshake is one under way. The goroutine that does it commits it and
// leaves.
type Handshake struct {
	gate    *Gate
	source  netip.Prefix
	cut     func()
	entered time.Time

	// Guarded by gate.mu.
	at   int // index in gate.open; -1 when not there
	shed bool
}

// Enter lets a handshake begin, or returns ErrFailing or ErrCrowded. The caller
// must call Leave when it has ended.
//
// cut is called, at most once, when this handshake has to make room for another:
// it must make it end soon. It must not block, nor call the Gate.
//
// Enter waits while nobody can be shed: because all that are under way are
// authenticated and about to end, or have been cut just before, or because none
// has taken long yet, by the measure of those that succeed. That is how it is
// when a city's devices come back all at once: then it would be a waste to shed
// what is half done, and best for newcomers to wait where they cost nothing yet,
// in the listener's queue.
func (g *Gate) Enter(source netip.Prefix, cut func()) (*Handshake, error) {
	failing := !g.failures.Take(source)
	g.mu.Lock()
	defer g.mu.Unlock()
	if failing {
		g.stats.RefusedFailing++
		return nil, ErrFailing
	}
	for !g.crowded(source) {
		wait, ok := g.makeRoom()
		if ok {
			return g.admit(source, cut), nil
		}
		g.waitFor(wait)
	}
	g.stats.RefusedCrowded++
	g.failures.GiveBack(source)
	return nil, ErrCrowded
}

// crowded reports whether a source has all that it may. g.mu is held.
func (g *Gate) crowded(source netip.Prefix) bool {
	return g.config.PerSource > 0 && g.sources[source] >= g.config.PerSource
}

// admit lets a handshake in. g.mu is held.
func (g *Gate) admit(source netip.Prefix, cut func()) *Handshake {
	h := &Handshake{gate: g, source: source, cut: cut, entered: time.Now(), at: len(g.open)}
	g.open = append(g.open, h)
	g.sources[source]++
	g.stats.Admitted++
	g.stats.UnderWay++
	g.stats.Peak = max(g.stats.Peak, g.stats.UnderWay)
	return h
}

// forever is longer than any handshake takes.
const forever = time.Hour

// makeRoom reports whether there is room for one more, shedding one if need be.
// If not, there may be when a handshake has left, or after some time. g.mu is
// held.
func (g *Gate) makeRoom() (wait time.Duration, ok bool) {
	if g.stats.UnderWay-g.ending < g.config.Total {
		return 0, true
	}
	// Those that were cut are still there, until their goroutines have run.
	if len(g.open) == 0 || g.ending > g.config.Total/8 {
		return forever, false
	}
	now := time.Now()
	h := g.victim(now)
	if wait := g.patience() - now.Sub(h.entered); wait > 0 {
		return wait, false
	}
	g.close(h)
	h.shed = true
	g.ending++
	g.stats.Shed++
	h.cut()
	return 0, true
}

// waitFor waits until a handshake has left, and not longer than some time. g.mu
// is held, but not while it waits.
func (g *Gate) waitFor(limit time.Duration) {
	timer := time.AfterFunc(limit, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.left.Broadcast()
	})
	defer timer.Stop()
	g.left.Wait()
}

const (
	// A handshake may take this many times as long as is usual, before it is
	// one that can be shed.
	patienceFactor = 4
	// leastPatience is for when all are fast. mostPatience is for when the
	// usual is slow, which an attacker could bring about who has the keys of
	// many devices.
	leastPatience = 250 * time.Millisecond
	mostPatience  = 10 * time.Second
)

// patience is the age from which a handshake can be shed. g.mu is held.
func (g *Gate) patience() time.Duration {
	return min(max(patienceFactor*g.usual, leastPatience), mostPatience)
}

// victimSample is how many handshakes are looked at to find the one to shed. A
// source that has a quarter of all is among 16 with a probability of 99 %.
const victimSample = 16

// victim returns the handshake to shed: of a few, the one that weighs most, by
// its age and by how many its source has under way. One who holds thousands open
// from one address weighs most by far, and so sheds his own. Where each source
// has but one, as with a botnet, the oldest goes, and honest ones are gone before
// they are old. Age counts more than numbers, so that the many young ones of a
// city behind one address stay. g.mu is held.
func (g *Gate) victim(now time.Time) *Handshake {
	var victim *Handshake
	heaviest := -1.0
	for range victimSample {
		h := g.open[rand.IntN(len(g.open))]
		age := now.Sub(h.entered).Seconds()
		if weight := age * age * float64(g.sources[h.source]); weight > heaviest {
			victim, heaviest = h, weight
		}
	}
	return victim
}

// close takes a handshake from those that may be shed. g.mu is held.
func (g *Gate) close(h *Handshake) {
	last := len(g.open) - 1
	g.open[h.at] = g.open[last]
	g.open[h.at].at = h.at
	g.open[last] = nil
	g.open = g.open[:last]
	h.at = -1
	if g.sources[h.source]--; g.sources[h.source] == 0 {
		delete(g.sources, h.source)
	}
}

// Commit is for when the client is authenticated: from then on the handshake is
// not shed. It returns false when it has been already, and must not go on.
func (h *Handshake) Commit() bool {
	g := h.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if h.at >= 0 {
		g.close(h)
		g.usual += (time.Since(h.entered) - g.usual) / 16
	}
	return !h.shed
}

// Leave ends the handshake. failed says that it did not succeed and that its
// source is to blame, which it is not for a handshake that was shed, whatever
// the caller says.
func (h *Handshake) Leave(failed bool) {
	g := h.gate
	g.mu.Lock()
	if h.at >= 0 {
		g.close(h)
	}
	if h.shed {
		g.ending--
	}
	failed = failed && !h.shed
	if failed {
		g.stats.Failed++
	}
	g.stats.UnderWay--
	g.left.Broadcast()
	g.mu.Unlock()
	if !failed {
		g.failures.GiveBack(h.source)
	}
}

// Stats returns the counters as they are now.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}
