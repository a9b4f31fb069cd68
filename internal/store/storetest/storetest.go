// Package storetest checks a store against the contracts of package store.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Store is what is tested: both roles over one set of data.
type Store interface {
	Clients() store.ClientStore
	Keys() store.KeyStore
	Close() error
}

// Run runs the suite. create makes an empty place for data and returns a
// function that opens a store there; the suite closes it before it opens the
// same place again.
func Run(t *testing.T, create func(t *testing.T) (open func() (Store, error))) {
	for name, test := range map[string]func(*testing.T, *place){
		"ClientAdd":         testClientAdd,
		"ClientUpdate":      testClientUpdate,
		"ClientRemove":      testClientRemove,
		"ClientList":        testClientList,
		"ClientListStable":  testClientListStable,
		"ClientAddRace":     testClientAddRace,
		"ClientUpdateRace":  testClientUpdateRace,
		"ClientReadNewest":  testClientReadNewest,
		"KeyCommit":         testKeyCommit,
		"KeyExists":         testKeyExists,
		"KeyCommitRace":     testKeyCommitRace,
		"KeyManyCommits":    testKeyManyCommits,
		"KeyPurge":          testKeyPurge,
		"KeyPurgeUnderLoad": testKeyPurgeUnderLoad,
		"KeyRemoveByClient": testKeyRemoveByClient,
		"Boxes":             testBoxes,
		"EndedContext":      testEndedContext,

		"RevocationOfClient": testRevocationOfClient,
		"RevocationOfKey":    testRevocationOfKey,
		"RevocationRace":     testRevocationRace,
		"RevocationPages":    testRevocationPages,
		"RevocationFollow":   testRevocationFollow,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &place{t: t, open: create(t)}
			t.Cleanup(p.close)
			p.reopen()
			test(t, p)
		})
	}
}

// place is where a test has its data.
type place struct {
	t    *testing.T
	open func() (Store, error)
	Store
}

func (p *place) close() {
	if p.Store == nil {
		return
	}
	if err := p.Store.Close(); err != nil {
		p.t.Errorf("Close: %v", err)
	}
	p.Store = nil
}

func (p *place) reopen() {
	p.t.Helper()
	p.close()
	s, err := p.open()
	if err != nil {
		p.t.Fatalf("opening: %v", err)
	}
	p.Store = s
}

// nowAndReopened runs the check on the store as it is and after it was opened
// again: what is true must also be stored.
func (p *place) nowAndReopened(check func(when string)) {
	p.t.Helper()
	check("before reopening")
	p.reopen()
	check("after reopening")
}

// must stops the test at an error that should not be.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", what, got, want)
	}
}

var epoch = time.Date(2031, 5, 4, 3, 2, 1, 0, time.UTC)

func kmID(n int) onem2m.KmID {
	return onem2m.KmID{Relative: fmt.Sprintf("meter-%05d", n), FQDN: "maf.example.com"}
}

func client(n int) store.Client {
	return store.Client{
		KmID:     kmID(n),
		UID:      store.UID(n) - 7, // some are negative
		Version:  1,
		IdB:      onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"},
		AEID:     onem2m.AEID{SP: "sp.example.com", CSE: "in-cse", Stem: fmt.Sprintf("C%d", n)},
		Lifetime: time.Hour,
		Created:  epoch,
		Updated:  epoch,
		SealedKm: fmt.Appendf(nil, "\x00\xff box of Km %d", n),
	}
}

func (p *place) wantClient(when string, want store.Client) {
	p.t.Helper()
	got, err := p.Clients().Get(context.Background(), want.KmID)
	if err != nil {
		p.t.Errorf("%s: %v: %v", when, want.KmID, err)
	} else if !reflect.DeepEqual(got, want) {
		p.t.Errorf("%s:\n got %+v\nwant %+v", when, got, want)
	}
}

func (p *place) wantNoClient(when string, id onem2m.KmID) {
	p.t.Helper()
	_, err := p.Clients().Get(context.Background(), id)
	wantError(p.t, when+": Get "+id.String(), err, store.ErrNotFound)
}

func kcID(n int) onem2m.KcID {
	id := onem2m.KcID{FQDN: "maf.example.com"}
	// The number stands last, so that order of arrival isn't order of identifiers.
	id.Relative[0], id.Relative[14], id.Relative[15] = byte(n*151), byte(n>>8), byte(n)
	return id
}

func key(n int) store.Key {
	return store.Key{
		ID:       kcID(n),
		KmID:     kmID(n % 3),
		UID:      store.UID(n % 3),
		IdB:      onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"},
		Expires:  epoch.Add(time.Duration(n) * time.Second),
		SealedKc: fmt.Appendf(nil, "\x00\xff box of Kc %d", n),
	}
}

func (p *place) wantKey(when string, want store.Key) {
	p.t.Helper()
	got, err := p.Keys().Get(context.Background(), want.ID)
	if err != nil {
		p.t.Errorf("%s: %v: %v", when, want.ID, err)
	} else if !reflect.DeepEqual(got, want) {
		p.t.Errorf("%s:\n got %+v\nwant %+v", when, got, want)
	}
}

func (p *place) wantNoKey(when string, id onem2m.KcID) {
	p.t.Helper()
	_, err := p.Keys().Get(context.Background(), id)
	wantError(p.t, when+": Get "+id.String(), err, store.ErrNotFound)
}

func testEndedContext(t *testing.T, p *place) {
	ctx, cancel := context.WithCancel(context.Background())
	must(t, p.Keys().Commit(ctx, key(2)))
	cancel()
	_, _, purge := p.Keys().Purge(ctx, epoch)
	_, remove := p.Keys().RemoveByClient(ctx, kmID(1), 1)
	for what, err := range map[string]error{
		"Add":    p.Clients().Add(ctx, client(1)),
		"Commit": p.Keys().Commit(ctx, key(1)),
		"Purge":  purge,
		"Revoke": p.Keys().Revoke(ctx, kcID(2)),
	} {
		wantError(t, what, err, context.Canceled)
	}
	if remove != nil {
		wantError(t, "RemoveByClient", remove, context.Canceled)
	}
}
