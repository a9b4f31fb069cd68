package saef

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
)

// testLog is a log that can be read while it is written.
type testLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *testLog) has(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// waitFor waits until the condition holds, for a long time if need be.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// site is a MAF and an Entity B that follows it.
type site struct {
	*fakeMAF
	b        *EntityB
	listener *Listener
	refusals <-chan Refusal
	log      *testLog
}

func newSite(t *testing.T, network string) *site {
	t.Helper()
	s := &site{fakeMAF: newMAF(t), log: new(testLog)}
	s.b, s.refusals = s.entityB(t, inCSE)
	s.b.Log = slog.New(slog.NewTextHandler(s.log, nil))
	var err error
	if s.listener, err = s.b.Listen(network, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.listener.Close() })
	s.waitFollowed(t)
	return s
}

func (s *site) waitFollowed(t *testing.T) {
	t.Helper()
	waitFollowed(t, s.b)
}

// waitFollowed waits until revocations are followed, and what is held by then is
// not asked for again.
func waitFollowed(t *testing.T, b *EntityB) {
	t.Helper()
	waitFor(t, "revocations are followed", func() bool { return b.Status()[0].Blind == nil })
}

// open opens an association, and returns both its ends.
func (s *site) open(t *testing.T, d *Device) (device net.Conn, entityB *Conn) {
	t.Helper()
	addr := s.listener.Addr()
	c, err := d.Dial(t.Context(), addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if entityB, err = s.listener.AcceptAssociation(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { entityB.Close() })
	deadline := time.Now().Add(time.Minute)
	c.SetDeadline(deadline)
	entityB.SetDeadline(deadline)
	return c, entityB
}

// goesOn checks that an association carries data.
func goesOn(t *testing.T, device net.Conn, entityB *Conn) {
	t.Helper()
	buf := make([]byte, 100)
	if _, err := device.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if n, err := entityB.Read(buf); err != nil || string(buf[:n]) != "hello" || entityB.Revoked() {
		t.Errorf("%q, %v, revoked %v", buf[:n], err, entityB.Revoked())
	}
}

// isEnded checks that a revocation has closed an association, at both ends.
func isEnded(t *testing.T, device net.Conn, entityB *Conn) {
	t.Helper()
	if _, err := device.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the device gets %v", err)
	}
	if _, err := entityB.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) || !entityB.Revoked() {
		t.Errorf("Entity B gets %v, revoked %v", err, entityB.Revoked())
	}
}

var meter8 = onem2m.KmID{Relative: "meter8", FQDN: mafFQDN}

// second makes another device known and returns it.
func (s *site) second() *Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[meter8] = &fakeClient{km: km, idB: inCSE, lifetime: time.Hour}
	return &Device{MAF: s.tcp, KmID: meter8, Km: km}
}

func TestRevocation(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		t.Run(network, func(t *testing.T) {
			s := newSite(t, network)
			d := s.device()
			one, oneB := s.open(t, d)
			if _, err := d.Handshake(t.Context()); err != nil {
				t.Fatal(err)
			}
			two, twoB := s.open(t, d)
			other, otherB := s.open(t, s.second())

			// One Kc: what goes by another of the same device goes on.
			before := s.asked.Load()
			s.revoke(authority.Revocation{KmID: meter, KcID: oneB.Association().KcID})
			isEnded(t, one, oneB)
			goesOn(t, two, twoB)
			// All of a device.
			s.revoke(authority.Revocation{KmID: meter})
			isEnded(t, two, twoB)
			goesOn(t, other, otherB)
			if n := s.asked.Load(); n != before {
				t.Errorf("the MAF was asked %d times", n-before)
			}
			// The key is not kept: the device is refused, and makes a new one.
			handshakes := s.handshakes.Load()
			again, againB := s.open(t, d)
			goesOn(t, again, againB)
			if s.handshakes.Load() != handshakes+1 {
				t.Error("a revoked key opened an association")
			}
			if !s.log.has("msg=revoked KmID=meter7@maf.example.com") {
				t.Errorf("the log says %s", &s.log.b)
			}
		})
	}
}

// What is revoked while the MAF's key API is away ends when it is back, and
// nothing else.
func TestRevocationWhileAway(t *testing.T) {
	s := newSite(t, "tcp")
	c, b := s.open(t, s.device())
	other, otherB := s.open(t, s.second())
	s.stopKeyAPI()
	waitFor(t, "the log says so", func() bool { return s.log.has("can't be followed") })
	if st := s.b.Status()[0]; st.Blind == nil || st.MAF != mafFQDN || st.Address != s.keyAPI {
		t.Errorf("%+v", st)
	}
	s.revoke(authority.Revocation{KmID: meter})
	goesOn(t, c, b)
	asked := s.asked.Load()
	s.serveKeyAPI(t)
	isEnded(t, c, b)
	goesOn(t, other, otherB)
	if !s.log.has("followed again") || s.asked.Load() != asked {
		t.Errorf("asked %d times; %s", s.asked.Load()-asked, &s.log.b)
	}
}

