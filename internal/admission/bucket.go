package admission

import (
	"sync"
	"time"
)

// A Rate limits events: Burst of them at once, and PerSecond in the long run.
type Rate struct {
	Burst     int
	PerSecond float64
}

// A Bucket counts events against a Rate. The zero value is full, that is,
// nothing has been taken from it. It needs a lock if goroutines share it.
type Bucket struct {
	spent float64
	at    time.Time // when spent was right
}

// Take reports whether an event may happen now, and counts it if so.
func (b *Bucket) Take(r Rate, now time.Time) bool {
	b.refill(r, now)
	if b.spent+1 > float64(r.Burst) {
		return false
	}
	b.spent++
	return true
}

// GiveBack undoes a Take, and reports whether the bucket is full again.
func (b *Bucket) GiveBack(r Rate, now time.Time) bool {
	b.refill(r, now)
	b.spent = max(0, b.spent-1)
	return b.spent == 0
}

func (b *Bucket) refill(r Rate, now time.Time) {
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*r.PerSecond)
	b.at = now
}

// Buckets holds a bucket for each source that has taken something lately, at
// most Max of them. A zero Rate sets no limit. Set the exported fields before the
// first use, and the rate by SetRate after it. It may be used by any number of
// goroutines.
type Buckets[Source comparable] struct {
	Rate Rate // guarded by mu
	Max  int

	mu      sync.Mutex
	buckets map[Source]*Bucket // guarded by mu
}

// SetRate changes the rate. What sources have taken stays taken.
func (s *Buckets[Source]) SetRate(r Rate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Rate = r
	if r == (Rate{}) {
		s.buckets = nil // nobody gives back any more
	}
}

// Take reports whether the source may do another one now, and counts it if so.
func (s *Buckets[Source]) Take(source Source) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Rate == (Rate{}) {
		return true
	}
	b := s.buckets[source]
	if b == nil {
		b = s.add(source, now)
	}
	return b.Take(s.Rate, now)
}

// GiveBack undoes a Take.
func (s *Buckets[Source]) GiveBack(source Source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A full bucket says nothing that none does not say. So sources that do
	// no wrong take no room.
	if b := s.buckets[source]; b != nil && b.GiveBack(s.Rate, time.Now()) {
		delete(s.buckets, source)
	}
}

// Len returns how many buckets there are.
func (s *Buckets[Source]) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.buckets)
}

// evictionSample is how many buckets are looked at to find one to drop.
const evictionSample = 8

// add makes a bucket, in the place of some other one when there are too many: of
// the first few that come up, the fullest, which is the one that says least. So
// who has an empty one can't get rid of it by coming from elsewhere. s.mu is
// held.
func (s *Buckets[Source]) add(source Source, now time.Time) *Bucket {
	if s.buckets == nil {
		s.buckets = make(map[Source]*Bucket)
	}
	if len(s.buckets) >= s.Max {
		var victim Source
		var fullest *Bucket
		looked := 0
		for p, b := range s.buckets { // in random order
			if b.refill(s.Rate, now); fullest == nil || b.spent < fullest.spent {
				victim, fullest = p, b
			}
			if looked++; looked == evictionSample {
				break
			}
		}
		delete(s.buckets, victim)
	}
	b := &Bucket{at: now}
	s.buckets[source] = b
	return b
}
