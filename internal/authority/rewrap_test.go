package authority_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

const unpaced = 1_000_000

// rotate adds a key to the keyset and promotes it, and returns the old one.
func (m *maf) rotate() (old seal.KeyID) {
	m.t.Helper()
	old = m.keys.Primary()
	added, err := m.keys.Add(ctx)
	if err == nil {
		err = m.keys.Promote(ctx, added.ID)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return old
}

func (m *maf) rewrap() authority.RewrapProgress {
	m.t.Helper()
	p, err := m.Rewrap(ctx, m.keys.Current, unpaced, func(authority.RewrapProgress) {})
	if err != nil {
		m.t.Fatal(err)
	}
	return p
}

// uses returns how many master keys and connection keys need a key of the keyset.
func (m *maf) uses(id seal.KeyID) (master, connection int) {
	m.t.Helper()
	kms, kcs, err := m.Boxes(ctx, seal.PrefixLength)
	if err != nil {
		m.t.Fatal(err)
	}
	count := func(all []store.BoxCount) (n int) {
		for _, b := range all {
			if of, ok := seal.BoxKey([]byte(b.Prefix)); ok && of == id {
				n += b.Count
			}
		}
		return n
	}
	return count(kms), count(kcs)
}

// After a rewrap nothing needs the old key any more but Kcs, until they expire;
// and nothing else of a client has changed.
func TestRewrap(t *testing.T) {
	m := newMAF(t)
	const clients = 1500 // more than a page
	kms := make(map[onem2m.KmID]secret.Key)
	before := make(map[onem2m.KmID]authority.Client)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for n := range clients {
		wg.Go(func() {
			c := authority.Client{KmID: kmID(fmt.Sprintf("m%d@maf.example.com", n)), IdB: inCSE, Lifetime: time.Hour, Disabled: n%7 == 0}
			made, km, err := m.AddClient(ctx, c, secret.Key{})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			kms[made.KmID], before[made.KmID] = km, made
		})
	}
	wg.Wait()
	first := kmID("m1@maf.example.com")
	s := m.mustHandshake(first)
	old := m.rotate()
	m.sleep(time.Minute)
	if master, connection := m.uses(old); master != clients || connection != 1 {
		t.Errorf("before: %d, %d", master, connection)
	}
	if p := m.rewrap(); p != (authority.RewrapProgress{Seen: clients, Rewrapped: clients}) {
		t.Errorf("rewrap: %+v", p)
	}
	if p := m.rewrap(); p != (authority.RewrapProgress{Seen: clients}) {
		t.Errorf("a second one: %+v", p)
	}
	if master, connection := m.uses(old); master != 0 || connection != 1 {
		t.Errorf("after: %d, %d", master, connection)
	}
	if got, err := m.Release(ctx, inCSE, s.kcID()); err != nil || !got.Kc.Equal(s.kc()) {
		t.Errorf("a key of before: %v", err)
	}
	m.sleep(time.Hour)
	if _, connection := m.uses(old); connection != 0 {
		t.Errorf("%d keys that have expired need it", connection)
	}
	if err := m.keys.Retire(ctx, old); err != nil {
		t.Fatal(err)
	}
	m.reopen(nil)
	for id, want := range before {
		got, err := m.Client(ctx, id)
		want.Version++
		if err != nil || got != want {
			t.Errorf("the client is %+v (%v), was %+v", got, err, want)
		}
		if !want.Disabled {
			master, err := m.MasterKey(ctx, []byte(id.String()), "")
			if err != nil || !master.Km.Equal(kms[id]) {
				t.Errorf("%v: %v", id, err)
			}
		}
	}
	if list, _, err := m.Revocations(ctx, inCSE, -1, 10); err != nil || len(list) != 0 {
		t.Errorf("revoked: %v, %v", list, err)
	}
}

// A rewrap that was stopped goes on where it was, at the speed that it is told.
func TestRewrapStopped(t *testing.T) {
	m := newMAF(t)
	for n := range 20 {
		m.add(authority.Client{KmID: kmID(fmt.Sprintf("m%d@maf.example.com", n))})
	}
	old := m.rotate()
	stopping, stop := context.WithCancel(ctx)
	// In a second, 5: the second group would come after that.
	p, err := m.Rewrap(stopping, m.keys.Current, 5, func(authority.RewrapProgress) { stop() })
	if !errors.Is(err, context.Canceled) || p.Rewrapped != 5 {
		t.Errorf("stopped with %+v, %v", p, err)
	}
	if master, _ := m.uses(old); master != 15 {
		t.Errorf("%d are left", master)
	}
	if p := m.rewrap(); p != (authority.RewrapProgress{Seen: 20, Rewrapped: 15}) {
		t.Errorf("the rest: %+v", p)
	}
}

// Rows that don't open are told of and left alone: sealing them anew would bless
// what somebody wrote into the database.
func TestRewrapTampered(t *testing.T) {
	m := newMAF(t)
	for n := range 5 {
		m.add(authority.Client{KmID: kmID(fmt.Sprintf("m%d@maf.example.com", n))})
	}
	row, err := m.db.Clients().Get(ctx, kmID("m3@maf.example.com"))
	if err != nil {
		t.Fatal(err)
	}
	row.IdB = other
	if err := m.db.Clients().Update(ctx, row); err != nil {
		t.Fatal(err)
	}
	old := m.rotate()
	if p := m.rewrap(); p.Seen != 5 || p.Rewrapped != 4 || p.Failed != 1 || p.FirstFailed != row.KmID || !errors.Is(p.Failure, seal.ErrOpen) {
		t.Errorf("%+v", p)
	}
	if master, _ := m.uses(old); master != 1 {
		t.Errorf("%d boxes are left", master)
	}
	if _, err := m.handshake(row.KmID, newSession()); err == nil {
		t.Error("the tampered row was blessed")
	}
}

// Rotations one after the other while devices come, administrators change them
// and new ones are added: no handshake fails, and nothing is lost.
func TestRotationUnderLoad(t *testing.T) {
	m := newMAF(t)
	const devices, rotations = 40, 5
	kms := make([]secret.Key, devices)
	id := func(n int) onem2m.KmID { return kmID(fmt.Sprintf("m%d@maf.example.com", n)) }
	for n := range devices {
		kms[n] = m.add(authority.Client{KmID: id(n), Lifetime: time.Hour})
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	handshakes := make([][]*session, devices)
	for n := range devices {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				master, err := m.MasterKey(ctx, []byte(id(n).String()), "")
				if err != nil || !master.Km.Equal(kms[n]) {
					t.Errorf("device %d: %v", n, err)
					return
				}
				s := newSession()
				if _, err := m.Establish(ctx, master, s.export); err != nil {
					t.Errorf("device %d: %v", n, err)
					return
				}
				handshakes[n] = append(handshakes[n], s)
				if n%8 == 0 {
					if _, err := m.UpdateClient(ctx, id(n), func(c *authority.Client) error {
						c.Lifetime = time.Hour + time.Duration(i)*time.Second
						return nil
					}); err != nil {
						t.Errorf("changing device %d: %v", n, err)
						return
					}
				}
			}
		})
	}
	first := m.keys.Primary()
	var retired []seal.KeyID
	for n := range rotations {
		old := m.rotate()
		retired = append(retired, old)
		m.add(authority.Client{KmID: id(devices + n)})
		for master := 1; master > 0; master, _ = m.uses(old) { // a change on its way may still bring the old key
			if p := m.rewrap(); p.Failed > 0 {
				t.Fatalf("%+v", p)
			}
		}
		// No Kc was ever sealed with an unpromoted key, so that one can go at once.
		spare, err := m.keys.Add(ctx)
		if err != nil || m.keys.Retire(ctx, spare.ID) != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	total := 0
	for _, sessions := range handshakes {
		total += len(sessions)
		for _, s := range sessions {
			if got, err := m.Release(ctx, inCSE, s.kcID()); err != nil || !got.Kc.Equal(s.kc()) {
				t.Errorf("a key was lost: %v", err)
			}
		}
	}
	if _, connection := m.uses(first); connection == 0 || total < devices {
		t.Errorf("%d handshakes, %d before the first rotation: the test shows nothing", total, connection)
	}
	// When the last Kc has expired, all that is old can go.
	m.sleep(3 * time.Hour)
	for _, old := range retired {
		if master, connection := m.uses(old); master+connection > 0 {
			t.Errorf("%d, %d", master, connection)
		}
		if err := m.keys.Retire(ctx, old); err != nil {
			t.Error(err)
		}
	}
	for n := range devices {
		m.mustHandshake(id(n))
	}
	if _, err := m.MasterKey(ctx, []byte("nobody@maf.example.com"), ""); !errors.Is(err, authority.ErrUnknownClient) {
		t.Errorf("an unknown client, whose decoy's key is gone: %v", err)
	}
}

// BenchmarkRewrap measures what sealing a client anew costs, at full speed, and
// what counting costs for each client.
func BenchmarkRewrap(b *testing.B) {
	m := newMAF(b)
	const clients = 20_000
	var wg sync.WaitGroup
	for w := range 100 {
		wg.Go(func() {
			for n := range clients / 100 {
				m.add(authority.Client{KmID: kmID(fmt.Sprintf("m%d-%d@maf.example.com", w, n))})
			}
		})
	}
	wg.Wait()
	b.Run("seal", func(b *testing.B) {
		for b.Loop() {
			m.rotate()
			if p := m.rewrap(); p.Rewrapped != clients {
				b.Fatalf("%+v", p)
			}
		}
		b.ReportMetric(float64(b.Elapsed())/float64(b.N*clients), "ns/client")
	})
	b.Run("count", func(b *testing.B) {
		for b.Loop() {
			if master, _ := m.uses(m.keys.Primary()); master != clients {
				b.Fatal(master)
			}
		}
		b.ReportMetric(float64(b.Elapsed())/float64(b.N*clients), "ns/client")
	})
}