// When the MAF no longer knows what Entity B has heard of, every key is asked for
// again: those that are gone or another's now end, and the others stay.
func TestRevocationStartOver(t *testing.T) {
	s := newSite(t, "tcp")
	gone, goneB := s.open(t, s.device())
	other, otherB := s.open(t, s.second())
	d := s.device()
	d.KmID.Relative = "meter9"
	s.mu.Lock()
	s.clients[d.KmID] = &fakeClient{km: km, idB: inCSE, lifetime: time.Hour, aeID: aeID}
	s.mu.Unlock()
	renamed, renamedB := s.open(t, d)

	s.mu.Lock()
	delete(s.released, goneB.Association().KcID)
	kc := s.released[renamedB.Association().KcID]
	kc.AEID.Stem = "Cnew"
	s.released[kc.KcID] = kc
	s.mu.Unlock()
	s.dropLog()
	isEnded(t, gone, goneB)
	isEnded(t, renamed, renamedB)
	goesOn(t, other, otherB)
}

// TestMAFAway: associations go on, a Kc that is known opens new ones, and other
// devices fail at once, which the log and the refusal say.
func TestMAFAway(t *testing.T) {
	s := newSite(t, "tcp")
	known := s.device()
	c, b := s.open(t, known)
	stranger := s.second()
	if _, err := stranger.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.stopKeyAPI()
	goesOn(t, c, b)
	again, againB := s.open(t, known)
	goesOn(t, again, againB)
	for range 3 {
		_, err := stranger.Dial(t.Context(), "tcp", s.listener.Addr().String())
		if !errors.Is(err, ErrEntityB) || errors.Is(err, ErrMAF) || refusesKey(err) {
			t.Errorf("the device gets %v", err)
		}
		if r := <-s.refusals; !errors.Is(r.Err, ErrMAFUnavailable) {
			t.Errorf("Entity B: %v", r.Err)
		}
	}
	if st := s.b.Status()[0]; st.Down == nil || st.DownSince.IsZero() || !s.log.has("the MAF does not answer") {
		t.Errorf("%+v; %s", st, &s.log.b)
	}
	s.serveKeyAPI(t)
	s.waitFollowed(t)
	waitFor(t, "the MAF answers again", func() bool { return s.b.Status()[0].Down == nil })
	waitFor(t, "the stranger gets in", func() bool {
		c, err := stranger.Dial(t.Context(), "tcp", s.listener.Addr().String())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// TestErrors: a device can tell who refused it.
func TestErrors(t *testing.T) {
	s := newSite(t, "tcp")
	addr := s.listener.Addr().String()
	for name, c := range map[string]struct {
		edit func(*Device)
		addr string
		want error
	}{
		"the MAF is away":       {func(d *Device) { d.MAF = "127.0.0.1:1" }, addr, ErrMAF},
		"the MAF refuses":       {func(d *Device) { d.Km = NewSecret(make([]byte, 32)) }, addr, ErrMAF},
		"no key at all":         {func(d *Device) { d.Km = Secret{} }, addr, ErrMAF},
		"Entity B is away":      {func(*Device) {}, "127.0.0.1:1", ErrEntityB},
		"Entity B is not asked": {func(*Device) {}, "127.0.0.1", ErrEntityB},
	} {
		d := s.device()
		c.edit(d)
		_, err := d.Dial(t.Context(), "tcp", c.addr)
		if !errors.Is(err, c.want) || errors.Is(err, ErrMAF) && errors.Is(err, ErrEntityB) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.device().Dial(ended, "tcp", addr); !errors.Is(err, ErrMAF) || !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// TestNewCertificates: the MAF's authority is replaced. Entity B goes on once it
// has the new one, without a restart.
func TestNewCertificates(t *testing.T) {
	s := newSite(t, "tcp")
	c, b := s.open(t, s.device())
	s.stopKeyAPI()
	ca, err := pki.New("another", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s.ca = ca
	s.serveKeyAPI(t)
	waitFor(t, "the new certificate is not trusted", func() bool {
		err := s.b.Status()[0].Blind
		return err != nil && strings.Contains(err.Error(), "unknown authority")
	})
	goesOn(t, c, b)

	issued, err := ca.EntityB(inCSE, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(issued.CertificatePEM, issued.KeyPEM.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.b.SetCertificates(cert, ca.Pool()); err != nil {
		t.Fatal(err)
	}
	s.waitFollowed(t)
	other, otherB := s.open(t, s.second())
	goesOn(t, other, otherB)
	s.revoke(authority.Revocation{KmID: meter})
	isEnded(t, c, b)
}

// TestTwoAddresses: with one of two addresses down, all works through the other.
func TestTwoAddresses(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	b.MAFs[mafFQDN] = "https://127.0.0.1:1 " + m.keyAPI
	l, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &site{fakeMAF: m, b: b, listener: l}
	s.waitFollowed(t)
	c, conn := s.open(t, m.device())
	goesOn(t, c, conn)
	m.revoke(authority.Revocation{KmID: meter})
	isEnded(t, c, conn)
	if st := b.Status()[0]; st.Address != m.keyAPI {
		t.Errorf("%+v", st)
	}
}

// TestFeedRests: nobody follows when nobody needs it, and who needs it again
// obeys what came in between.
func TestFeedRests(t *testing.T) {
	s := newSite(t, "tcp")
	d := s.device()
	c, b := s.open(t, d)
	s.listener.Close()
	goesOn(t, c, b)
	if s.b.Status()[0].Blind != nil {
		t.Error("the association is not followed")
	}
	b.Close()
	waitFor(t, "nobody follows", func() bool { return s.b.Status()[0].Blind != nil })
	s.revoke(authority.Revocation{KmID: meter})

	var err error
	if s.listener, err = s.b.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	waitFor(t, "the key is forgotten", func() bool {
		s.b.keys.mu.Lock()
		defer s.b.keys.mu.Unlock()
		return len(s.b.keys.keys) == 0
	})
	s.open(t, d)
	if n := s.handshakes.Load(); n != 2 {
		t.Errorf("%d MAF Handshakes", n)
	}
}

func TestMaxUnknown(t *testing.T) {
	for _, c := range []struct{ max, perSecond, burst int }{{0, 0, defaultMaxUnknown}, {3, 0, 3}, {3, 1, 3}, {-1, 0, 1 << 40}, {3, -1, 1 << 40}} {
		r := (&EntityB{MaxUnknown: c.max, UnknownPerSecond: c.perSecond}).askRate()
		if r.Burst < c.burst || c.burst < 1000 && r.Burst != c.burst {
			t.Errorf("%+v: %+v", c, r)
		}
	}
}

// TestOvertaken: an answer that is older than a revocation is asked for again, and
// one that always is opens nothing.
func TestOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{delay: time.Second, lifetime: time.Hour}
		k := newKeyring(s)
		revoke := func(r keyapi.Revocation, after time.Duration) {
			time.Sleep(after)
			k.revoke([]keyapi.Revocation{r})
		}
		go revoke(keyapi.Revocation{KmID: meter}, time.Second/2)
		if _, err := k.begin(t.Context(), identity(1), here, func() {}); err != nil || s.count() != 2 {
			t.Errorf("asked %d times, %v", s.count(), err)
		}
		go revoke(keyapi.Revocation{KmID: meter, KcID: kcID(99)}, time.Second/2)
		go revoke(keyapi.Revocation{KmID: meter8}, time.Second/2)
		if _, err := k.begin(t.Context(), identity(2), here, func() {}); err != nil || s.count() != 3 {
			t.Errorf("what was revoked was another key: asked %d times, %v", s.count(), err)
		}
		go func() {
			for range 10 {
				revoke(keyapi.Revocation{KmID: meter}, time.Second/2)
			}
		}()
		if _, err := k.begin(t.Context(), identity(3), here, func() {}); !errors.Is(err, ErrRevoked) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Minute)
		// More than are remembered.
		go func() {
			time.Sleep(time.Second / 2)
			k.missed()
		}()
		before := s.count()
		if _, err := k.begin(t.Context(), identity(4), here, func() {}); err != nil || s.count() != before+2 {
			t.Errorf("asked %d times, %v", s.count()-before, err)
		}
	})
}

// TestRevokedDuringHandshake: from the lookup on, a revocation ends the handshake.
func TestRevokedDuringHandshake(t *testing.T) {
	s := &source{lifetime: time.Hour}
	k := newKeyring(s)
	ended := 0
	u, err := k.begin(t.Context(), identity(1), here, func() { ended++ })
	if err != nil {
		t.Fatal(err)
	}
	done, err := k.begin(t.Context(), identity(1), here, func() { t.Error("one that is over was ended") })
	if err != nil {
		t.Fatal(err)
	}
	k.end(done)
	k.revoke([]keyapi.Revocation{{KmID: meter}})
	k.revoke([]keyapi.Revocation{{KmID: meter}})
	if ended != 1 || !u.revoked.Load() || k.change(u, func() {}) {
		t.Errorf("ended %d times", ended)
	}
	k.end(u)
	if len(k.devices)+len(k.keys) != 0 {
		t.Errorf("%d devices and %d keys are left", len(k.devices), len(k.keys))
	}
}

// TestDevicesAreForgotten: the index of devices holds what there is, and no more.
func TestDevicesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Minute}
		k := newKeyring(s)
		var uses []*use
		for n := range 100 {
			u, err := k.begin(t.Context(), identity(n), here, func() {})
			if err != nil {
				t.Fatal(err)
			}
			uses = append(uses, u)
		}
		if d := k.devices[meter]; len(k.devices) != 1 || len(d.keys) != 100 || len(d.uses) != 100 {
			t.Errorf("%d devices: %+v", len(k.devices), d)
		}
		k.forget()
		if d := k.devices[meter]; len(d.keys) != 0 || len(d.uses) != 100 {
			t.Errorf("%+v", d)
		}
		for _, u := range uses {
			k.end(u)
		}
		if len(k.devices) != 0 {
			t.Errorf("%d devices", len(k.devices))
		}
	})
}

