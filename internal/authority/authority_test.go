package authority_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
	"github.com/onem2m-maf/maf/internal/store/storetest"
	"github.com/onem2m-maf/maf/onem2m"
)

var (
	ctx   = context.Background()
	start = time.Date(2031, 5, 4, 3, 2, 1, 500_000_000, time.UTC)
	inCSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
	other = onem2m.CSEID{SP: "sp.example.com", ID: "other-cse"}
	meter = onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"}
)

// maf is an authority over a real store, and the clock that it goes by.
type maf struct {
	*authority.Authority
	t    testing.TB
	dir  string
	keys *seal.Keyset
	db   storetest.Store

	mu  sync.Mutex
	now time.Time // guarded by mu
}

func newMAF(t testing.TB) *maf {
	t.Helper()
	m := &maf{t: t, dir: t.TempDir(), now: start}
	keyset := filepath.Join(t.TempDir(), "keyset.json") // apart from the store, as it should be
	var err error
	if m.keys, err = (seal.File{Path: keyset}).Create(ctx); err != nil {
		t.Fatal(err)
	}
	m.open(nil)
	t.Cleanup(func() { m.db.Close() })
	return m
}

// open opens the store, wrapped in what wrap makes of it, and the authority.
func (m *maf) open(wrap func(storetest.Store) storetest.Store) {
	m.t.Helper()
	db, err := sqlstore.Open(ctx, filepath.Join(m.dir, "maf.db"), sqlstore.Options{CommitInterval: -1})
	if err != nil {
		m.t.Fatal(err)
	}
	m.db = db
	if wrap != nil {
		m.db = wrap(db)
	}
	m.Authority, err = authority.New(ctx, m.config())
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *maf) config() authority.Config {
	return authority.Config{
		FQDNs:   []onem2m.FQDN{"maf.example.com", "maf.example.org"},
		Clients: m.db.Clients(), Keys: m.db.Keys(), Sealer: m.keys, Now: m.clock,
	}
}

func (m *maf) reopen(wrap func(storetest.Store) storetest.Store) {
	m.t.Helper()
	if err := m.db.Close(); err != nil {
		m.t.Error(err)
	}
	m.open(wrap)
}

func (m *maf) clock() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

