package authority_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store/storetest"
	"github.com/onem2m-maf/maf/onem2m"
)

// model is what ought to be true of a MAF: a few lines that are easily seen to
// be right, to hold the MAF against.
type model struct {
	clients map[onem2m.KmID]modelClient
	keys    []modelKey
}

type modelClient struct {
	registration int // counts up when a KmID is registered anew
	disabled     bool
	idB          onem2m.CSEID
}

type modelKey struct {
	*session
	kmID         onem2m.KmID
	registration int
	idB          onem2m.CSEID
	expires      time.Time
}

func (w model) clone() model {
	return model{maps.Clone(w.clients), slices.Clone(w.keys)}
}

// check compares the MAF with the model and returns the first difference. all
// are the sessions that ever came to an exporter: keys that the model doesn't
// have must not be released to anybody.
func (w model) check(m *maf, all []*session) error {
	page, err := m.ListClients(ctx, onem2m.KmID{}, 0)
	if err != nil || len(page) != len(w.clients) {
		return fmt.Errorf("%d clients (%v), want %d", len(page), err, len(w.clients))
	}
	for _, c := range page {
		want, ok := w.clients[c.KmID]
		if !ok || c.Disabled != want.disabled || c.IdB != want.idB {
			return fmt.Errorf("client %+v, want %+v", c, want)
		}
		_, err := m.MasterKey(ctx, []byte(c.KmID.String()), "")
		if err == nil == want.disabled || err != nil && !errors.Is(err, authority.ErrDisabled) {
			return fmt.Errorf("master key of %v: %v", c.KmID, err)
		}
	}
	for _, s := range all {
		for _, idB := range []onem2m.CSEID{inCSE, other} {
			r, err := m.Release(ctx, idB, s.kcID())
			if err != nil && !errors.Is(err, authority.ErrNotFound) {
				return err
			}
			if err == nil != w.released(s, idB, m.clock()) {
				return fmt.Errorf("key %v to %v: %v", s.kcID(), idB, err)
			}
			if err == nil && !r.Kc.Equal(s.kc()) {
				return fmt.Errorf("a wrong Kc for %v", s.kcID())
			}
		}
	}
	return nil
}

func (w model) released(s *session, idB onem2m.CSEID, now time.Time) bool {
	for _, k := range w.keys {
		if k.session == s {
			c, ok := w.clients[k.kmID]
			return ok && !c.disabled && c.registration == k.registration && c.idB == idB && k.idB == idB && now.Before(k.expires)
		}
	}
	return false
}

// step is something done to the MAF, and what the model says about it.
type step struct {
	name  string
	do    func(m *maf) error
	model func(w *model)
}

// script is a life of a MAF that makes every kind of write.
func script(all *[]*session, now func() time.Time) []step {
	registration := 0
	add := func(id onem2m.KmID) step {
		return step{"add " + id.Relative,
			func(m *maf) error {
				_, _, err := m.AddClient(ctx, authority.Client{KmID: id, IdB: inCSE, Lifetime: time.Minute}, secret.Key{})
				if errors.Is(err, authority.ErrExists) {
					return nil // the step is done again after a failure
				}
				return err
			},
			func(w *model) {
				registration++
				w.clients[id] = modelClient{registration: registration, idB: inCSE}
			}}
	}
	remove := func(id onem2m.KmID) step {
		return step{"remove " + id.Relative,
			func(m *maf) error {
				err := m.RemoveClient(ctx, id)
				if errors.Is(err, authority.ErrUnknownClient) {
					return nil
				}
				return err
			},
			func(w *model) { delete(w.clients, id) }}
	}
	update := func(id onem2m.KmID, disabled bool, idB onem2m.CSEID) step {
		return step{fmt.Sprintf("update %v to %v %v", id.Relative, disabled, idB),
			func(m *maf) error {
				_, err := m.UpdateClient(ctx, id, func(c *authority.Client) error {
					c.Disabled, c.IdB = disabled, idB
					return nil
				})
				return err
			},
			func(w *model) {
				c := w.clients[id]
				c.disabled, c.idB = disabled, idB
				w.clients[id] = c
			}}
	}
	// revoke ends the newest key that there is.
	revoke := step{"revoke",
		func(m *maf) error {
			err := m.RevokeKey(ctx, (*all)[len(*all)-1].kcID())
			if errors.Is(err, authority.ErrNoKey) {
				return nil
			}
			return err
		},
		func(w *model) {
			newest := (*all)[len(*all)-1]
			w.keys = slices.DeleteFunc(w.keys, func(k modelKey) bool { return k.session == newest })
		}}
	handshake := func(id onem2m.KmID) step {
		var s *session
		return step{"handshake " + id.Relative,
			func(m *maf) error {
				s = newSession() // the device tries again with new randoms
				*all = append(*all, s)
				_, err := m.handshake(id, s)
				return err
			},
			func(w *model) {
				c := w.clients[id]
				w.keys = append(w.keys, modelKey{s, id, c.registration, c.idB, now().Truncate(time.Second).Add(time.Minute)})
			}}
	}
	wait := func(d time.Duration) step {
		return step{"wait", func(m *maf) error { m.sleep(d); return nil }, func(*model) {}}
	}
	purge := step{"purge", func(m *maf) error { _, err := m.Purge(ctx); return err }, func(*model) {}}
	a, b := kmID("a@maf.example.com"), kmID("b@maf.example.com")
	return []step{
		add(a), add(b), handshake(a), handshake(b), wait(30 * time.Second), handshake(a), revoke, handshake(a),
		update(a, true, inCSE), update(a, false, inCSE), update(b, false, other), handshake(b),
		remove(a), add(a), handshake(a), wait(40 * time.Second), purge, remove(b), wait(time.Minute), purge,
	}
}

