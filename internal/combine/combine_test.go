package combine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// job is a call of the tests' combiners: work leaves when it was done.
type job struct {
	n    int
	done time.Duration // since the test began
}

// crew is a combiner whose work takes a fixed time, and its record.
type crew struct {
	*Combiner[job]
	begun time.Time
	sizes []int
}

func newCrew(limit int, interval, work time.Duration) *crew {
	c := &crew{begun: time.Now()}
	c.Combiner = New(limit, interval, func(group []*job) {
		time.Sleep(work)
		c.sizes = append(c.sizes, len(group))
		for _, j := range group {
			j.done = time.Since(c.begun)
		}
	})
	return c
}

// calls makes so many calls at once and returns when each was done.
func (c *crew) calls(t *testing.T, n int) []time.Duration {
	jobs := make([]*job, n)
	var wg sync.WaitGroup
	for i := range jobs {
		jobs[i] = &job{n: i}
		wg.Go(func() {
			if err := c.Do(context.Background(), jobs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var times []time.Duration
	for _, j := range jobs {
		times = append(times, j.done)
	}
	slices.Sort(times)
	return times
}

const ms = time.Millisecond

// Calls that come while a group is worked on form the next group.
func TestGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(100, 0, 10*ms)
		var wg sync.WaitGroup
		wg.Go(func() { c.calls(t, 1) })
		time.Sleep(5 * ms)
		if got := c.calls(t, 50); got[0] != 20*ms || got[49] != 20*ms {
			t.Errorf("done from %v to %v, want 20ms", got[0], got[49])
		}
		wg.Wait()
		c.Close()
		if !slices.Equal(c.sizes, []int{1, 50}) {
			t.Errorf("groups of %v", c.sizes)
		}
	})
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(8, time.Hour, ms)
		var wg sync.WaitGroup
		wg.Go(func() { c.calls(t, 1) })
		synctest.Wait() // the work on the first has begun
		c.calls(t, 24)
		wg.Wait()
		c.Close()
		if !slices.Equal(c.sizes, []int{1, 8, 8, 8}) {
			t.Errorf("groups of %v", c.sizes)
		}
		if took := time.Since(c.begun); took != 4*ms {
			t.Errorf("full groups waited: it took %v", took)
		}
	})
}

// The interval holds groups apart under load, and delays nobody who is alone.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(100, 50*ms, ms)
		for i := range 5 { // one after the other
			if got := c.calls(t, 1); got[0] != time.Duration(i+1)*ms {
				t.Errorf("call %d was done after %v", i, got[0])
			}
		}
		time.Sleep(95 * ms)
		// At 100 ms one comes, and several while it is worked on.
		var first []time.Duration
		var wg sync.WaitGroup
		wg.Go(func() { first = c.calls(t, 1) })
		synctest.Wait()
		got := c.calls(t, 9)
		if wg.Wait(); first[0] != 101*ms || got[0] != 102*ms || got[8] != 102*ms {
			t.Errorf("the first load was done at %v, and from %v to %v", first[0], got[0], got[8])
		}
		// The next ones wait until 50 ms after the begin of a group of several.
		if got := c.calls(t, 10); got[0] != 152*ms || got[9] != 152*ms {
			t.Errorf("the second load was done from %v to %v", got[0], got[9])
		}
		time.Sleep(time.Second)
		now := time.Since(c.begun)
		if got := c.calls(t, 1); got[0] != now+ms {
			t.Errorf("after a pause, a call took %v", got[0]-now)
		}
		c.Close()
	})
}

// A caller that gives up leaves its call behind; the others don't notice.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(100, 0, 10*ms)
		ctx, cancel := context.WithTimeout(context.Background(), 5*ms)
		defer cancel()
		left := &job{}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := c.Do(ctx, left); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if now := time.Since(c.begun); now != 5*ms {
				t.Errorf("gave up after %v", now)
			}
		})
		c.calls(t, 3)
		wg.Wait()
		if err := c.Do(ctx, &job{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with an ended context: %v", err)
		}
		c.Close()
		if left.done == 0 {
			t.Error("the call that was left behind was never done")
		}
		if sum := c.sizes[0] + c.sizes[1]; len(c.sizes) != 2 || sum != 4 {
			t.Errorf("groups of %v", c.sizes)
		}
	})
}

// Close does what waits, without the interval, and refuses the rest.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(4, time.Hour, ms)
		var wg sync.WaitGroup
		wg.Go(func() { c.calls(t, 2) })
		wg.Go(func() {
			time.Sleep(5 * ms)
			c.calls(t, 6) // a full group, and two that wait for the interval
		})
		time.Sleep(time.Minute)
		c.Close()
		wg.Wait()
		if took := time.Since(c.begun); took != time.Minute+ms {
			t.Errorf("close took until %v", took)
		}
		if err := c.Do(context.Background(), &job{}); !errors.Is(err, ErrClosed) {
			t.Errorf("after close: %v", err)
		}
	})
}
