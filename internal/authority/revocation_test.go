package authority_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/onem2m"
)

// holder is an Entity B that keeps what it is told until it is told to forget.
type holder struct {
	idB   onem2m.CSEID
	after int64
	held  map[onem2m.KcID]authority.Released
}

func newHolder(t *testing.T, m *maf, idB onem2m.CSEID) *holder {
	t.Helper()
	_, at, err := m.Revocations(ctx, idB, -1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{idB, at, make(map[onem2m.KcID]authority.Released)}
}

// follow obeys all that was revoked so far.
func (h *holder) follow(m *maf) error {
	last, err := m.db.Keys().LastRevocation(ctx)
	for patience := time.Millisecond; err == nil && h.after < last; patience *= 2 {
		err = h.poll(m, patience)
	}
	return err
}

// poll obeys what was revoked, and gives up where there is nothing left of its own.
func (h *holder) poll(m *maf, patience time.Duration) error {
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, next, err := m.Revocations(short, h.idB, h.after, 2)
	for _, r := range list {
		for id, key := range h.held {
			if key.KmID == r.KmID && (r.KcID.IsZero() || r.KcID == id) {
				delete(h.held, id)
			}
		}
	}
	h.after = next
	return err
}

// check follows, and then compares what is held with what the MAF says: it may
// have less, but nothing that the MAF would not tell any more.
func (h *holder) check(m *maf, all []*session) error {
	if err := h.follow(m); err != nil {
		return err
	}
	for id, key := range h.held {
		if !m.clock().Before(key.Expires) {
			delete(h.held, id)
			continue
		}
		r, err := m.Release(ctx, h.idB, id)
		if err != nil || r.KmID != key.KmID || r.AEID != key.AEID || r.CSEID != key.CSEID {
			return fmt.Errorf("%v was not told to forget %v of %v: %v", h.idB, id, key.KmID, err)
		}
	}
	for _, s := range all {
		if r, err := m.Release(ctx, h.idB, s.kcID()); err == nil {
			h.held[s.kcID()] = r
		}
	}
	return nil
}

func TestRevokeKey(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	first, second := m.mustHandshake(meter), m.mustHandshake(meter)
	b, stranger := newHolder(t, m, inCSE), newHolder(t, m, other)
	if err := b.check(m, []*session{first, second}); err != nil || len(b.held) != 2 {
		t.Fatalf("%v, %v", b.held, err)
	}
	if err := m.RevokeKey(ctx, first.kcID()); err != nil {
		t.Fatal(err)
	}
	m.mustNotRelease("a revoked key", inCSE, first.kcID())
	if _, err := m.Release(ctx, inCSE, second.kcID()); err != nil {
		t.Errorf("the other key: %v", err)
	}
	if err := b.follow(m); err != nil || len(b.held) != 1 {
		t.Errorf("%v, %v", b.held, err)
	}
	if list, next, err := m.Revocations(ctx, inCSE, b.after-1, 1); err != nil || next != b.after ||
		!slices.Equal(list, []authority.Revocation{{KmID: meter, KcID: first.kcID()}}) {
		t.Errorf("%v, %d, %v", list, next, err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if list, _, err := m.Revocations(ended, stranger.idB, stranger.after, 10); err != nil || len(list) > 0 {
		t.Errorf("another Entity B was told of %v, %v", list, err)
	}
	elsewhere := first.kcID()
	elsewhere.FQDN = "maf.example.net"
	for what, id := range map[string]onem2m.KcID{"again": first.kcID(), "of another MAF": elsewhere} {
		if err := m.RevokeKey(ctx, id); !errors.Is(err, authority.ErrNoKey) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Whoever waits is woken by what concerns it, and by nothing else; also by what
// another MAF on the same store does, which does not wake anybody here.
func TestRevocationsWait(t *testing.T) {
	m := newMAF(t)
	for name, revoke := range map[string]func(kmID onem2m.KmID, kc onem2m.KcID){
		"RevokeKey":    func(_ onem2m.KmID, kc onem2m.KcID) { m.RevokeKey(ctx, kc) },
		"UpdateClient": func(id onem2m.KmID, _ onem2m.KcID) { m.update(id, func(c *authority.Client) { c.Disabled = true }) },
		"RemoveClient": func(id onem2m.KmID, _ onem2m.KcID) { m.remove(id) },
		"another MAF": func(id onem2m.KmID, _ onem2m.KcID) {
			row, err := m.db.Clients().Get(ctx, id)
			if err == nil {
				err = m.db.Clients().Remove(ctx, id, row.UID)
			}
			if err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			mine, others := kmID("mine@maf.example.com"), kmID("others@maf.example.com")
			m.add(authority.Client{KmID: mine})
			m.add(authority.Client{KmID: others, IdB: other})
			kc := m.mustHandshake(mine).kcID()
			defer m.RemoveClient(ctx, mine)
			_, at, err := m.Revocations(ctx, inCSE, -1, 0)
			if err != nil {
				t.Fatal(err)
			}
			patience, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			var waiting sync.WaitGroup
			for range 20 {
				waiting.Go(func() {
					list, next, err := m.Revocations(patience, inCSE, at, 10)
					if err != nil || len(list) != 1 || list[0].KmID != mine || next <= at {
						t.Errorf("%v, %d, %v", list, next, err)
					}
				})
			}
			m.remove(others)
			revoke(mine, kc)
			waiting.Wait()
		})
	}
}

func TestRevocationsStartOver(t *testing.T) {
	m := newMAF(t)
	if _, _, err := m.Revocations(ctx, inCSE, 1, 10); !errors.Is(err, authority.ErrStartOver) {
		t.Errorf("a position that never was: %v", err)
	}
	if _, next, err := m.Revocations(ctx, inCSE, -1, 10); err != nil || next != 0 {
		t.Errorf("%d, %v", next, err)
	}
}

// A store that fails is an error for who asks, and does not stop others from being
// told later.
func TestRevocationsStoreFails(t *testing.T) {
	m := newMAF(t)
	m.db.Close()
	if _, _, err := m.Revocations(ctx, inCSE, 0, 10); err == nil || errors.Is(err, authority.ErrStartOver) {
		t.Errorf("%v", err)
	}
	if err := m.RevokeKey(ctx, newSession().kcID()); err == nil {
		t.Error("revoked")
	}
	m.open(nil)
}

// Two authorities on one store are what two MAFs on one database are.
func TestTwoAuthorities(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	second, err := authority.New(ctx, m.config())
	if err != nil {
		t.Fatal(err)
	}
	patience, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	told := make(chan error, 1)
	go func() {
		list, _, err := second.Revocations(patience, inCSE, 0, 10)
		if err == nil && len(list) != 1 {
			err = fmt.Errorf("told of %v", list)
		}
		told <- err
	}()
	m.update(meter, func(c *authority.Client) { c.Disabled = true })
	if err := <-told; err != nil {
		t.Error(err)
	}
}
