package authority

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// RewrapProgress says how far Rewrap has come.
type RewrapProgress struct {
	Seen      int // clients looked at
	Rewrapped int // of these, sealed anew
	Failed    int // of these, not possible
	// FirstFailed is one of the latter, and Failure why. When a client's row can't
	// even be read, it is the client before it.
	FirstFailed onem2m.KmID
	Failure     error
}

// rewrapTogether is how many clients are sealed anew at the same time, so that
// they share commits.
const rewrapTogether = 64

// Rewrap seals each master key anew whose box is not current, at most perSecond
// of them in a second, and calls report now and then. Clients that change
// meanwhile are sealed anew by that. It may be stopped at any time and begun
// again: what is done is skipped.
//
// To handshakes, a rewrapped client is the same client: Km and configuration, the
// time of its last change, and the keys issued to it stay. (Its Version grows, as
// with every change of its row.) A client that fails, since its row was tampered
// with or sealed with a key that is gone, is counted and left as it is.
//
// Kcs are not sealed anew. They expire.
func (a *Authority) Rewrap(ctx context.Context, current func(box []byte) bool, perSecond int, report func(RewrapProgress)) (p RewrapProgress, err error) {
	var after onem2m.KmID
	for {
		page, err := a.clients.List(ctx, after, store.MaxPage)
		if err != nil && len(page) == 0 || ctx.Err() != nil {
			return p, errors.Join(err, ctx.Err())
		}
		if err != nil { // a row in the middle can't be read
			p.fail(page[len(page)-1].KmID, err)
		} else if len(page) == 0 {
			report(p)
			return p, nil
		}
		after = page[len(page)-1].KmID
		p.Seen += len(page)
		if err := a.rewrapPage(ctx, page, current, perSecond, &p, report); err != nil {
			return p, err
		}
		report(p)
	}
}

func (p *RewrapProgress) fail(id onem2m.KmID, err error) {
	if p.Failed == 0 {
		p.FirstFailed, p.Failure = id, err
	}
	p.Failed++
}

func (a *Authority) rewrapPage(ctx context.Context, page []store.Client, current func([]byte) bool, perSecond int, p *RewrapProgress, report func(RewrapProgress)) error {
	for len(page) > 0 {
		var group []store.Client
		for len(page) > 0 && len(group) < min(rewrapTogether, perSecond) {
			if !current(page[0].SealedKm) {
				group = append(group, page[0])
			}
			page = page[1:]
		}
		if len(group) == 0 {
			return nil
		}
		pace := time.NewTimer(time.Second * time.Duration(len(group)) / time.Duration(perSecond))
		errs := make([]error, len(group))
		var wg sync.WaitGroup
		for i := range group {
			wg.Go(func() { errs[i] = a.rewrapOne(ctx, group[i], current) })
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil && ctx.Err() == nil {
				p.fail(group[i].KmID, err)
			} else if err == nil {
				p.Rewrapped++
			}
		}
		report(*p)
		select {
		case <-pace.C:
		case <-ctx.Done():
			pace.Stop()
			return ctx.Err()
		}
	}
	return nil
}

// rewrapOne seals one client anew. Losing against another change is fine when
// that has sealed it with the current key; else it is tried again.
func (a *Authority) rewrapOne(ctx context.Context, row store.Client, current func([]byte) bool) error {
	for range attempts {
		km, err := a.openKm(&row)
		if err != nil {
			return err
		}
		next := row
		next.SealedKm, err = a.sealer.Seal(km.Bytes(), kmBinding(&next))
		km.Wipe()
		if err != nil {
			return err
		}
		err = a.clients.Update(ctx, next)
		if err == nil || errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return err
		}
		row, err = a.clients.Get(ctx, row.KmID)
		if errors.Is(err, store.ErrNotFound) || err == nil && current(row.SealedKm) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return ErrBusy
}

// Boxes counts what is sealed by the first octets of its box, as many as prefix
// says: master keys, and Kcs that have not expired.
func (a *Authority) Boxes(ctx context.Context, prefix int) (master, connection []store.BoxCount, err error) {
	master, err = a.clients.Boxes(ctx, prefix)
	if err != nil {
		return nil, nil, err
	}
	connection, err = a.keys.Boxes(ctx, a.now(), prefix)
	return master, connection, err
}