func (m *maf) sleep(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

func kmID(s string) onem2m.KmID {
	id, err := onem2m.ParseKmID(s)
	if err != nil {
		panic(err)
	}
	return id
}

func (m *maf) add(c authority.Client) secret.Key {
	m.t.Helper()
	if c.IdB.IsZero() {
		c.IdB = inCSE
	}
	_, km, err := m.AddClient(ctx, c, secret.Key{})
	if err != nil {
		m.t.Fatal(err)
	}
	return km
}

// session is a handshake's exporter, which always gives the same 48 octets.
type session [48]byte

func newSession() *session {
	s := new(session)
	rand.Read(s[:])
	return s
}

func (s *session) export(label string, context []byte, length int) ([]byte, error) {
	if label != "EXPORTER-oneM2M-Connection" || context != nil || length != 48 {
		return nil, fmt.Errorf("asked for %d octets under %q with context %q", length, label, context)
	}
	return bytes.Clone(s[:]), nil
}

func (s *session) kcID() onem2m.KcID {
	return onem2m.KcID{Relative: onem2m.RelativeKeyID(s[:16]), FQDN: meter.FQDN}
}

func (s *session) kc() secret.Key { return secret.New(s[16:]) }

// handshake goes through both steps, as the daemon would.
func (m *maf) handshake(id onem2m.KmID, s *session) (authority.Issued, error) {
	master, err := m.MasterKey(ctx, []byte(id.String()), id.FQDN.String())
	if err != nil {
		return authority.Issued{}, err
	}
	return m.Establish(ctx, master, s.export)
}

func (m *maf) mustHandshake(id onem2m.KmID) *session {
	m.t.Helper()
	s := newSession()
	if _, err := m.handshake(id, s); err != nil {
		m.t.Fatal(err)
	}
	return s
}

func (m *maf) update(id onem2m.KmID, change func(*authority.Client)) authority.Client {
	m.t.Helper()
	c, err := m.UpdateClient(ctx, id, func(c *authority.Client) error {
		change(c)
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func TestAddClient(t *testing.T) {
	m := newMAF(t)
	given := secret.New([]byte("sixteen octets!!"))
	c, km, err := m.AddClient(ctx, authority.Client{KmID: meter, IdB: inCSE, Version: 9, Created: start.Add(time.Hour)}, given)
	now := start.Truncate(time.Second)
	want := authority.Client{
		KmID: meter, IdB: inCSE, Lifetime: 24 * time.Hour, Created: now, Updated: now, Version: 1,
	}
	if err != nil || c != want || !km.Equal(given) {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, _, err := m.AddClient(ctx, c, given); !errors.Is(err, authority.ErrExists) {
		t.Errorf("again: %v", err)
	}
	drawn := map[string]bool{}
	for i := range 3 {
		km := m.add(authority.Client{KmID: onem2m.KmID{Relative: fmt.Sprint("drawn", i), FQDN: meter.FQDN}})
		if km.Len() != 32 || drawn[string(km.Bytes())] {
			t.Error("a drawn key is short or not new")
		}
		drawn[string(km.Bytes())] = true
	}
	for range 2 {
		if got, err := m.Client(ctx, meter); err != nil || got != want {
			t.Errorf("Client: %+v, %v", got, err)
		}
		master, err := m.MasterKey(ctx, []byte(meter.String()), "")
		if err != nil || !master.Km.Equal(given) || master.Client != want {
			t.Errorf("MasterKey: %v", err)
		}
		m.reopen(nil)
	}
}

func TestIdentityForms(t *testing.T) {
	m := newMAF(t)
	for i, test := range []struct {
		ae       onem2m.AEID
		cse      onem2m.CSEID
		ae2, cs2 string
	}{
		{},
		{ae: onem2m.AEID{Stem: "Cmeter7"}, ae2: "//sp.example.com/in-cse/Cmeter7"},
		{ae: onem2m.AEID{Stem: "Smeter7", SPRelative: true}, ae2: "//sp.example.com/Smeter7"},
		{ae: onem2m.AEID{SP: "other.example.com", Stem: "Smeter7"}, ae2: "//other.example.com/Smeter7"},
		{cse: onem2m.CSEID{ID: "mn-cse"}, cs2: "//sp.example.com/mn-cse"},
		{cse: onem2m.CSEID{SP: "other.example.com", ID: "mn-cse"}, cs2: "//other.example.com/mn-cse"},
	} {
		c, _, err := m.AddClient(ctx, authority.Client{
			KmID: onem2m.KmID{Relative: fmt.Sprint("m", i), FQDN: meter.FQDN}, IdB: inCSE, AEID: test.ae, CSEID: test.cse,
		}, secret.Key{})
		if err != nil || c.AEID.String() != test.ae2 || c.CSEID.String() != test.cs2 {
			t.Errorf("%v %v became %v %v (%v)", test.ae, test.cse, c.AEID, c.CSEID, err)
		}
		s := m.mustHandshake(c.KmID)
		r, err := m.Release(ctx, inCSE, s.kcID())
		if err != nil || r.AEID != c.AEID || r.CSEID != c.CSEID {
			t.Errorf("released with %v %v (%v)", r.AEID, r.CSEID, err)
		}
	}
}

func TestInvalidClients(t *testing.T) {
	m := newMAF(t)
	good := authority.Client{KmID: meter, IdB: inCSE}
	km := func(n int) secret.Key { return secret.Own(make([]byte, n)) }
	for name, test := range map[string]struct {
		change func(*authority.Client)
		km     secret.Key
		want   string // a part of the error
	}{
		"no KmId":          {func(c *authority.Client) { c.KmID = onem2m.KmID{} }, km(32), "KmId"},
		"upper-case KmId":  {func(c *authority.Client) { c.KmID.Relative = "Meter" }, km(32), "canonical"},
		"bad KmId":         {func(c *authority.Client) { c.KmID.Relative = "a@b" }, km(32), "KmId"},
		"foreign FQDN":     {func(c *authority.Client) { c.KmID.FQDN = "maf.example.net" }, km(32), "served"},
		"no Entity B":      {func(c *authority.Client) { c.IdB = onem2m.CSEID{} }, km(32), "Entity B"},
		"relative B":       {func(c *authority.Client) { c.IdB.SP = "" }, km(32), "absolute"},
		"bad Entity B":     {func(c *authority.Client) { c.IdB.ID = "in/cse" }, km(32), "Entity B"},
		"both identities":  {func(c *authority.Client) { c.AEID.Stem, c.CSEID.ID = "Cx", "mn" }, km(32), "not both"},
		"bad AE-ID":        {func(c *authority.Client) { c.AEID.Stem = "Xmeter" }, km(32), "AE-ID"},
		"bad CSE-ID":       {func(c *authority.Client) { c.CSEID.ID = "mn cse" }, km(32), "CSE-ID"},
		"tiny lifetime":    {func(c *authority.Client) { c.Lifetime = time.Millisecond }, km(32), "lifetime"},
		"short lifetime":   {func(c *authority.Client) { c.Lifetime = authority.MinLifetime - time.Second }, km(32), "lifetime"},
		"negative":         {func(c *authority.Client) { c.Lifetime = -time.Hour }, km(32), "lifetime"},
		"broken lifetime":  {func(c *authority.Client) { c.Lifetime = 1500 * time.Millisecond }, km(32), "lifetime"},
		"long lifetime":    {func(c *authority.Client) { c.Lifetime = authority.MaxLifetime + time.Second }, km(32), "lifetime"},
		"short master key": {func(*authority.Client) {}, km(15), "has 15"},
		"long master key":  {func(*authority.Client) {}, km(65), "has 65"},
	} {
		c := good
		test.change(&c)
		_, _, err := m.AddClient(ctx, c, test.km)
		if !errors.Is(err, authority.ErrInvalid) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if page, err := m.ListClients(ctx, onem2m.KmID{}, 0); err != nil || len(page) != 0 {
		t.Errorf("clients were added: %v %v", page, err)
	}
	for _, n := range []int{16, 64} {
		c := good
		c.KmID.Relative = fmt.Sprint("km", n)
		c.Lifetime = authority.MaxLifetime
		if _, _, err := m.AddClient(ctx, c, km(n)); err != nil {
			t.Errorf("%d octets of Km: %v", n, err)
		}
	}
	// An update is held to the same rules.
	for _, change := range []func(*authority.Client){
		func(c *authority.Client) { c.IdB.SP = "" },
		func(c *authority.Client) { c.KmID.Relative = "other" },
		func(c *authority.Client) { c.Lifetime = time.Millisecond },
	} {
		_, err := m.UpdateClient(ctx, kmID("km16@maf.example.com"), func(c *authority.Client) error { change(c); return nil })
		if !errors.Is(err, authority.ErrInvalid) {
			t.Errorf("update: %v", err)
		}
	}
}

// noting is a Sealer that notes what it was given to seal last.
type noting struct {
	authority.Sealer
	sealed []byte
}

func (n *noting) Seal(plaintext, associatedData []byte) ([]byte, error) {
	n.sealed = plaintext
	return n.Sealer.Seal(plaintext, associatedData)
}

// TestUnwantedKmWiped: a master key that was drawn for nobody is wiped at once.
func TestUnwantedKmWiped(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	config := m.config()
	sealer := &noting{Sealer: m.keys}
	config.Sealer = sealer
	a, err := authority.New(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	sealer.sealed = nil
	if _, _, err := a.AddClient(ctx, authority.Client{KmID: meter, IdB: inCSE}, secret.Key{}); !errors.Is(err, authority.ErrExists) {
		t.Fatal(err)
	}
	if !bytes.Equal(sealer.sealed, make([]byte, authority.NewKm)) {
		t.Errorf("it is still there: %x", sealer.sealed)
	}
}

func TestUpdateClient(t *testing.T) {
	m := newMAF(t)
	km := m.add(authority.Client{KmID: meter, AEID: onem2m.AEID{Stem: "Cmeter7"}})
	before, _ := m.Client(ctx, meter)
	m.sleep(time.Hour)
	after := m.update(meter, func(c *authority.Client) {
		c.IdB, c.AEID, c.CSEID, c.Lifetime = other, onem2m.AEID{}, onem2m.CSEID{ID: "mn"}, time.Minute
		c.Version, c.Created = 77, time.Time{} // not the caller's to change
	})
	want := authority.Client{
		KmID: meter, IdB: other, CSEID: onem2m.CSEID{SP: "sp.example.com", ID: "mn"}, Lifetime: time.Minute,
		Created: before.Created, Updated: before.Created.Add(time.Hour), Version: 2,
	}
	if after != want {
		t.Errorf("got %+v, want %+v", after, want)
	}
	m.sleep(time.Hour)
	if same := m.update(meter, func(c *authority.Client) { c.Version = 5 }); same != want {
		t.Errorf("an update that changes nothing: %+v", same)
	}
	m.reopen(nil)
	if got, err := m.Client(ctx, meter); err != nil || got != want {
		t.Errorf("reopened: %+v, %v", got, err)
	}
	if master, err := m.MasterKey(ctx, []byte(meter.String()), ""); err != nil || !master.Km.Equal(km) {
		t.Errorf("the Km was changed (%v)", err)
	}
	mine := errors.New("mine")
	if _, err := m.UpdateClient(ctx, meter, func(*authority.Client) error { return mine }); err != mine {
		t.Errorf("an error of change became %v", err)
	}
	if _, err := m.UpdateClient(ctx, kmID("no@maf.example.com"), func(*authority.Client) error { return nil }); !errors.Is(err, authority.ErrUnknownClient) {
		t.Errorf("unknown client: %v", err)
	}
}

// Rivals' updates are not lost, and who never gets a turn is told so.
func TestUpdateClientRace(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter, Lifetime: time.Hour})
	inner := func() {
		if _, err := m.UpdateClient(ctx, meter, func(c *authority.Client) error { c.Lifetime += time.Second; return nil }); err != nil {
			t.Error(err)
		}
	}
	calls := 0
	c, err := m.UpdateClient(ctx, meter, func(c *authority.Client) error {
		if calls++; calls <= 3 {
			inner()
		}
		c.Disabled = true
		return nil
	})
	if err != nil || calls != 4 || !c.Disabled || c.Lifetime != time.Hour+3*time.Second {
		t.Errorf("%d calls: %+v, %v", calls, c, err)
	}
	_, err = m.UpdateClient(ctx, meter, func(c *authority.Client) error {
		inner()
		c.Disabled = false
		return nil
	})
	if !errors.Is(err, authority.ErrBusy) {
		t.Errorf("without end: %v", err)
	}
}

func TestListClients(t *testing.T) {
	m := newMAF(t)
	for _, name := range []string{"c", "a", "b"} {
		m.add(authority.Client{KmID: onem2m.KmID{Relative: name, FQDN: meter.FQDN}})
	}
	page, err := m.ListClients(ctx, kmID("a@maf.example.com"), 1)
	if err != nil || len(page) != 1 || page[0].KmID.Relative != "b" || page[0].IdB != inCSE || page[0].Lifetime != authority.DefaultLifetime {
		t.Errorf("%+v, %v", page, err)
	}
}

// The verdict on every psk_identity and SNI.
func TestMasterKey(t *testing.T) {
	m := newMAF(t)
	km := m.add(authority.Client{KmID: meter})
	m.add(authority.Client{KmID: kmID("off@maf.example.com"), Disabled: true})
	org := m.add(authority.Client{KmID: kmID("meter7@maf.example.org")})
	for _, test := range []struct {
		identity, sni string
		km            secret.Key
		err           error
	}{
		{"meter7@maf.example.com", "maf.example.com", km, nil},
		{"meter7@maf.example.com", "", km, nil},
		{"METER7@MAF.example.com", "Maf.Example.COM", km, nil},
		{"meter7@maf.example.org", "maf.example.org", org, nil},
		{"meter8@maf.example.com", "maf.example.com", secret.Key{}, authority.ErrUnknownClient},
		{"off@maf.example.com", "maf.example.com", secret.Key{}, authority.ErrDisabled},
		{"meter7@maf.example.com", "maf.example.org", secret.Key{}, authority.ErrSNIMismatch},
		{"meter7@maf.example.com", "192.0.2.1", secret.Key{}, authority.ErrSNIMismatch},
		{"meter7@maf.example.com", "no name", secret.Key{}, authority.ErrSNIMismatch},
		{"meter7@maf.example.net", "maf.example.net", secret.Key{}, authority.ErrWrongFQDN},
		{"meter7@maf.example.net", "", secret.Key{}, authority.ErrWrongFQDN},
		{"meter7", "maf.example.com", secret.Key{}, authority.ErrMalformedIdentity},
		{"", "", secret.Key{}, authority.ErrMalformedIdentity},
		{"meter7@maf.example.com\x00", "", secret.Key{}, authority.ErrMalformedIdentity},
		{"meter7\x00x@maf.example.com", "", secret.Key{}, authority.ErrMalformedIdentity},
		{" meter7@maf.example.com", "", secret.Key{}, authority.ErrMalformedIdentity},
		{strings.Repeat("m", 70000), "", secret.Key{}, authority.ErrMalformedIdentity},
	} {
		master, err := m.MasterKey(ctx, []byte(test.identity), test.sni)
		if test.err != nil {
			if !errors.Is(err, test.err) || !errors.Is(err, authority.ErrRefused) || master != nil {
				t.Errorf("%.40q, SNI %q: %v", test.identity, test.sni, err)
			}
		} else if err != nil || !master.Km.Equal(test.km) {
			t.Errorf("%.40q, SNI %q: %v", test.identity, test.sni, err)
		}
	}
}

// TestShortestLifetime: even at the worst moment, a key of the shortest lifetime
// is there for a second, which is the least that the key API tells.
func TestShortestLifetime(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter, Lifetime: authority.MinLifetime})
	m.sleep(start.Truncate(time.Second).Add(2*time.Second - 1).Sub(start)) // the last moment of a second
	s := m.mustHandshake(meter)
	if r, err := m.Release(ctx, inCSE, s.kcID()); err != nil || r.Lifetime < time.Second {
		t.Errorf("released with %v left, %v", r.Lifetime, err)
	}
	m.sleep(time.Second + 1)
	if _, err := m.Release(ctx, inCSE, s.kcID()); !errors.Is(err, authority.ErrNotFound) {
		t.Errorf("after its end: %v", err)
	}
}

func TestEstablishAndRelease(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter, AEID: onem2m.AEID{Stem: "Cmeter7"}, Lifetime: time.Hour})
	s := newSession()
	issued, err := m.handshake(meter, s)
	expires := start.Truncate(time.Second).Add(time.Hour)
	if want := (authority.Issued{KcID: s.kcID(), KmID: meter, IdB: inCSE, Expires: expires}); err != nil || issued != want {
		t.Fatalf("issued %+v, %v", issued, err)
	}
	m.sleep(20 * time.Minute)
	for range 2 {
		r, err := m.Release(ctx, inCSE, s.kcID())
		if err != nil || r.KcID != s.kcID() || !r.Kc.Equal(s.kc()) || !r.Expires.Equal(expires) || r.KmID != meter ||
			r.Lifetime != expires.Sub(m.clock()) || r.AEID.String() != "//sp.example.com/in-cse/Cmeter7" || !r.CSEID.IsZero() {
			t.Errorf("released %+v, %v", r, err)
		}
		m.reopen(nil)
	}
	if _, err := m.handshake(meter, s); !errors.Is(err, authority.ErrCollision) {
		t.Errorf("the same RelativeKcId again: %v", err)
	}
	failure := errors.New("no exporter")
	master, err := m.MasterKey(ctx, []byte(meter.String()), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Establish(ctx, master, func(string, []byte, int) ([]byte, error) { return nil, failure }); !errors.Is(err, failure) {
		t.Errorf("the exporter failed: %v", err)
	}
	if _, err := m.Establish(ctx, master, func(string, []byte, int) ([]byte, error) { return make([]byte, 47), nil }); err == nil {
		t.Error("a short export made a key")
	}
}

// What happens between the two steps of a handshake counts in the second.
func TestChangesDuringHandshake(t *testing.T) {
	for name, test := range map[string]struct {
		change func(m *maf)
		err    error
		idB    onem2m.CSEID
		life   time.Duration
	}{
		"nothing":        {func(*maf) {}, nil, inCSE, 24 * time.Hour},
		"disabled":       {func(m *maf) { m.update(meter, func(c *authority.Client) { c.Disabled = true }) }, authority.ErrDisabled, inCSE, 0},
		"another B":      {func(m *maf) { m.update(meter, func(c *authority.Client) { c.IdB = other }) }, nil, other, 24 * time.Hour},
		"lifetime":       {func(m *maf) { m.update(meter, func(c *authority.Client) { c.Lifetime = time.Minute }) }, nil, inCSE, time.Minute},
		"removed":        {func(m *maf) { m.remove(meter) }, authority.ErrUnknownClient, inCSE, 0},
		"registered new": {func(m *maf) { m.remove(meter); m.add(authority.Client{KmID: meter}) }, authority.ErrUnknownClient, inCSE, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMAF(t)
			m.add(authority.Client{KmID: meter})
			master, err := m.MasterKey(ctx, []byte(meter.String()), "")
			if err != nil {
				t.Fatal(err)
			}
			test.change(m)
			s := newSession()
			issued, err := m.Establish(ctx, master, s.export)
			if test.err != nil {
				if !errors.Is(err, test.err) || !errors.Is(err, authority.ErrRefused) {
					t.Errorf("got %v", err)
				}
				m.mustNotRelease("refused", test.idB, s.kcID())
				return
			}
			if err != nil || issued.IdB != test.idB || issued.Expires.Sub(start.Truncate(time.Second)) != test.life {
				t.Errorf("issued %+v, %v", issued, err)
			}
			if r, err := m.Release(ctx, test.idB, s.kcID()); err != nil || !r.Kc.Equal(s.kc()) {
				t.Errorf("Release: %v", err)
			}
		})
	}
}

func (m *maf) remove(id onem2m.KmID) {
	m.t.Helper()
	if err := m.RemoveClient(ctx, id); err != nil {
		m.t.Fatal(err)
	}
}

func (m *maf) mustNotRelease(what string, idB onem2m.CSEID, id onem2m.KcID) {
	m.t.Helper()
	r, err := m.Release(ctx, idB, id)
	if !errors.Is(err, authority.ErrNotFound) || !r.Kc.IsZero() {
		m.t.Errorf("%s: %v was released to %v (%v)", what, id, idB, err)
	}
}

// Who gets Kc, and when not.
func TestReleaseVerdicts(t *testing.T) {
	disable := func(c *authority.Client) { c.Disabled = true }
	enable := func(c *authority.Client) { c.Disabled = false }
	for name, test := range map[string]struct {
		idB  onem2m.CSEID
		do   func(m *maf, id *onem2m.KcID)
		want bool
	}{
		"as issued":            {inCSE, func(*maf, *onem2m.KcID) {}, true},
		"another B":            {other, func(*maf, *onem2m.KcID) {}, false},
		"the relative B":       {onem2m.CSEID{ID: "in-cse"}, func(*maf, *onem2m.KcID) {}, false},
		"B of another SP":      {onem2m.CSEID{SP: "sp.example.org", ID: "in-cse"}, func(*maf, *onem2m.KcID) {}, false},
		"no B":                 {onem2m.CSEID{}, func(*maf, *onem2m.KcID) {}, false},
		"unknown":              {inCSE, func(_ *maf, id *onem2m.KcID) { id.Relative[0] ^= 1 }, false},
		"another of our FQDNs": {inCSE, func(_ *maf, id *onem2m.KcID) { id.FQDN = "maf.example.org" }, false},
		"a foreign FQDN":       {inCSE, func(_ *maf, id *onem2m.KcID) { id.FQDN = "maf.example.net" }, false},
		"almost expired":       {inCSE, func(m *maf, _ *onem2m.KcID) { m.sleep(time.Hour - 501*time.Millisecond) }, true},
		"just expired":         {inCSE, func(m *maf, _ *onem2m.KcID) { m.sleep(time.Hour - 500*time.Millisecond) }, false},
		"long expired":         {inCSE, func(m *maf, _ *onem2m.KcID) { m.sleep(time.Hour * 24) }, false},
		"disabled":             {inCSE, func(m *maf, _ *onem2m.KcID) { m.update(meter, disable) }, false},
		"enabled again":        {inCSE, func(m *maf, _ *onem2m.KcID) { m.update(meter, disable); m.update(meter, enable) }, true},
		"removed":              {inCSE, func(m *maf, _ *onem2m.KcID) { m.remove(meter) }, false},
		"registered anew":      {inCSE, func(m *maf, _ *onem2m.KcID) { m.remove(meter); m.add(authority.Client{KmID: meter}) }, false},
		"moved away":           {inCSE, func(m *maf, _ *onem2m.KcID) { m.update(meter, func(c *authority.Client) { c.IdB = other }) }, false},
		"moved to the asker":   {other, func(m *maf, _ *onem2m.KcID) { m.update(meter, func(c *authority.Client) { c.IdB = other }) }, false},
		"other change":         {inCSE, func(m *maf, _ *onem2m.KcID) { m.update(meter, func(c *authority.Client) { c.Lifetime = time.Minute }) }, true},
		"purged too early":     {inCSE, func(m *maf, _ *onem2m.KcID) { m.Purge(ctx) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMAF(t)
			m.add(authority.Client{KmID: meter, Lifetime: time.Hour})
			s := m.mustHandshake(meter)
			id := s.kcID()
			test.do(m, &id)
			for _, when := range []string{"before", "after reopening"} {
				if test.want {
					if r, err := m.Release(ctx, test.idB, id); err != nil || !r.Kc.Equal(s.kc()) {
						t.Errorf("%s: %v", when, err)
					}
				} else {
					m.mustNotRelease(when, test.idB, id)
				}
				m.reopen(nil)
			}
		})
	}
}

// The row of a removed client's key may be left behind, for instance by a crash
// between the two steps of RemoveClient. It must stay dead.
func TestKeyOutlivesClient(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	s := m.mustHandshake(meter)
	row, err := m.db.Clients().Get(ctx, meter)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.db.Clients().Remove(ctx, meter, row.UID); err != nil { // step 1 only
		t.Fatal(err)
	}
	m.mustNotRelease("removed", inCSE, s.kcID())
	m.add(authority.Client{KmID: meter})
	m.mustNotRelease("registered anew", inCSE, s.kcID())
	if _, err := m.db.Keys().Get(ctx, s.kcID()); err != nil {
		t.Errorf("the row is gone, so the test shows nothing: %v", err)
	}
}

// A row that was changed behind the authority's back in the middle of something
// is found out there too.
func TestTamperedMeanwhile(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	master, err := m.MasterKey(ctx, []byte(meter.String()), "")
	if err != nil {
		t.Fatal(err)
	}
	row, err := m.db.Clients().Get(ctx, meter)
	if err != nil {
		t.Fatal(err)
	}
	row.IdB = other // and the box still says in-cse
	if err := m.db.Clients().Update(ctx, row); err != nil {
		t.Fatal(err)
	}
	s := newSession()
	if _, err := m.Establish(ctx, master, s.export); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("Establish: %v", err)
	}
	m.mustNotRelease("after all", other, s.kcID())
	// An update must not bless what it finds.
	_, err = m.UpdateClient(ctx, meter, func(c *authority.Client) error { c.Lifetime = time.Minute; return nil })
	if !errors.Is(err, seal.ErrOpen) {
		t.Errorf("UpdateClient: %v", err)
	}
}

