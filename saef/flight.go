package saef

import (
	"context"
	"sync"
)

// flights lets callers who want the same thing at the same time wait for one
// call that gets it. The zero value is ready.
type flights[K comparable, V any] struct {
	mu  sync.Mutex
	now map[K]*flight[V] // under way; guarded by mu
}

type flight[V any] struct {
	done  chan struct{}
	value V     // readable once done is closed
	err   error // readable once done is closed
}

// do returns the result of get, called now or by somebody else who is at it.
// get runs on a goroutine of its own and with a context that never ends, so
// that one caller who gives up does not spoil it for the others: it must bound
// itself. The caller's own ctx bounds its waiting.
func (f *flights[K, V]) do(ctx context.Context, key K, get func(context.Context) (V, error)) (V, error) {
	f.mu.Lock()
	fl := f.now[key]
	if fl == nil {
		fl = &flight[V]{done: make(chan struct{})}
		if f.now == nil {
			f.now = make(map[K]*flight[V])
		}
		f.now[key] = fl
		go func() {
			fl.value, fl.err = get(context.WithoutCancel(ctx))
			f.mu.Lock()
			delete(f.now, key)
			f.mu.Unlock()
			close(fl.done)
		}()
	}
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.value, fl.err
	case <-ctx.Done():
		var none V
		return none, context.Cause(ctx)
	}
}
