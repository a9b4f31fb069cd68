package saef

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// source is a keySource that takes a while.
type source struct {
	delay    time.Duration
	lifetime time.Duration
	err      error // if set, the answer to every question

	mu    sync.Mutex
	asked []onem2m.KcID // guarded by mu
}

func (s *source) Knows(maf onem2m.FQDN) bool {
	return strings.HasSuffix(string(maf), "maf.example.com")
}

func (s *source) Get(ctx context.Context, id onem2m.KcID) (*keyapi.Key, error) {
	s.mu.Lock()
	s.asked = append(s.asked, id)
	s.mu.Unlock()
	select {
	case <-time.After(s.delay):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return nil, s.err
	}
	return &keyapi.Key{KcID: id, Kc: NewSecret(make([]byte, 32)), Lifetime: s.lifetime, KmID: meter, SUID: onem2m.SUIDSAEF}, nil
}

// answer changes the answer while questions are being asked.
func (s *source) answer(err error, lifetime time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.lifetime = err, lifetime
}

func (s *source) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.asked)
}

// kcID returns the nth KcId.
func kcID(n int) onem2m.KcID {
	id := onem2m.KcID{FQDN: mafFQDN}
	binary.BigEndian.PutUint64(id.Relative[8:], uint64(n))
	return id
}

func identity(n int) []byte { return []byte(kcID(n).String()) }

var here = netip.MustParsePrefix("192.0.2.1/32")

func TestKeyLifetime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 3 * time.Second, lifetime: time.Minute}
		k := newKeyring(s)
		start := time.Now()
		e, err := k.lookUp(t.Context(), identity(1), here)
		if err != nil || !e.association.Expires.Equal(start.Add(time.Minute)) {
			t.Fatalf("%+v, %v: the lifetime counts from the question", e, err)
		}
		time.Sleep(time.Until(start.Add(time.Minute)) - 1)
		if again, err := k.lookUp(t.Context(), identity(1), here); err != nil || again != e {
			t.Errorf("%+v, %v", again, err)
		}
		time.Sleep(time.Nanosecond)
		// At its end, and for a while after without a question to the MAF.
		for range 2 {
			_, err := k.lookUp(t.Context(), identity(1), here)
			if !errors.Is(err, tlspsk.ErrUnknownIdentity) {
				t.Errorf("an expired key: %v", err)
			}
		}
		if n := s.count(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestUnknownKeysAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: keyclient.ErrNotFound}
		k := newKeyring(s)
		for i, want := range []int{1, 1, 2, 2} {
			if _, err := k.lookUp(t.Context(), identity(1), here); !errors.Is(err, tlspsk.ErrUnknownIdentity) || !errors.Is(err, keyclient.ErrNotFound) {
				t.Errorf("%v", err)
			}
			if n := s.count(); n != want {
				t.Errorf("after %d lookups the MAF was asked %d times", i+1, n)
			}
			time.Sleep(absentFor / 2)
		}
		// It may be there the next time, when a client was enabled again.
		s.err, s.lifetime = nil, time.Minute
		time.Sleep(absentFor)
		if _, err := k.lookUp(t.Context(), identity(1), here); err != nil {
			t.Error(err)
		}
	})
}

func TestMAFIsLeftAloneWhenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Hour}
		k := newKeyring(s)
		if _, err := k.lookUp(t.Context(), identity(0), here); err != nil {
			t.Fatal(err)
		}
		s.delay, s.err = 5*time.Second, fmt.Errorf("%w: no route to host", keyclient.ErrUnavailable)
		other := []byte(strings.Replace(string(identity(9)), "@", "@other-", 1))
		for round := range 2 {
			start := time.Now()
			for n := range 10 {
				_, err := k.lookUp(t.Context(), identity(100*round+n+1), here)
				if errors.Is(err, tlspsk.ErrUnknownIdentity) || !errors.Is(err, keyclient.ErrUnavailable) || !strings.Contains(err.Error(), "no route") {
					t.Errorf("%v", err)
				}
				if _, err := k.lookUp(t.Context(), identity(0), here); err != nil {
					t.Errorf("the key that we have: %v", err)
				}
			}
			if d := time.Since(start); d != s.delay {
				t.Errorf("ten handshakes waited %v, not one timeout", d)
			}
			if n := s.count(); n != 2+round {
				t.Errorf("asked %d times in round %d", n, round)
			}
			time.Sleep(downFor)
		}
		// One MAF's outage is not another's.
		s.err, s.delay = nil, 0
		k.down[mafFQDN] = outage{until: time.Now().Add(time.Hour), err: keyclient.ErrUnavailable}
		if _, err := k.lookUp(t.Context(), other, here); err != nil {
			t.Error(err)
		}
	})
}

