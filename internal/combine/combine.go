// Package combine lets calls that wait at the same time be done together.
package combine

import (
	"context"
	"errors"
	"sync"
	"time"
)

// ErrClosed: the combiner was closed before the call.
var ErrClosed = errors.New("combine: closed")

// A Combiner gathers calls that wait at the same time and has them done
// together: many handshakes share one fsync, many lookups one query. Groups form
// by themselves: while one is being worked on, the next one fills.
type Combiner[T any] struct {
	// work does all calls of a group and leaves each result in its call. It runs
	// in the combiner's own goroutine, one group after the other.
	work  func(group []*T)
	limit int // calls in one group
	// interval is the shortest time from the begin of one group's work to that
	// of the next, which makes groups larger and calls slower. It counts only
	// after a group of several calls and until the next group is full: who calls
	// alone, be it one call after the other, is never delayed.
	interval time.Duration

	wake    chan struct{} // holds at most one token; see loop
	stopped chan struct{} // closed when loop ends

	mu     sync.Mutex
	queue  []*group[T] // guarded by mu; all but the last are full
	closed bool        // guarded by mu
}

// A group's calls belong to the combiner until done is closed.
type group[T any] struct {
	calls []*T
	done  chan struct{}
}

// New starts the goroutine, which Close ends.
func New[T any](limit int, interval time.Duration, work func([]*T)) *Combiner[T] {
	c := &Combiner[T]{
		work: work, limit: limit, interval: interval,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}),
	}
	go c.loop()
	return c
}

// Do returns nil when work is through with the call. When it returns an error,
// the combiner was closed or ctx ended; in the latter case work may still come
// to the call, so its caller must not touch it any more.
func (c *Combiner[T]) Do(ctx context.Context, call *T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	g, err := c.join(call)
	if err != nil {
		return err
	}
	select {
	case <-g.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// join puts the call into the group that is filling.
func (c *Combiner[T]) join(call *T) (*group[T], error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if len(c.queue) == 0 || len(c.queue[len(c.queue)-1].calls) == c.limit {
		c.queue = append(c.queue, &group[T]{done: make(chan struct{})})
	}
	g := c.queue[len(c.queue)-1]
	g.calls = append(g.calls, call)
	if len(g.calls) == 1 || len(g.calls) == c.limit {
		c.signal()
	}
	return g, nil
}

// signal makes loop look at the queue again.
func (c *Combiner[T]) signal() {
	select {
	case c.wake <- struct{}{}:
	default: // there is a token already
	}
}

func (c *Combiner[T]) loop() {
	defer close(c.stopped)
	var earliest time.Time // when the next group's work may begin
	for {
		g, wait, closed := c.take(earliest)
		switch {
		case g != nil:
			if len(g.calls) > 1 {
				earliest = time.Now().Add(c.interval)
			}
			c.work(g.calls)
			close(g.done)
		case closed:
			return
		case wait > 0:
			select {
			case <-c.wake:
			case <-time.After(wait):
			}
		default:
			<-c.wake
		}
	}
}

// take removes the next group that should be worked on now. Without one it
// returns how long to wait for the one that is filling, or zero when there is
// none.
func (c *Combiner[T]) take(earliest time.Time) (g *group[T], wait time.Duration, closed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return nil, 0, c.closed
	}
	g = c.queue[0]
	if len(g.calls) < c.limit && !c.closed {
		if wait := time.Until(earliest); wait > 0 {
			return nil, wait, false
		}
	}
	c.queue = c.queue[1:]
	return g, 0, false
}

// Close refuses new calls, waits until those before it are done, and returns.
func (c *Combiner[T]) Close() {
	c.mu.Lock()
	c.closed = true
	c.signal()
	c.mu.Unlock()
	<-c.stopped
}
