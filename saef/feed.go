package saef

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/onem2m"
)

// How long after a failure the feed is tried again: often, since what was revoked
// while the MAF was away shall end as soon as it is back.
const (
	retryMin = 100 * time.Millisecond
	retryMax = time.Second
	// quickMax is how long a MAF is left alone, at most, that has nothing to tell
	// and answers at once all the same, as something broken in between may do: the
	// feed would otherwise take all the time that there is.
	quickMax = 250 * time.Millisecond
	// noFeedRetry is for a MAF that has no feed: it may be updated one day.
	noFeedRetry = time.Minute
)

// pause sleeps for about d, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d/2 + rand.N(d/2+1)): // many Entity Bs lose one MAF at once
		return true
	}
}

// feeds follows the revocations of all MAFs while there is a listener or an
// association that they may concern.
type feeds struct {
	all []*follower // set before the first use

	mu     sync.Mutex
	users  int           // guarded by mu
	cancel func()        // guarded by mu
	done   chan struct{} // closed when all of the last run have ended; guarded by mu
}

func (f *feeds) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users++; f.users > 1 || len(f.all) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	before, done := f.done, make(chan struct{})
	f.cancel, f.done = cancel, done
	go func() {
		defer close(done)
		if before != nil {
			<-before // a follower is one goroutine's
		}
		var running sync.WaitGroup
		for _, one := range f.all {
			running.Go(func() { one.run(ctx) })
		}
		running.Wait()
	}()
}

func (f *feeds) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 && f.cancel != nil {
		f.cancel()
	}
}

// A revocationFeed is a *keyclient.Feed.
type revocationFeed interface {
	Next(context.Context) (list []keyapi.Revocation, startOver bool, err error)
	Reset()
}

// A follower obeys the revocations of one MAF.
type follower struct {
	keys *keyring
	feed revocationFeed
	maf  onem2m.FQDN

	mu    sync.Mutex
	err   error     // why they are not followed, or nil; guarded by mu
	since time.Time // when that began; guarded by mu
}

// errResting is why a follower that does not run knows of no revocations.
var errResting = errors.New("there is no listener or association yet, or the MAF has not answered yet")

func newFollower(keys *keyring, feed revocationFeed, maf onem2m.FQDN) *follower {
	return &follower{keys: keys, feed: feed, maf: maf, err: errResting, since: time.Now()}
}

// run follows until ctx ends.
func (f *follower) run(ctx context.Context) {
	var asking sync.WaitGroup
	var unfinished atomic.Bool
	stopAsking := func() {}
	defer func() {
		stopAsking()
		asking.Wait()
		if unfinished.Load() {
			f.feed.Reset() // so that the next run begins with it
		}
		f.rest()
	}()
	wait, quick := retryMin, retryMin
	for ctx.Err() == nil {
		asked := time.Now()
		list, startOver, err := f.feed.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			f.note(err)
			if errors.Is(err, keyclient.ErrNoFeed) {
				wait = noFeedRetry
			}
			pause(ctx, wait)
			wait = min(2*wait, retryMax)
			continue
		}
		wait = retryMin
		if startOver {
			f.keys.missed()
			held := f.keys.held(f.maf)
			stopAsking()
			asking.Wait()
			c, cancel := context.WithCancel(ctx)
			stopAsking = cancel
			unfinished.Store(true)
			asking.Go(func() { unfinished.Store(!f.keys.askAgain(c, held)) })
		}
		f.keys.revoke(list)
		f.note(nil)
		if len(list) > 0 || time.Since(asked) > quickMax {
			quick = retryMin
			continue
		}
		pause(ctx, quick)
		quick = min(2*quick, quickMax)
	}
}

// rest forgets how the run went.
func (f *follower) rest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err, f.since = errResting, time.Now()
}

// note tells the log when revocations begin or cease to be followed.
func (f *follower) note(err error) {
	log := f.keys.log
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil && f.err != nil:
		if f.err != errResting {
			log.Info("the MAF's revocations are followed again", "MAF", f.maf, "after", time.Since(f.since).Round(time.Second).String())
		}
		f.since = time.Now()
	case errors.Is(err, keyclient.ErrNoFeed) && !errors.Is(f.err, keyclient.ErrNoFeed):
		log.Warn("the MAF tells of no revocations: a revoked Kc works here until it expires", "MAF", f.maf)
		f.since = time.Now()
	case err != nil && (f.err == nil || f.err == errResting):
		log.Warn("the MAF's revocations can't be followed; associations go on", "MAF", f.maf, "error", err)
		f.since = time.Now()
	}
	f.err = err
	if err == nil {
		f.keys.mu.Lock()
		f.keys.reached(f.maf, time.Now())
		f.keys.mu.Unlock()
	}
}

// MAFStatus is how Entity B stands with one MAF.
type MAFStatus struct {
	MAF onem2m.FQDN
	// Address is the base URL in use, of those that there are.
	Address string
	// Down says why the MAF gave no answer when it was last asked for a key, and
	// is nil when it did. DownSince is when that began.
	Down      error
	DownSince time.Time
	// Blind says why the MAF's revocations are not followed, and is nil when they
	// are. BlindSince is when that began.
	Blind      error
	BlindSince time.Time
}

// Status tells how Entity B stands with its MAFs, in order of their names.
func (b *EntityB) Status() []MAFStatus {
	if err := b.init(); err != nil {
		return nil
	}
	var all []MAFStatus
	for _, f := range b.feeds.all {
		s := MAFStatus{MAF: f.maf, Address: b.client.Address(f.maf)}
		f.mu.Lock()
		if s.Blind = f.err; s.Blind != nil {
			s.BlindSince = f.since
		}
		f.mu.Unlock()
		b.keys.mu.Lock()
		if o, down := b.keys.down[f.maf]; down {
			s.Down, s.DownSince = o.err, o.since
		}
		b.keys.mu.Unlock()
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b MAFStatus) int { return cmp.Compare(a.MAF, b.MAF) })
	return all
}
