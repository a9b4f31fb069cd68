package admission

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// source returns one of many sources.
func source(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
}

func TestBucket(t *testing.T) {
	r := Rate{Burst: 3, PerSecond: 2}
	var b Bucket
	now := time.Now()
	taken := func(n int) (taken int) {
		for range n {
			if b.Take(r, now) {
				taken++
			}
		}
		return taken
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{
		{0, 3},               // the burst
		{0, 0},               // and no more
		{time.Second / 4, 0}, // half a token
		{time.Second / 4, 1},
		{time.Second, 2},
		{time.Hour, 3}, // never more than the burst
	} {
		now = now.Add(step.after)
		if got := taken(10); got != step.want {
			t.Errorf("%v later: %d taken, want %d", step.after, got, step.want)
		}
	}
	for n, full := range []bool{false, false, true, true} { // the last is one too many
		if b.GiveBack(r, now) != full {
			t.Errorf("after %d were given back of 3, the bucket is full: %v", n+1, !full)
		}
	}
	if got := taken(10); got != 3 {
		t.Errorf("%d taken after more was given back than was taken", got)
	}
}

// TestBucketsForget: those who do no wrong are not remembered, and the rest is
// bounded.
func TestBucketsForget(t *testing.T) {
	s := Buckets[netip.Prefix]{Rate: Rate{Burst: 10, PerSecond: 1}, Max: 100}
	for n := range 1000 {
		s.Take(source(n % 50))
		s.GiveBack(source(n % 50))
	}
	if s.Len() != 0 {
		t.Errorf("%d sources are remembered that owe nothing", s.Len())
	}
	s.GiveBack(source(1)) // of what is not there: nothing
	for n := range 10_000 {
		if !s.Take(source(n)) {
			t.Fatal("a new source is refused")
		}
	}
	if s.Len() != s.Max {
		t.Errorf("%d sources are remembered, want %d", s.Len(), s.Max)
	}
}

// TestBucketsEviction: who has spent all he had can't make himself forgotten by
// coming from many other places, until he would have it again anyway.
func TestBucketsEviction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Buckets[netip.Prefix]{Rate: Rate{Burst: 5, PerSecond: 1}, Max: 50}
		bad := source(1 << 20)
		for s.Take(bad) {
		}
		for n := range 10_000 {
			s.Take(source(n))
		}
		if s.Take(bad) {
			t.Error("forgotten")
		}
		time.Sleep(5 * time.Second)
		for range s.Rate.Burst {
			if !s.Take(bad) {
				t.Error("not forgiven")
			}
		}
	})
}
