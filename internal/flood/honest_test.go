package flood

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/tlspsk"
)

// config is a device's.
func config(i int, km secret.Key) *tlspsk.Config {
	return &tlspsk.Config{Identity: []byte(meter(i).String()), Key: km.Bytes(), ServerName: string(served)}
}

// handshake does one MAF Handshake from a source and closes the session.
func handshake(ctx context.Context, network string, source net.IP, to string, c *tlspsk.Config) error {
	conn, err := dial(ctx, network, source, to, c)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Honest are devices that do handshakes while an attack goes on, each one after
// the other.
type honest struct {
	ctx    context.Context
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu   sync.Mutex
	past outcome // guarded by mu
}

const (
	// attemptTime bounds an attempt of an honest device.
	attemptTime = 10 * time.Second
	// betweenAttempts keeps honest devices from being a flood.
	betweenAttempts = 20 * time.Millisecond
)

// startHonest has some devices do handshakes over a network, each from an
// address of its own, until stop.
func startHonest(t testing.TB, v *victim, network string, keys []secret.Key, first int) *honest {
	h := &honest{}
	h.ctx, h.cancel = context.WithCancel(t.Context())
	for i, km := range keys {
		h.add(network, from(200, first+i), v.address(network), config(first+i, km))
	}
	t.Cleanup(func() { h.stop() })
	return h
}

// add has one more device do handshakes.
func (h *honest) add(network string, source net.IP, to string, c *tlspsk.Config) {
	h.all.Go(func() {
		for h.ctx.Err() == nil {
			h.once(network, source, to, c)
			select {
			case <-time.After(betweenAttempts):
			case <-h.ctx.Done():
			}
		}
	})
}

func (h *honest) once(network string, source net.IP, to string, c *tlspsk.Config) {
	ctx, cancel := context.WithTimeout(h.ctx, attemptTime)
	defer cancel()
	begin := time.Now()
	err := handshake(ctx, network, source, to, c)
	if h.ctx.Err() != nil {
		return // cut by stop: says nothing
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.past.failed = append(h.past.failed, err)
	} else {
		h.past.took = append(h.past.took, time.Since(begin))
	}
}

// tries is how many tries are over since the last reset.
func (h *honest) tries() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.past.tries()
}

// reset returns how they have fared, and forgets it.
func (h *honest) reset() outcome {
	h.mu.Lock()
	defer h.mu.Unlock()
	past := h.past
	h.past = outcome{}
	slices.Sort(past.took)
	return past
}

// stop ends them and returns how they have fared.
func (h *honest) stop() outcome {
	h.cancel()
	h.all.Wait()
	return h.reset()
}

// An outcome is how honest devices fared.
type outcome struct {
	took   []time.Duration // of those that succeeded
	failed []error
}

func (o outcome) tries() int { return len(o.took) + len(o.failed) }

// rate is the share of the tries that succeeded.
func (o outcome) rate() float64 { return float64(len(o.took)) / float64(max(1, o.tries())) }

// quantile returns the time within which a share of the successes was done. The
// times must be sorted.
func (o outcome) quantile(share float64) time.Duration {
	if len(o.took) == 0 {
		return 0
	}
	return o.took[min(len(o.took)-1, int(share*float64(len(o.took))))]
}

func (o outcome) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	s := fmt.Sprintf("%d of %d honest handshakes (%.2f %%), p50 %v, p99 %v", len(o.took), o.tries(), 100*o.rate(),
		round(o.quantile(0.5)), round(o.quantile(0.99)))
	if len(o.failed) > 0 {
		s += fmt.Sprintf("; a failure: %v", o.failed[0])
	}
	return s
}