// A MAF that is too busy for one question, and answers others meanwhile, goes on
// being asked.
func TestBusyMAF(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 5 * time.Second, err: keyclient.ErrUnavailable}
		k := newKeyring(s)
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := k.lookUp(t.Context(), identity(1), here); !errors.Is(err, keyclient.ErrUnavailable) {
				t.Errorf("the question that is not answered: %v", err)
			}
		})
		time.Sleep(time.Second)
		k.mu.Lock()
		k.answered(mafFQDN, time.Now()) // by another question's answer
		k.mu.Unlock()
		all.Wait()
		s.answer(nil, time.Hour)
		if _, err := k.lookUp(t.Context(), identity(2), here); err != nil {
			t.Errorf("the next one: %v", err)
		}
	})
}

func TestOneQuestionPerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: time.Second, lifetime: time.Minute}
		k := newKeyring(s)
		impatient, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { // whoever comes first may leave again
			if _, err := k.lookUp(impatient, identity(1), here); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 100 {
			all.Go(func() {
				if _, err := k.lookUp(t.Context(), identity(1), here); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		all.Wait()
		if n := s.count(); n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// TestFlood: one source that makes up KcIds gets a small rate of questions
// through, and is alone in that.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: keyclient.ErrNotFound}
		k := newKeyring(s)
		limited := 0
		flood := func(n int) {
			for range n {
				_, err := k.lookUp(t.Context(), identity(s.count()+limited), here)
				switch {
				case errors.Is(err, ErrTooManyUnknown):
					limited++
					if errors.Is(err, tlspsk.ErrUnknownIdentity) {
						t.Error("who is limited must not take it for a refusal of the key")
					}
				case !errors.Is(err, keyclient.ErrNotFound):
					t.Error(err)
				}
			}
		}
		flood(1000)
		if n := s.count(); n != defaultMaxUnknown {
			t.Errorf("asked %d times at once", n)
		}
		for range 100 {
			time.Sleep(time.Second)
			flood(100)
		}
		if n := s.count(); n != defaultMaxUnknown+100*defaultUnknownPerSecond {
			t.Errorf("asked %d times in 100 s", n)
		}
		// Keys that we have are not questions, and other sources ask on.
		k.keep(&keyEntry{association: Association{KcID: kcID(1 << 40), Expires: time.Now().Add(time.Hour)}}, 0)
		if _, err := k.lookUp(t.Context(), identity(1<<40), here); err != nil {
			t.Error(err)
		}
		s.err, s.lifetime = nil, time.Hour
		if _, err := k.lookUp(t.Context(), identity(1<<41), netip.MustParsePrefix("192.0.2.2/32")); err != nil {
			t.Error(err)
		}
	})
}

// TestStrangersQuestion: who has asked too much does not spoil it for the owner
// of a KcId by naming that at the same time.
func TestStrangersQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: keyclient.ErrNotFound, delay: time.Second}
		k := newKeyring(s)
		stranger := netip.MustParsePrefix("192.0.2.66/32")
		for n := range defaultMaxUnknown {
			go k.lookUp(context.Background(), identity(n), stranger)
		}
		synctest.Wait()
		s.answer(nil, time.Hour)
		refused := make(chan error, 1)
		go func() {
			_, err := k.lookUp(context.Background(), identity(1<<40), stranger)
			refused <- err
		}()
		if _, err := k.lookUp(t.Context(), identity(1<<40), here); err != nil {
			t.Error(err)
		}
		if err := <-refused; !errors.Is(err, ErrTooManyUnknown) {
			t.Errorf("the stranger: %v", err)
		}
	})
}

