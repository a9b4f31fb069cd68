package storetest

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// ErrInjected is how a Faulty store fails.
var ErrInjected = errors.New("storetest: injected failure")

// Faulty is a store of which one write fails, as disks and networks do: either
// without effect, or having done what it was asked.
type Faulty struct {
	Store
	// FailAt is the number of the write that fails, from 1; 0 means none.
	FailAt int64
	// Persist tells a failure that comes after the write from one instead of it.
	Persist bool

	writes atomic.Int64
}

// Writes returns how many there were.
func (f *Faulty) Writes() int64 { return f.writes.Load() }

// write counts a write and does it, or fails, or both.
func (f *Faulty) write(do func() error) error {
	if f.writes.Add(1) != f.FailAt {
		return do()
	}
	if f.Persist {
		if err := do(); err != nil {
			return err
		}
	}
	return ErrInjected
}

// Clients returns the store's role with its writes under watch.
func (f *Faulty) Clients() store.ClientStore { return faultyClients{f.Store.Clients(), f} }

// Keys returns the store's role with its writes under watch.
func (f *Faulty) Keys() store.KeyStore { return faultyKeys{f.Store.Keys(), f} }

type faultyClients struct {
	store.ClientStore
	f *Faulty
}

func (s faultyClients) Add(ctx context.Context, c store.Client) error {
	return s.f.write(func() error { return s.ClientStore.Add(ctx, c) })
}

func (s faultyClients) Update(ctx context.Context, c store.Client) error {
	return s.f.write(func() error { return s.ClientStore.Update(ctx, c) })
}

func (s faultyClients) Remove(ctx context.Context, id onem2m.KmID, uid store.UID) error {
	return s.f.write(func() error { return s.ClientStore.Remove(ctx, id, uid) })
}

type faultyKeys struct {
	store.KeyStore
	f *Faulty
}

func (s faultyKeys) Commit(ctx context.Context, k store.Key) error {
	return s.f.write(func() error { return s.KeyStore.Commit(ctx, k) })
}

func (s faultyKeys) Purge(ctx context.Context, now time.Time) (n int, done bool, err error) {
	err = s.f.write(func() (err error) {
		n, done, err = s.KeyStore.Purge(ctx, now)
		return err
	})
	return n, done, err
}

func (s faultyKeys) RemoveByClient(ctx context.Context, id onem2m.KmID, uid store.UID) (n int, err error) {
	err = s.f.write(func() (err error) {
		n, err = s.KeyStore.RemoveByClient(ctx, id, uid)
		return err
	})
	return n, err
}

func (s faultyKeys) Revoke(ctx context.Context, id onem2m.KcID) error {
	return s.f.write(func() error { return s.KeyStore.Revoke(ctx, id) })
}
