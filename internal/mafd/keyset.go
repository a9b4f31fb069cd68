package mafd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/wholefile"
)

const (
	// refreshEvery is how soon a keyset file that another node changed is read.
	refreshEvery = time.Second
	// settleTime is for how long a key that was the primary is kept: a node that
	// has not read the file yet, or is busy, may still seal with it.
	settleTime = time.Minute
	// rewrapRetry is how soon a rewrap that the store has stopped is tried again.
	rewrapRetry = 10 * time.Second
)

// rewrapName is the file in the state folder that is there while a rewrap is under
// way: a restart takes it up again.
const rewrapName = "rewrap.json"

// keysetKeeper is the keyset as administrators see it, and the rewrap of master
// keys when its primary has changed. It is an adminserver.Keyset.
type keysetKeeper struct {
	keyset     *seal.Keyset
	authority  *authority.Authority
	configured string // key-encryption key, "" for none
	order      string // file of the rewrap that was ordered
	// remark seals anew what a shared store knows the keyset by.
	remark func(context.Context) error
	settle time.Duration
	log    *slog.Logger

	wake chan struct{} // holds a token when an order was given

	mu     sync.Mutex
	rewrap adminapi.Rewrap // guarded by mu
	stop   func()          // ends the running pass, which then begins anew; guarded by mu
}

func (d *Daemon) newKeysetKeeper() *keysetKeeper {
	k := &keysetKeeper{
		keyset: d.db.keyset, authority: d.authority, configured: d.db.keyset.Configured(), order: d.state.file(rewrapName),
		remark: d.db.remark, settle: settleTime, log: d.log, wake: make(chan struct{}, 1), stop: func() {},
	}
	if now := k.keyset.Protection(); now != k.configured {
		k.log.Warn("the keyset's file is not protected as configured; maf keyset protect does that",
			"protection", now, "configured", k.configured)
	}
	return k
}

// Describe implements adminserver.Keyset.
func (k *keysetKeeper) Describe(ctx context.Context) (adminapi.Keyset, error) {
	if _, err := k.keyset.Refresh(ctx); err != nil {
		return adminapi.Keyset{}, err
	}
	answer := adminapi.Keyset{Protection: k.keyset.Protection(), Configured: k.configured, Rewrap: k.Rewrap()}
	index := make(map[seal.KeyID]int)
	for i, key := range k.keyset.Keys() {
		index[key.ID] = i
		answer.Keys = append(answer.Keys, wireKey(key))
	}
	masters, connections, err := k.authority.Boxes(ctx, seal.PrefixLength)
	if err != nil {
		return answer, err
	}
	each := func(all []store.BoxCount, add func(*adminapi.KeysetKey, store.BoxCount)) {
		for _, b := range all {
			id, ok := seal.BoxKey([]byte(b.Prefix))
			i, known := index[id]
			if !ok || !known {
				answer.Unknown += b.Count
				continue
			}
			add(&answer.Keys[i], b)
		}
	}
	each(masters, func(key *adminapi.KeysetKey, b store.BoxCount) { key.MasterKeys += b.Count })
	each(connections, func(key *adminapi.KeysetKey, b store.BoxCount) {
		key.ConnectionKeys += b.Count
		key.LastExpiry = b.Last
	})
	return answer, nil
}

func wireKey(key seal.Key) adminapi.KeysetKey {
	state := "enabled"
	if key.Primary {
		state = "primary"
	}
	return adminapi.KeysetKey{ID: uint32(key.ID), State: state, Created: key.Created, Demoted: key.Demoted}
}

// Add implements adminserver.Keyset.
func (k *keysetKeeper) Add(ctx context.Context) (adminapi.KeysetKey, error) {
	key, err := k.keyset.Add(ctx)
	return wireKey(key), keysetRefusal(err)
}

// Promote implements adminserver.Keyset.
func (k *keysetKeeper) Promote(ctx context.Context, id uint32) error {
	return keysetRefusal(k.keyset.Promote(ctx, seal.KeyID(id)))
}

// Protect implements adminserver.Keyset.
func (k *keysetKeeper) Protect(ctx context.Context) error {
	return keysetRefusal(k.keyset.Protect(ctx))
}

// Retire implements adminserver.Keyset.
func (k *keysetKeeper) Retire(ctx context.Context, id uint32) error {
	// 1. Nobody seals with the key any more, here or at another node.
	now, err := k.Describe(ctx)
	if err != nil {
		return err
	}
	var key adminapi.KeysetKey
	for _, candidate := range now.Keys {
		if candidate.ID == id {
			key = candidate
		}
	}
	if key.ID == 0 || key.State == "primary" {
		return keysetRefusal(k.keyset.Retire(ctx, seal.KeyID(id))) // which says so
	}
	if left := k.settle - time.Since(key.Demoted); !key.Demoted.IsZero() && left > 0 {
		return inUse("another node may still seal with it for a moment; try again in " + left.Round(time.Second).String())
	}
	// 2. So this count can only fall.
	switch {
	case key.MasterKeys > 0:
		return inUse(fmt.Sprintf("%d master keys are sealed with it; maf keyset rewrap seals them anew", key.MasterKeys))
	case key.ConnectionKeys > 0:
		return inUse(fmt.Sprintf("%d connection keys are sealed with it, of which the last expires at %s",
			key.ConnectionKeys, key.LastExpiry.UTC().Format(time.DateTime+" UTC")))
	}
	if err := k.remark(ctx); err != nil {
		return err
	}
	// 3. Destroy it.
	return keysetRefusal(k.keyset.Retire(ctx, seal.KeyID(id)))
}

func inUse(text string) error {
	return &adminapi.Error{Status: http.StatusConflict, Code: adminapi.CodeInUse, Text: text}
}

