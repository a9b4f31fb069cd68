package authority_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/storetest"
	"github.com/onem2m-maf/maf/onem2m"
)

func someKm(b byte) secret.Key { return secret.New([]byte(strings.Repeat(string(rune(b)), 32))) }

// mustKm demands that the client has this Km.
func (m *maf) mustKm(want secret.Key) {
	m.t.Helper()
	_, kms, err := m.ListMasterKeys(ctx, onem2m.KmID{}, 10)
	if err != nil || len(kms) != 1 || !kms[0].Equal(want) {
		m.t.Errorf("the client has another key (%d, %v)", len(kms), err)
	}
}

func TestImportClient(t *testing.T) {
	m := newMAF(t)
	in := authority.Import{Client: authority.Client{KmID: meter, IdB: inCSE}, DefaultLifetime: 2 * time.Hour, Km: someKm('a')}
	do := func(what string, change func(*authority.Import), want authority.Outcome, wantErr error, text string) {
		t.Helper()
		next := in
		change(&next)
		got, err := m.ImportClient(ctx, next)
		if got != want || !errors.Is(err, wantErr) || err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	as := func(change func(*authority.Import)) func(*authority.Import) {
		return func(in *authority.Import) { in.DryRun = true; change(in) }
	}
	asItIs := func(*authority.Import) {}
	noKm := func(in *authority.Import) { in.Km = secret.Key{} }
	otherKm := func(in *authority.Import) { in.Km = someKm('b') }
	otherB := func(in *authority.Import) { in.Client.IdB = other }
	update := func(in *authority.Import) { in.Update = true; in.Client.IdB = other; in.Km = someKm('b') }

	do("without a key", noKm, 0, authority.ErrInvalid, "no master key")
	do("a short key", func(in *authority.Import) { in.Km = secret.New([]byte("short")) }, 0, authority.ErrInvalid, "5 octets")
	do("another MAF's", func(in *authority.Import) { in.Client.KmID.FQDN = "else.example" }, 0, authority.ErrInvalid, "not served")
	do("dry", as(asItIs), authority.Added, nil, "")
	if _, err := m.Client(ctx, meter); !errors.Is(err, authority.ErrUnknownClient) {
		t.Errorf("after a dry run: %v", err)
	}
	do("first", asItIs, authority.Added, nil, "")
	m.mustKm(someKm('a'))
	before, err := m.Client(ctx, meter)
	if err != nil || before.Lifetime != 2*time.Hour {
		t.Errorf("%+v, %v", before, err)
	}
	do("again", asItIs, authority.Same, nil, "")
	do("dry again", as(asItIs), authority.Same, nil, "")
	do("again without a key", noKm, authority.Same, nil, "")
	do("with another default", func(in *authority.Import) { in.DefaultLifetime = time.Hour }, authority.Same, nil, "")
	do("another key", otherKm, 0, authority.ErrDiffers, "another master key")
	do("configured otherwise", otherB, 0, authority.ErrDiffers, "configured otherwise")
	do("another lifetime", func(in *authority.Import) { in.Client.Lifetime = time.Hour }, 0, authority.ErrDiffers, "configured otherwise")
	do("dry update", as(update), authority.Updated, nil, "")
	if after, err := m.Client(ctx, meter); err != nil || after != before {
		t.Errorf("nothing was to change: %+v, %v", after, err)
	}
	m.mustKm(someKm('a'))

	do("update", update, authority.Updated, nil, "")
	m.mustKm(someKm('b'))
	do("update again", update, authority.Same, nil, "")
	do("update without a key", func(in *authority.Import) { in.Update = true; noKm(in) }, authority.Updated, nil, "")
	m.mustKm(someKm('b'))
	after, err := m.Client(ctx, meter)
	before.Version, before.Updated = 3, after.Updated
	if err != nil || after != before {
		t.Errorf("%+v, %v; want %+v", after, err, before)
	}
	// The caller's keys are as they were.
	if !in.Km.Equal(someKm('a')) {
		t.Error("the import's key was changed")
	}
}

// TestImportedKeyWorks: a device comes in with the key that was imported over
// another one.
func TestImportedKeyWorks(t *testing.T) {
	m := newMAF(t)
	m.add(authority.Client{KmID: meter, IdB: inCSE})
	in := authority.Import{Client: authority.Client{KmID: meter, IdB: inCSE}, Km: someKm('b'), Update: true}
	if outcome, err := m.ImportClient(ctx, in); outcome != authority.Updated || err != nil {
		t.Fatal(outcome, err)
	}
	got, err := m.MasterKey(ctx, []byte(meter.String()), "")
	if err != nil || !got.Km.Equal(someKm('b')) {
		t.Errorf("the handshake gets another key (%v)", err)
	}
}

// TestImportTampered: a row that somebody wrote into the database is neither
// taken for the same nor blessed by an update.
func TestImportTampered(t *testing.T) {
	m := newMAF(t)
	km := m.add(authority.Client{KmID: meter, IdB: inCSE})
	row, err := m.db.Clients().Get(ctx, meter)
	if err != nil {
		t.Fatal(err)
	}
	row.IdB = other
	if err := m.db.Clients().Update(ctx, row); err != nil {
		t.Fatal(err)
	}
	for _, update := range []bool{false, true} {
		got, err := m.ImportClient(ctx, authority.Import{Client: authority.Client{KmID: meter, IdB: other}, Km: km, Update: update})
		if err == nil || !strings.Contains(err.Error(), "tampered") {
			t.Errorf("%v, %v", got, err)
		}
	}
	if _, _, err := m.ListMasterKeys(ctx, onem2m.KmID{}, 10); err == nil {
		t.Error("the key is exported")
	}
}

// rival removes or changes a client whenever it is looked up, the first time.
type rival struct {
	store.ClientStore
	once sync.Once
	act  func(store.ClientStore, store.Client)
}

func (r *rival) Get(ctx context.Context, id onem2m.KmID) (store.Client, error) {
	c, err := r.ClientStore.Get(ctx, id)
	if err == nil {
		r.once.Do(func() { r.act(r.ClientStore, c) })
	}
	return c, err
}

type rivalStore struct {
	storetest.Store
	clients store.ClientStore
}

func (s rivalStore) Clients() store.ClientStore { return s.clients }

// TestImportRace: somebody else changes or removes the client in between; the
// import decides again.
func TestImportRace(t *testing.T) {
	for name, c := range map[string]struct {
		act  func(store.ClientStore, store.Client)
		want authority.Outcome
	}{
		"changed": {func(s store.ClientStore, c store.Client) { c.Updated = c.Updated.Add(time.Second); s.Update(ctx, c) }, authority.Updated},
		"removed": {func(s store.ClientStore, c store.Client) { s.Remove(ctx, c.KmID, c.UID) }, authority.Added},
	} {
		m := newMAF(t)
		m.add(authority.Client{KmID: meter, IdB: inCSE})
		m.reopen(func(s storetest.Store) storetest.Store {
			return rivalStore{s, &rival{ClientStore: s.Clients(), act: c.act}}
		})
		got, err := m.ImportClient(ctx, authority.Import{Client: authority.Client{KmID: meter, IdB: other}, Km: someKm('c'), Update: true})
		if got != c.want || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		m.mustKm(someKm('c'))
	}
}

func TestListMasterKeys(t *testing.T) {
	m := newMAF(t)
	var want []secret.Key
	for i := range 5 {
		want = append(want, m.add(authority.Client{KmID: kmID(fmt.Sprintf("m%d@maf.example.com", i)), IdB: inCSE}))
	}
	clients, kms, err := m.ListMasterKeys(ctx, kmID("m0@maf.example.com"), 3)
	if err != nil || len(clients) != 3 || len(kms) != 3 {
		t.Fatal(len(clients), len(kms), err)
	}
	for i := range clients {
		if clients[i].KmID != kmID(fmt.Sprintf("m%d@maf.example.com", i+1)) || !kms[i].Equal(want[i+1]) {
			t.Errorf("client %d is %v, or its key another's", i, clients[i].KmID)
		}
	}
}
