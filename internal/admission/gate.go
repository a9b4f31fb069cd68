package admission

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
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
	failures Buckets

	mu   sync.Mutex // guards what follows
	left sync.Cond  // signalled when a handshake has left
	// open are the handshakes that may be shed, in no order; sources counts
	// them by source.
	open    []*Handshake
	sources map[netip.Prefix]int
	ending  int    // handshakes that have been shed and have not left
	entries uint64 // by which handshakes are aged
	stats   Stats
}

// maxSources is how many sources are remembered for their failures, in some
// hundred octets each.
const maxSources = 1 << 16

// NewGate returns a Gate.
func NewGate(config Config) *Gate {
	g := &Gate{
		config:   config,
		failures: Buckets{Rate: config.Failures, Max: maxSources},
		sources:  make(map[netip.Prefix]int),
	}
	g.left.L = &g.mu
	return g
}

// A Handshake is one under way. The goroutine that does it commits it and
// leaves.
type Handshake struct {
	gate   *Gate
	source netip.Prefix
	cut    func()
	entry  uint64

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
// Enter waits only when nobody can be shed: when all that are under way are
// authenticated, and have their keys stored, or have been cut just before. Then
// it is best for newcomers to wait too, where they cost nothing yet.
func (g *Gate) Enter(source netip.Prefix, cut func()) (*Handshake, error) {
	failing := g.config.Failures != Rate{} && !g.failures.Take(source)
	g.mu.Lock()
	defer g.mu.Unlock()
	if failing {
		g.stats.RefusedFailing++
		return nil, ErrFailing
	}
	for !g.crowded(source) && !g.makeRoom() {
		g.left.Wait()
	}
	if g.crowded(source) {
		g.stats.RefusedCrowded++
		g.failures.GiveBack(source)
		return nil, ErrCrowded
	}
	g.entries++
	h := &Handshake{gate: g, source: source, cut: cut, entry: g.entries, at: len(g.open)}
	g.open = append(g.open, h)
	g.sources[source]++
	g.stats.Admitted++
	g.stats.UnderWay++
	g.stats.Peak = max(g.stats.Peak, g.stats.UnderWay)
	return h, nil
}

// crowded reports whether a source has all that it may. g.mu is held.
func (g *Gate) crowded(source netip.Prefix) bool {
	return g.config.PerSource > 0 && g.sources[source] >= g.config.PerSource
}

// makeRoom reports whether there is room for one more, shedding one if need be.
// g.mu is held.
func (g *Gate) makeRoom() bool {
	if g.stats.UnderWay-g.ending < g.config.Total {
		return true
	}
	// Those that were cut are still there, until their goroutines have run.
	if len(g.open) == 0 || g.ending > g.config.Total/8 {
		return false
	}
	h := g.victim()
	g.close(h)
	h.shed = true
	g.ending++
	g.stats.Shed++
	h.cut()
	return true
}

// victimSample is how many handshakes are looked at to find the one to shed. A
// source that has a quarter of all is among 16 with a probability of 99 %.
const victimSample = 16

// victim returns the handshake to shed: of a few, the one that weighs most, by
// its age and by how many its source has under way. One who holds thousands open
// from one address weighs most by far, and so sheds his own. Where each source
// has but one, as with a botnet, the oldest goes, and honest ones are gone before
// they are old. Age counts more than numbers, so that the many young ones of a
// city behind one address stay.
//
// Age is counted in newcomers, not in seconds: what it takes to be old follows
// from how fast they come. g.mu is held.
func (g *Gate) victim() *Handshake {
	var victim *Handshake
	heaviest := -1.0
	for range victimSample {
		h := g.open[rand.IntN(len(g.open))]
		age := float64(g.entries - h.entry)
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
