package authority

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// ErrNoKey: RevokeKey found nothing under the KcId.
var ErrNoKey = errors.New("no such key")

// ErrStartOver: Revocations can't go on from the position that it was given.
var ErrStartOver = errors.New("the position is not in the log of revocations")

// Revocation says that Entity B must forget what it was told of a Kc, or of all
// Kcs of a client when KcID is zero.
type Revocation struct {
	KmID onem2m.KmID
	KcID onem2m.KcID
}

// RevokeKey ends one Kc. From the moment it returns nil, the key is not released
// any more; its Entity B is told.
//
// Errors: ErrNoKey, or the store's, after which the key may or may not be revoked.
func (a *Authority) RevokeKey(ctx context.Context, id onem2m.KcID) error {
	if !a.fqdns[id.FQDN] {
		return fmt.Errorf("%w: %v", ErrNoKey, id)
	}
	defer a.feed.nudge()
	err := a.keys.Revoke(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("%w: %v", ErrNoKey, id)
	}
	return err
}

// Revocations waits until something was revoked for idB after the position, and
// returns up to limit of these, and the position to go on from. When ctx ends
// first, there are none, and next is what is known to be of no concern to idB.
// With a negative position it returns the current one at once.
//
// What was revoked before a change was acknowledged, here or by another MAF on
// the same store, is after every position that was returned before that.
//
// Errors: ErrStartOver, or the store's.
func (a *Authority) Revocations(ctx context.Context, idB onem2m.CSEID, after int64, limit int) (list []Revocation, next int64, err error) {
	if after < 0 {
		last, err := a.keys.LastRevocation(ctx)
		return nil, last, err
	}
	for {
		page, err := a.keys.Revocations(ctx, after, store.MaxPage)
		switch {
		case errors.Is(err, store.ErrGone):
			return nil, 0, ErrStartOver
		case err != nil && ctx.Err() != nil:
			return nil, after, nil
		case err != nil:
			return nil, 0, err
		}
		for _, r := range page {
			after = r.Seq
			if r.IdB != idB {
				continue
			}
			if list = append(list, Revocation{r.KmID, r.KcID}); len(list) == limit {
				return list, after, nil
			}
		}
		if len(page) == store.MaxPage {
			continue
		}
		if len(list) > 0 || !a.feed.wait(ctx, after) {
			return list, after, nil
		}
	}
}

// pollEvery is how soon another MAF's revocations are seen here, when nobody tells.
const pollEvery = 250 * time.Millisecond

// feed wakes those who wait for revocations. While there are any, and only then,
// one goroutine looks at the store for all of them.
type feed struct {
	keys store.KeyStore
	now  chan struct{}   // holds a token when the store should be looked at now
	told <-chan struct{} // see Config.Revoked

	mu      sync.Mutex
	waiting int           // guarded by mu
	polling bool          // guarded by mu
	last    int64         // newest revocation that is known; guarded by mu
	more    chan struct{} // closed and replaced when last grows; guarded by mu
}

func newFeed(keys store.KeyStore, told <-chan struct{}) *feed {
	return &feed{keys: keys, now: make(chan struct{}, 1), told: told, more: make(chan struct{})}
}

// nudge says that something may have been revoked here.
func (f *feed) nudge() {
	select {
	case f.now <- struct{}{}:
	default: // there is a token already
	}
}

// wait returns true when there is more than up to the position, and false when
// ctx has ended.
func (f *feed) wait(ctx context.Context, after int64) bool {
	f.mu.Lock()
	f.waiting++
	if !f.polling {
		f.polling = true
		go f.poll()
	}
	for f.last <= after && ctx.Err() == nil {
		more := f.more
		f.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	f.waiting--
	idle := f.waiting == 0
	f.mu.Unlock()
	if idle {
		f.nudge() // poll ends
	}
	return ctx.Err() == nil
}

// poll looks at the store until nobody waits.
func (f *feed) poll() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		// A store that fails is asked again. Those who wait learn of it when they
		// come back.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		last, err := f.keys.LastRevocation(ctx)
		cancel()
		f.mu.Lock()
		if err == nil && last > f.last {
			f.last = last
			close(f.more)
			f.more = make(chan struct{})
		}
		if f.waiting == 0 {
			f.polling = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		select {
		case <-tick.C:
		case <-f.now:
		case <-f.told:
		}
	}
}