// A name that the configuration no longer has is served no longer, whatever the
// store holds.
func TestWithdrawnName(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	s := m.mustHandshake(meter)
	c := m.config()
	c.FQDNs = c.FQDNs[1:]
	var err error
	if m.Authority, err = authority.New(ctx, c); err != nil {
		t.Fatal(err)
	}
	if _, err := m.handshake(meter, newSession()); !errors.Is(err, authority.ErrWrongFQDN) {
		t.Errorf("handshake: %v", err)
	}
	m.mustNotRelease("withdrawn", inCSE, s.kcID())
}

func TestRemoveClient(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter})
	m.add(authority.Client{KmID: kmID("other@maf.example.com")})
	gone, stays := m.mustHandshake(meter), m.mustHandshake(kmID("other@maf.example.com"))
	m.remove(meter)
	if err := m.RemoveClient(ctx, meter); !errors.Is(err, authority.ErrUnknownClient) {
		t.Errorf("again: %v", err)
	}
	if _, err := m.db.Keys().Get(ctx, gone.kcID()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the row of its key: %v", err)
	}
	if _, err := m.Release(ctx, inCSE, stays.kcID()); err != nil {
		t.Errorf("another client's key: %v", err)
	}
}

func TestPurge(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter, Lifetime: time.Minute})
	for range 5 {
		m.mustHandshake(meter)
		m.sleep(10 * time.Second)
	}
	m.sleep(20 * time.Second) // the first two are over
	for _, want := range []int{2, 0} {
		if n, err := m.Purge(ctx); err != nil || n != want {
			t.Errorf("purged %d keys (%v), want %d", n, err, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	m := newMAF(t)
	good := m.config()
	for name, change := range map[string]func(*authority.Config){
		"no name":    func(c *authority.Config) { c.FQDNs = nil },
		"bad name":   func(c *authority.Config) { c.FQDNs = []onem2m.FQDN{"MAF.example.com."} },
		"no clients": func(c *authority.Config) { c.Clients = nil },
		"no keys":    func(c *authority.Config) { c.Keys = nil },
		"no sealer":  func(c *authority.Config) { c.Sealer = nil },
	} {
		c := good
		change(&c)
		if _, err := authority.New(ctx, c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// With the keyset lost and a new one made, a MAF that starts would refuse
	// every device and issue keys beside the old rows.
	wrong, err := seal.File{Path: filepath.Join(t.TempDir(), "keyset.json")}.Create(ctx)
	if err != nil {
		t.Fatal(err)
	}
	good.Sealer = wrong
	if _, err := authority.New(ctx, good); err != nil {
		t.Errorf("an empty store fits every keyset: %v", err)
	}
	m.add(authority.Client{KmID: meter})
	if _, err := authority.New(ctx, good); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("another keyset: %v", err)
	}
}
