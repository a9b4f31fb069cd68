package timing

import (
	"math/rand/v2"
	"testing"
	"time"
)

const testPairs = 20_000

// noise is what a busy machine makes of an operation that takes 1 µs: mostly a
// little more, sometimes a lot.
func noise() time.Duration {
	ns := 1000 + 40*rand.ExpFloat64()
	if rand.IntN(50) == 0 {
		ns += 1e6 * rand.ExpFloat64()
	}
	return time.Duration(ns)
}

// Equal classes pass, whatever the noise.
func TestEqual(t *testing.T) {
	if v := Examine(testPairs, func(int) time.Duration { return noise() }); v.Leaks() {
		t.Error(v)
	}
}

// A difference of one part in a hundred is found in noise that is a thousand
// times as large.
func TestDifferent(t *testing.T) {
	for class := range 2 {
		v := Examine(testPairs, func(c int) time.Duration {
			if c == class {
				return noise() + 10
			}
			return noise()
		})
		if !v.Leaks() || v[0].T > 0 != (class == 1) {
			t.Errorf("class %d slower: %v", class, v)
		}
	}
}

// Rounds that disagree, such as those of a machine that changes its mind, prove
// nothing.
func TestDisagreement(t *testing.T) {
	t.Setenv(longVariable, "")
	n := 0
	v := Examine(testPairs, func(c int) time.Duration {
		n++
		slow := n / (warmUp + 2*testPairs) % 2
		if c == slow {
			return noise() + 10
		}
		return noise()
	})
	if v.Leaks() || len(v) != 2 {
		t.Error(v)
	}
}

// A clock that is too coarse for the noise does not hide a difference, nor make
// one up.
func TestCoarseClock(t *testing.T) {
	if v := Examine(testPairs, func(int) time.Duration { return 1000 }); v.Leaks() {
		t.Error(v)
	}
	if v := Examine(testPairs, func(c int) time.Duration { return time.Duration(1000 * (c + 1)) }); !v.Leaks() {
		t.Error(v)
	}
}

// What no clock sees does not count, however sure it is.
func TestBelowResolution(t *testing.T) {
	if v := (Verdict{{T: 1000, Difference: 0.3}}); v.Leaks() {
		t.Error(v)
	}
	if v := (Verdict{{T: 1000, Difference: 1.3}}); !v.Leaks() {
		t.Error(v)
	}
}