// scripted is a feed that answers what it is told to.
type scripted struct {
	answers chan func() ([]keyapi.Revocation, bool, error)
	resets  atomic.Int64
}

func (f *scripted) Next(ctx context.Context) ([]keyapi.Revocation, bool, error) {
	select {
	case answer := <-f.answers:
		return answer()
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

func (f *scripted) Reset() { f.resets.Add(1) }

// TestFollower: how often a MAF is tried that is away or has no feed, and that an
// unfinished asking for all keys is begun again.
func TestFollower(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{lifetime: time.Hour}
		k := newKeyring(s)
		if _, err := k.lookUp(t.Context(), identity(1), here); err != nil {
			t.Fatal(err)
		}
		feed := &scripted{answers: make(chan func() ([]keyapi.Revocation, bool, error))}
		f := newFollower(k, feed, mafFQDN)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { f.run(ctx) })
		answer := func(list []keyapi.Revocation, startOver bool, err error) time.Duration {
			before := time.Now()
			feed.answers <- func() ([]keyapi.Revocation, bool, error) { return list, startOver, err }
			synctest.Wait()
			return time.Since(before)
		}
		for range 20 {
			if d := answer(nil, false, keyclient.ErrUnavailable); d > retryMax {
				t.Errorf("tried again after %v", d)
			}
		}
		answer(nil, false, keyclient.ErrNoFeed)
		if d := answer(nil, false, keyclient.ErrNoFeed); d < noFeedRetry/2 || d > noFeedRetry {
			t.Errorf("a MAF without a feed is tried again after %v", d)
		}
		some := []keyapi.Revocation{{KmID: onem2m.KmID{Relative: "other", FQDN: mafFQDN}}}
		answer(some, false, nil)
		if d := answer(some, false, nil); d != 0 {
			t.Errorf("a feed with revocations is asked again after %v", d)
		}
		// One that has none, and keeps nobody waiting, is not asked all the time.
		for _, startOver := range []bool{false, true} {
			begun := time.Now()
			for range 100 {
				if d := answer(nil, startOver, nil); d > quickMax {
					t.Errorf("an empty feed is asked again after %v", d)
				}
			}
			if d := time.Since(begun); d < 10*time.Second {
				t.Errorf("an empty feed is asked 100 times in %v", d)
			}
		}
		// All keys are asked for while the MAF gives no answers to that.
		s.answer(keyclient.ErrUnavailable, 0)
		answer(nil, true, nil)
		time.Sleep(time.Minute)
		cancel()
		running.Wait()
		if feed.resets.Load() != 1 {
			t.Errorf("%d resets", feed.resets.Load())
		}
		if len(k.keys) != 1 {
			t.Error("a key was dropped because the MAF did not answer")
		}
		ctx, cancel = context.WithCancel(t.Context())
		running.Go(func() { f.run(ctx) })
		answer(nil, true, nil)
		s.answer(keyclient.ErrNotFound, 0)
		time.Sleep(time.Minute)
		cancel()
		running.Wait()
		if feed.resets.Load() != 1 || len(k.keys) != 0 {
			t.Errorf("%d resets, %d keys", feed.resets.Load(), len(k.keys))
		}
	})
}