// keysetRefusal finds words for the caller. What else went wrong (the disk, the
// service that has the key-encryption key) is said too: it holds no secrets, and
// who asks is the one to mend it.
func keysetRefusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, seal.ErrNoKey):
		return &adminapi.Error{Status: http.StatusNotFound, Code: adminapi.CodeNotFound, Text: "the keyset has no such key"}
	case errors.Is(err, seal.ErrPrimary):
		return inUse("the key is the primary; promote another one first")
	}
	return &adminapi.Error{Status: http.StatusInternalServerError, Code: adminapi.CodeInternal,
		Text: "the keyset was not changed: " + err.Error()}
}

// Rewrap implements adminserver.Keyset.
func (k *keysetKeeper) Rewrap() adminapi.Rewrap {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.rewrap
}

// rewrapOrder is what the file of an ordered rewrap holds.
type rewrapOrder struct {
	Rate int `json:"rate"`
}

// StartRewrap implements adminserver.Keyset. The order is on the disk when it
// returns.
func (k *keysetKeeper) StartRewrap(_ context.Context, rate int) (adminapi.Rewrap, error) {
	order, err := json.Marshal(rewrapOrder{rate})
	if err != nil {
		return adminapi.Rewrap{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := wholefile.Write(k.order, order, 0o600); err != nil {
		return adminapi.Rewrap{}, err
	}
	if !k.rewrap.Running {
		k.rewrap = adminapi.Rewrap{Running: true, Started: time.Now().UTC().Truncate(time.Second)}
	}
	k.rewrap.Rate = rate
	k.stop()
	select {
	case k.wake <- struct{}{}:
	default: // there is a token already
	}
	return k.rewrap, nil
}

// run reads the keyset's file when it was changed, and does the rewraps that are
// ordered, until ctx ends.
func (k *keysetKeeper) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { k.follow(ctx) })
	for k.rewrapOrdered(ctx) {
		select {
		case <-k.wake:
		case <-ctx.Done():
			return
		}
	}
}

// follow keeps up with other nodes.
func (k *keysetKeeper) follow(ctx context.Context) {
	tick := time.NewTicker(refreshEvery)
	defer tick.Stop()
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := k.keyset.Refresh(ctx)
		switch {
		case err != nil && err.Error() != last && ctx.Err() == nil: // once, not every second
			last = err.Error()
			k.log.Error("the keyset's file can't be read; the keyset stays as it was", "error", last)
		case err == nil:
			last = ""
		}
		if changed {
			k.log.Info("keyset: read anew", "primary", k.keyset.Primary(), "keys", len(k.keyset.Keys()))
		}
	}
}

// rewrapOrdered does the rewrap that was ordered, if any, and reports whether mafd
// goes on.
func (k *keysetKeeper) rewrapOrdered(ctx context.Context) bool {
	for ctx.Err() == nil {
		done, err := k.rewrapOnce(ctx)
		if done {
			return true
		}
		if err == nil {
			continue // a new order came
		}
		k.log.Error("the rewrap stopped and is tried again", "error", err.Error())
		select {
		case <-time.After(rewrapRetry):
		case <-ctx.Done():
		}
	}
	return false
}

// rewrapOnce goes through all clients once, or returns true when nothing was
// ordered or all is done.
func (k *keysetKeeper) rewrapOnce(ctx context.Context) (done bool, err error) {
	pass, stop := context.WithCancel(ctx)
	defer stop()
	rate := k.begin(stop)
	if rate == 0 {
		return true, nil
	}
	// Another node may have promoted a key a moment ago. By an older keyset, this
	// would seal with a key that is on its way out.
	if _, err := k.keyset.Refresh(pass); err != nil {
		k.trouble(err)
		return false, err
	}
	progress, err := k.authority.Rewrap(pass, k.keyset.Current, rate, k.report)
	if pass.Err() != nil {
		return false, nil
	}
	if err != nil {
		k.trouble(err)
		return false, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if pass.Err() != nil {
		return false, nil // a new order, just now
	}
	os.Remove(k.order) // if that fails, a restart looks through all again and finds nothing to do
	k.rewrap.Running, k.rewrap.Ended = false, time.Now().UTC().Truncate(time.Second)
	k.log.Info("rewrap done", "clients", progress.Seen, "rewrapped", k.rewrap.Rewrapped, "failed", progress.Failed)
	if progress.Failed > 0 {
		k.log.Error("some clients could not be rewrapped; restore or remove them", "count", progress.Failed,
			"KmID", progress.FirstFailed.String(), "error", progress.Failure.Error())
	}
	return true, nil
}

// begin reads the order, 0 for none.
func (k *keysetKeeper) begin(stop func()) (rate int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	data, err := os.ReadFile(k.order)
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	var order rewrapOrder
	if err != nil || json.Unmarshal(data, &order) != nil || order.Rate < 1 || order.Rate > adminapi.MaxRewrapRate {
		order.Rate = adminapi.DefaultRewrapRate
	}
	if !k.rewrap.Running { // after a restart
		k.rewrap = adminapi.Rewrap{Running: true, Started: time.Now().UTC().Truncate(time.Second)}
	}
	k.rewrap.Rate, k.stop = order.Rate, stop
	return order.Rate
}

func (k *keysetKeeper) trouble(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.rewrap.Trouble = err.Error()
}

// report notes how far a pass has come.
func (k *keysetKeeper) report(p authority.RewrapProgress) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := &k.rewrap
	r.Seen, r.Rewrapped, r.Failed, r.FirstFailed, r.Trouble = p.Seen, p.Rewrapped, p.Failed, p.FirstFailed, ""
}