// Every write fails once, without effect and with it. Whatever fails, what was
// acknowledged before stays true, and what failed either happened or did not:
// seen at once, seen after a restart, and seen at every later step.
func TestEveryWriteFails(t *testing.T) {
	writes := runScript(t, 0, false)
	if writes < 15 {
		t.Fatalf("the script makes only %d writes", writes)
	}
	step := int64(1)
	if testing.Short() {
		step = 4
	}
	for at := int64(1); at <= writes; at += step {
		for _, persist := range []bool{false, true} {
			t.Run(fmt.Sprintf("write %d, persisted %v", at, persist), func(t *testing.T) {
				t.Parallel()
				runScript(t, at, persist)
			})
		}
	}
}

func runScript(t *testing.T, failAt int64, persist bool) (writes int64) {
	m := newMAF(t)
	var faulty *storetest.Faulty
	m.reopen(func(s storetest.Store) storetest.Store {
		faulty = &storetest.Faulty{Store: s, FailAt: failAt, Persist: persist}
		return faulty
	})
	var all []*session
	world := model{clients: map[onem2m.KmID]modelClient{}}
	failures := 0
	holders := []*holder{newHolder(t, m, inCSE), newHolder(t, m, other)}
	for _, step := range script(&all, m.clock) {
		for {
			err := step.do(m)
			after := world.clone()
			step.model(&after)
			if err == nil {
				world = after
				break
			}
			if !errors.Is(err, storetest.ErrInjected) {
				t.Fatalf("%s: %v", step.name, err)
			}
			failures++
			// It happened, or it did not; there is no third.
			check := func(when string) (happened bool) {
				no, yes := world.check(m, all), after.check(m, all)
				if no != nil && yes != nil {
					t.Fatalf("%s failed, and %s it is neither undone (%v) nor done (%v)", step.name, when, no, yes)
				}
				return yes == nil
			}
			before := check("at once")
			m.reopen(nil)
			if happened := check("after a restart"); happened != before {
				t.Fatalf("%s failed; at once it had happened: %v, after a restart: %v", step.name, before, happened)
			} else if happened {
				world = after
				break
			}
			// Whoever asked for it tries again.
		}
		if err := world.check(m, all); err != nil {
			t.Fatalf("after %s: %v", step.name, err)
		}
		for _, h := range holders {
			if err := h.check(m, all); err != nil {
				t.Fatalf("after %s: %v", step.name, err)
			}
		}
	}
	m.reopen(nil)
	if err := world.check(m, all); err != nil {
		t.Fatalf("at the end: %v", err)
	}
	if want := min(failAt, 1); int64(failures) != want {
		t.Errorf("%d failures were seen, want %d", failures, want)
	}
	return faulty.Writes()
}
