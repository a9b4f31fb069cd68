package saef

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// Bounds on what one source can make Entity B ask the MAF.
const (
	askBurst     = 32   // questions under way or answered with "no such key"
	askPerSecond = 4    // at which these are forgiven
	maxSources   = 4096 // that are remembered
)

// A limiter bounds the questions to the MAF that one source of handshakes
// causes. A question that finds a key is given back: a fleet of devices behind
// one address must get in, while someone who makes up KcIds must not turn
// Entity B into a flood upon the MAF. The zero value is ready.
type limiter struct {
	mu      sync.Mutex
	buckets map[netip.Prefix]*bucket // guarded by mu
}

// A bucket holds what a source may still ask.
type bucket struct {
	tokens float64
	at     time.Time // when tokens was right
}

func (b *bucket) refill(now time.Time) {
	b.tokens = min(askBurst, b.tokens+now.Sub(b.at).Seconds()*askPerSecond)
	b.at = now
}

// take reports whether the source may ask now.
func (l *limiter) take(source netip.Prefix) bool {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[source]
	if b == nil {
		b = l.add(source, now)
	}
	b.refill(now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// giveBack undoes take.
func (l *limiter) giveBack(source netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if b := l.buckets[source]; b != nil {
		b.tokens = min(askBurst, b.tokens+1)
	}
}

// add makes a full bucket, in the place of some other one when there are too
// many: of the first few that come up, the fullest, which is the one that says
// least. l.mu is held.
func (l *limiter) add(source netip.Prefix, now time.Time) *bucket {
	if l.buckets == nil {
		l.buckets = make(map[netip.Prefix]*bucket)
	}
	if len(l.buckets) >= maxSources {
		var victim netip.Prefix
		most, looked := -1.0, 0
		for p, b := range l.buckets { // in random order
			if b.refill(now); b.tokens > most {
				victim, most = p, b.tokens
			}
			if looked++; looked == evictionSample {
				break
			}
		}
		delete(l.buckets, victim)
	}
	b := &bucket{askBurst, now}
	l.buckets[source] = b
	return b
}

// sourceOf returns the network that counts as one source: an IPv4 address, or
// an IPv6 /64, of which one customer has all addresses. Handshakes from anywhere
// else, as in tests, count as one source.
func sourceOf(addr net.Addr) netip.Prefix {
	var ip netip.Addr
	switch a := addr.(type) {
	case *net.TCPAddr:
		ip = a.AddrPort().Addr()
	case *net.UDPAddr:
		ip = a.AddrPort().Addr()
	}
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // not an IP address
	}
	return p
}