// TestFleet: a thousand devices behind one address, and an outage, do not use up
// what one source may ask.
func TestFleet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Hour}
		k := newKeyring(s)
		for n := range 1000 {
			if _, err := k.lookUp(t.Context(), identity(n), here); err != nil {
				t.Fatal(err)
			}
		}
		s.delay, s.err = time.Second, keyclient.ErrUnavailable
		for n := range 2 * defaultMaxUnknown {
			if n == defaultMaxUnknown { // the MAF is back
				synctest.Wait()
				time.Sleep(s.delay + downFor)
				s.answer(nil, time.Hour)
				if _, err := k.lookUp(t.Context(), identity(999_999), here); err != nil { // who finds out
					t.Error(err)
				}
			}
			go k.lookUp(context.Background(), identity(1000+n), here)
		}
		time.Sleep(s.delay)
		synctest.Wait()
		if n := s.count(); n != 1000+2*defaultMaxUnknown+1 {
			t.Errorf("asked %d times", n)
		}
	})
}

func TestBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{err: keyclient.ErrNotFound}
		k := newKeyring(s)
		for n := range 3 * maxAbsent {
			from := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 32)
			k.lookUp(t.Context(), identity(n), from)
		}
		if s.count() != 3*maxAbsent || len(k.absent) != maxAbsent || k.asked.Len() != maxSources {
			t.Errorf("%d questions, %d KcIds and %d sources are remembered", s.count(), len(k.absent), k.asked.Len())
		}
		// Keys that are over make room for others before they fill anything up.
		s.err, s.lifetime = nil, time.Second
		most := 0
		for n := range 20_000 {
			k.lookUp(t.Context(), identity(1<<20+n), here)
			time.Sleep(10 * time.Millisecond) // so 100 are good at a time
			most = max(most, len(k.keys))
		}
		if most > 400 {
			t.Errorf("up to %d keys are kept, with 100 of them good", most)
		}
	})
}

func TestMakeRoom(t *testing.T) {
	m := make(map[int]bool)
	for n := range 1000 {
		makeRoom(m, 100, func(bool) bool { return false })
		m[n] = true
	}
	if len(m) != 100 || !m[999] {
		t.Errorf("%d entries", len(m))
	}
}

// TestExpiresDuringHandshake: a Kc that ends between its lookup and the device's
// Finished opens nothing.
func TestExpiresDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: 2 * time.Second}
		b := &EntityB{keys: newKeyring(s)}
		for _, c := range []struct {
			lifetime time.Duration
			good     bool
		}{{2*time.Second + 1, true}, {2 * time.Second, false}, {time.Second, false}} {
			s.lifetime = c.lifetime
			b.keys.forget()
			device, entityB := net.Pipe()
			server := tlspsk.Server(entityB, b.serverConfig())
			done := make(chan error)
			go func() { done <- server.Handshake() }()
			client := tlspsk.Client(device, &tlspsk.Config{Identity: identity(1), Key: make([]byte, 32)})
			clientErr := client.Handshake()
			serverErr := <-done
			if (clientErr == nil) != c.good || (serverErr == nil) != c.good {
				t.Errorf("with %v left: %v, %v", c.lifetime, clientErr, serverErr)
			}
			if !c.good && (!refusesKey(clientErr) || !errors.Is(serverErr, tlspsk.ErrUnknownIdentity)) {
				t.Errorf("with %v left: %v, %v", c.lifetime, clientErr, serverErr)
			}
			device.Close()
			entityB.Close()
			client.Close()
			server.Close()
		}
	})
}

func TestIdentitiesNeverAsked(t *testing.T) {
	s := &source{}
	k := newKeyring(s)
	for _, id := range []string{"", "@", "meter7@maf.example.com", kcID(1).String() + "\x00", kcID(1).String() + " ", strings.Replace(kcID(1).String(), "maf", "fam", 1)} {
		if _, err := k.lookUp(t.Context(), []byte(id), here); !errors.Is(err, tlspsk.ErrUnknownIdentity) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if s.count() != 0 {
		t.Errorf("asked for %v", s.asked)
	}
	// One KcId in another letter case is the same question.
	s.lifetime = time.Hour
	for _, id := range []string{kcID(0xab).String(), strings.ToLower(kcID(0xab).String())} {
		if _, err := k.lookUp(t.Context(), []byte(id), here); err != nil {
			t.Error(err)
		}
	}
	if !slices.Equal(s.asked, []onem2m.KcID{kcID(0xab)}) {
		t.Errorf("asked for %v", s.asked)
	}
}
