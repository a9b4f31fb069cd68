// Package timing tells whether the time of an operation depends on a secret, by
// statistics over measurements, in the manner of "Dude, is my code constant
// time?" (Reparaz, Balasch and Verbauwhede, 2016). Tests use it.
//
// # Method
//
// A test makes inputs of two classes that differ in the secret only. They are
// measured in pairs, one of each class in random order, so that whatever else
// the machine does, and however fast it runs just then, falls on both alike.
// Interrupts and other programs only ever add time, so the slowest pairs are cut
// off, at several percentiles; and Student's t-test says for the differences
// within what is left by how many standard errors their mean is away from 0.
// Two rounds of a machine's noise do not agree, so a difference counts only when
// all rounds show it, in the same direction.
//
// # Thresholds
//
// Without a dependency t is distributed about as a normal variable: dudect goes
// by 4.5, which has a probability of 7e-6 for one test, and ten are made of one
// round. Threshold is above that, between what the engine's record protection
// showed at most (4.6) and what naive code in its place showed at least (17) in
// hundreds of rounds on a machine under four times the load that it can take.
// The tests that use this package are run with the naive code as well, and have
// to find it out.
//
// With enough measurements t grows beyond any threshold over differences that
// are no code's: how the caches, the allocator or the clock happen to lie
// favours a class by some tenths of a nanosecond, less than one cycle. Such
// differences do not count. Who measures over a network does not see a hundred
// times as much (Crosby, Wallach and Riedi, 2009: about 100 ns on a LAN).
package timing

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	// Threshold is the |t| above which a round counts as one that shows a
	// dependency.
	Threshold = 8
	// Resolution is the difference in nanoseconds below which it does not.
	Resolution = 1
	// Rounds is how many rounds must agree.
	Rounds = 4

	longFactor = 50
	warmUp     = 500
)

const longVariable = "MAF_LONG"

// Long reports whether MAF_LONG=1 asks for the long form of tests.
func Long() bool { return os.Getenv(longVariable) == "1" }

// A Measure does the operation on an input of the given class, 0 or 1, and
// returns how long that took. What it does before and after must be the same
// for both classes, down to the addresses of the input.
type Measure func(class int) time.Duration

// Examine measures in rounds until one shows no dependency, or Rounds of them
// show the same. A round has so many pairs, and in the long form 50 times as
// many.
func Examine(pairs int, m Measure) Verdict {
	if Long() {
		pairs *= longFactor
	}
	var v Verdict
	for range Rounds {
		v = append(v, round(m, pairs))
		if !v.Leaks() {
			break
		}
	}
	return v
}

// A Verdict is what the rounds showed.
type Verdict []Round

// A Round is the outcome of one round.
type Round struct {
	// T is Student's t of class 1 less class 0, at the percentile where it is
	// furthest from 0.
	T float64
	// Mean is the mean of class 0 at that percentile, and Difference by how
	// much that of class 1 is larger, in nanoseconds.
	Mean, Difference float64
	// Percentile is that of all pairs up to which they were used.
	Percentile int
}

// Leaks reports whether all rounds so far show the same dependency.
func (v Verdict) Leaks() bool {
	for _, r := range v {
		if math.Abs(r.T) < Threshold || math.Abs(r.Difference) < Resolution || math.Signbit(r.T) != math.Signbit(v[0].T) {
			return false
		}
	}
	return len(v) > 0
}

// String tells the figures.
func (v Verdict) String() string {
	var rounds []string
	for _, r := range v {
		rounds = append(rounds, fmt.Sprintf("t=%.1f (%+.1f ns on %.0f ns, up to percentile %d)", r.T, r.Difference, r.Mean, r.Percentile))
	}
	return strings.Join(rounds, "; ")
}

// A pair is one measurement of each class, one straight after the other.
type pair struct{ sum, difference, zero float64 }

// percentiles are where the slowest pairs are cut off.
var percentiles = [...]int{20, 40, 60, 75, 85, 90, 95, 98, 99, 100}

func round(m Measure, n int) Round {
	for i := range warmUp {
		m(i & 1)
	}
	pairs := make([]pair, n)
	for i := range pairs {
		var ns [2]float64
		first := int(rand.Uint32() & 1)
		ns[first] = float64(m(first))
		ns[1-first] = float64(m(1 - first))
		pairs[i] = pair{ns[0] + ns[1], ns[1] - ns[0], ns[0]}
	}
	slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.sum, b.sum) })
	var furthest Round
	for _, p := range percentiles {
		if r := test(pairs[:n*p/100]); math.Abs(r.T) > math.Abs(furthest.T) {
			r.Percentile = p
			furthest = r
		}
	}
	return furthest
}

// test is the t-test of whether the mean of the differences is 0.
func test(pairs []pair) Round {
	n := float64(len(pairs))
	var r Round
	for _, p := range pairs {
		r.Difference += p.difference / n
		r.Mean += p.zero / n
	}
	var squares float64
	for _, p := range pairs {
		squares += (p.difference - r.Difference) * (p.difference - r.Difference)
	}
	switch stderr := math.Sqrt(squares / (n - 1) / n); {
	case stderr > 0:
		r.T = r.Difference / stderr
	case r.Difference != 0: // a clock too coarse for noise, but not for this
		r.T = math.Copysign(math.MaxFloat64, r.Difference)
	}
	return r
}
