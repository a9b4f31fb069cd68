package adminserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// fakeClients keeps clients in memory.
type fakeClients struct {
	mu      sync.Mutex
	clients map[onem2m.KmID]authority.Client
	kms     []secret.Key // those that went through, as the API holds them
	fail    error        // what every method returns, when set
}

func (f *fakeClients) AddClient(_ context.Context, c authority.Client, km secret.Key) (authority.Client, secret.Key, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return c, km, f.fail
	}
	if _, ok := f.clients[c.KmID]; ok {
		return c, km, fmt.Errorf("%w: %s", authority.ErrExists, c.KmID)
	}
	if !c.IdB.IsAbsolute() {
		return c, km, fmt.Errorf("%w: no Entity B", authority.ErrInvalid)
	}
	c.Created = time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	f.clients[c.KmID] = c
	if km.IsZero() {
		km = secret.New([]byte("made by the MAF."))
	}
	f.kms = append(f.kms, km)
	return c, km, nil
}

func (f *fakeClients) Client(_ context.Context, id onem2m.KmID) (authority.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.clients[id]
	if !ok {
		return c, authority.ErrUnknownClient
	}
	return c, f.fail
}

func (f *fakeClients) ListClients(_ context.Context, after onem2m.KmID, limit int) ([]authority.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []authority.Client
	for id, c := range f.clients {
		if id.String() > after.String() {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b authority.Client) int { return cmp.Compare(a.KmID.String(), b.KmID.String()) })
	return list[:min(limit, len(list))], f.fail
}

func (f *fakeClients) UpdateClient(_ context.Context, id onem2m.KmID, change func(*authority.Client) error) (authority.Client, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.clients[id]
	if !ok {
		return c, authority.ErrUnknownClient
	}
	if err := change(&c); err != nil {
		return c, err
	}
	f.clients[id] = c
	return c, f.fail
}

func (f *fakeClients) RemoveClient(_ context.Context, id onem2m.KmID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.clients[id]; !ok {
		return authority.ErrUnknownClient
	}
	delete(f.clients, id)
	return f.fail
}

// ImportClient does as the authority does, with keys that are not kept.
func (f *fakeClients) ImportClient(ctx context.Context, in authority.Import) (authority.Outcome, error) {
	f.mu.Lock()
	old, there := f.clients[in.Client.KmID]
	f.kms = append(f.kms, in.Km)
	fail := f.fail
	f.mu.Unlock()
	c := in.Client
	c.Created = old.Created
	if c.Lifetime == 0 {
		c.Lifetime = max(old.Lifetime, in.DefaultLifetime)
	}
	switch {
	case fail != nil:
		return 0, fail
	case !c.IdB.IsAbsolute():
		return 0, fmt.Errorf("%w: no Entity B", authority.ErrInvalid)
	case !there && in.DryRun:
		return authority.Added, nil
	case !there:
		_, _, err := f.AddClient(ctx, c, in.Km)
		return authority.Added, err
	case c == old:
		return authority.Same, nil
	case !in.Update:
		return 0, authority.ErrDiffers
	case !in.DryRun:
		f.UpdateClient(ctx, c.KmID, func(o *authority.Client) error { *o = c; return nil })
	}
	return authority.Updated, nil
}

func (f *fakeClients) ListMasterKeys(ctx context.Context, after onem2m.KmID, limit int) ([]authority.Client, []secret.Key, error) {
	list, err := f.ListClients(ctx, after, limit)
	var kms []secret.Key
	for _, c := range list {
		kms = append(kms, secret.New([]byte("key of "+c.KmID.String())))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kms = append(f.kms, kms...)
	return list, kms, err
}

// theKey is the one Kc that fakeClients have.
var theKey = onem2m.KcID{Relative: onem2m.RelativeKeyID{15: 1}, FQDN: "maf.example.com"}

func (f *fakeClients) RevokeKey(_ context.Context, id onem2m.KcID) error {
	if id != theKey {
		return authority.ErrNoKey
	}
	return f.fail
}

// serve starts the API on a socket and returns its caller's side.
func serve(t *testing.T, change func(*Config)) (*adminapi.Admin, *fakeClients) {
	t.Helper()
	dir, err := os.MkdirTemp("", "maf") // t.TempDir's are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	fake := &fakeClients{clients: make(map[onem2m.KmID]authority.Client)}
	config := Config{
		Clients:         fake,
		Status:          func() adminapi.Runtime { return adminapi.Runtime{Version: "test"} },
		DefaultLifetime: time.Hour, MinLifetime: time.Minute, MaxLifetime: 24 * time.Hour,
		Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&config)
	}
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(config)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return adminapi.Open(path), fake
}

func kmID(s string) onem2m.KmID { return onem2m.KmID{Relative: s, FQDN: "maf.example.com"} }

var inCSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}

func TestClients(t *testing.T) {
	admin, _ := serve(t, nil)
	ctx := t.Context()
	want := adminapi.Client{
		KmID: kmID("meter7"), EntityB: inCSE, AEID: onem2m.AEID{SP: "sp.example.com", Stem: "Smeter7"},
		Lifetime: adminapi.Duration(2 * time.Hour),
	}
	made, err := admin.Add(ctx, adminapi.NewClient{Client: want})
	if err != nil {
		t.Fatal(err)
	}
	if string(made.Km.Bytes()) != "made by the MAF." {
		t.Errorf("Km that the MAF made: %q", made.Km.Bytes())
	}
	want.Created = made.Created
	if made.Client != want {
		t.Errorf("made %+v", made.Client)
	}
	given, err := admin.Add(ctx, adminapi.NewClient{
		Client: adminapi.Client{KmID: kmID("meter8"), EntityB: inCSE},
		Km:     adminapi.Key{Key: secret.New([]byte("given by the caller"))}})
	if err != nil {
		t.Fatal(err)
	}
	if !given.Km.IsZero() {
		t.Error("a Km that was given comes back")
	}
	if given.Lifetime != adminapi.Duration(time.Hour) || given.Disabled {
		t.Errorf("defaults: %+v", given)
	}
	got, err := admin.Get(ctx, kmID("meter7"))
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}

	off, none := true, onem2m.AEID{}
	changed, err := admin.Change(ctx, kmID("meter7"), adminapi.ClientChange{Disabled: &off, AEID: &none})
	want.Disabled, want.AEID = true, none
	if err != nil || changed != want {
		t.Errorf("changed %+v, %v", changed, err)
	}
	if err := admin.RevokeKey(ctx, theKey); err != nil {
		t.Error(err)
	}
	if err := admin.Remove(ctx, kmID("meter7")); err != nil {
		t.Error(err)
	}
	if _, err := admin.Get(ctx, kmID("meter7")); !errors.Is(err, adminapi.CodeNotFound) {
		t.Errorf("after its removal: %v", err)
	}
}

func TestPages(t *testing.T) {
	admin, fake := serve(t, nil)
	const n = 2*adminapi.MaxPage + 1
	for i := range n {
		id := kmID(fmt.Sprintf("m%05d", i))
		fake.clients[id] = authority.Client{KmID: id, IdB: inCSE}
	}
	i := 0
	for c, err := range admin.All(t.Context(), adminapi.Filter{}, onem2m.KmID{}) {
		if err != nil {
			t.Fatal(err)
		}
		if want := kmID(fmt.Sprintf("m%05d", i)); c.KmID != want {
			t.Fatalf("client %d is %v, want %v", i, c.KmID, want)
		}
		i++
	}
	if i != n {
		t.Errorf("%d clients, want %d", i, n)
	}
	page, err := admin.Page(t.Context(), adminapi.Filter{}, onem2m.KmID{}, 0)
	if err != nil || len(page.Clients) != adminapi.DefaultPage {
		t.Errorf("a page has %d clients (%v)", len(page.Clients), err)
	}
}

// TestRefusals: each has its status, its code and words.
func TestRefusals(t *testing.T) {
	admin, fake := serve(t, nil)
	ctx := t.Context()
	newClient := func(id string) adminapi.NewClient {
		return adminapi.NewClient{Client: adminapi.Client{KmID: kmID(id), EntityB: inCSE}}
	}
	if _, err := admin.Add(ctx, newClient("taken")); err != nil {
		t.Fatal(err)
	}
	var refused []error
	note := func(_ any, err error) { refused = append(refused, err) }

	note(admin.Add(ctx, newClient("taken")))
	note(admin.Add(ctx, adminapi.NewClient{Client: adminapi.Client{KmID: kmID("x")}}))
	long := newClient("x")
	long.Lifetime = adminapi.Duration(25 * time.Hour)
	note(admin.Add(ctx, long))
	short := adminapi.Duration(time.Second)
	note(admin.Change(ctx, kmID("taken"), adminapi.ClientChange{Lifetime: &short}))
	note(admin.Change(ctx, kmID("none"), adminapi.ClientChange{}))
	note(nil, admin.Remove(ctx, kmID("none")))
	note(nil, admin.RevokeKey(ctx, onem2m.KcID{FQDN: "maf.example.com"}))
	note(admin.Page(ctx, adminapi.Filter{}, onem2m.KmID{}, adminapi.MaxPage+1))
	note(admin.AddEntityB(ctx, adminapi.NewEntityB{CSEID: inCSE}))
	fake.fail = errors.New("the disk is on fire")
	note(admin.Get(ctx, kmID("taken")))

	want := []struct {
		code   adminapi.Code
		status int
		text   string
	}{
		{adminapi.CodeExists, 409, "there is a client"},
		{adminapi.CodeInvalid, 400, "no Entity B"},
		{adminapi.CodeInvalid, 400, "1m to 24h"},
		{adminapi.CodeInvalid, 400, "1m to 24h"},
		{adminapi.CodeNotFound, 404, "no such client"},
		{adminapi.CodeNotFound, 404, "no such client"},
		{adminapi.CodeNotFound, 404, "no such key"},
		{adminapi.CodeInvalid, 400, "from 1 to 1000"},
		{adminapi.CodeNotAuthority, 409, "keyapi.client_ca"},
		{adminapi.CodeInternal, 500, "its log says why"},
	}
	for i, w := range want {
		var e *adminapi.Error
		if !errors.As(refused[i], &e) || !errors.Is(refused[i], w.code) || e.Status != w.status || !strings.Contains(e.Text, w.text) {
			t.Errorf("refusal %d: %#v, want %+v", i, refused[i], w)
		}
	}
}

// TestStrict: what is not exactly as documented is refused.
func TestStrict(t *testing.T) {
	h := Handler(Config{
		Clients: &fakeClients{clients: make(map[onem2m.KmID]authority.Client)}, Log: slog.New(slog.DiscardHandler),
		MaxLifetime: time.Hour, DefaultLifetime: time.Hour})
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/v1/clients", `{"kmID":"a@b","entityB":"//sp/cse"}`, 201},
		{"POST", "/v1/clients", `{"kmID":"c@b","entityB":"//sp/cse","km":"00"}{}`, 400},
		{"POST", "/v1/clients", `{"kmID":"c@b","entityB":"//sp/cse","keys":"00"}`, 400},
		{"POST", "/v1/clients", `{"kmID":"c","entityB":"//sp/cse"}`, 400},
		{"POST", "/v1/clients", `{"KmID":"c@b","entityB":"//sp/cse"}`, 400},
		{"POST", "/v1/clients", `{"kmID":"c@b","entityB":"//sp/cse","kmID":"d@b"}`, 400},
		{"POST", "/v1/clients", `[{"kmID":"c@b","entityB":"//sp/cse"}]`, 400},
		{"PATCH", "/v1/clients/a@b", `{"Disabled":true}`, 400},
		{"POST", "/v1/clients:import?update=1", ``, 400},
		{"POST", "/v1/clients:import", `{"kmID":"a@b","entityB":"//sp/cse"}`, 200},
		{"GET", "/v1/clients:export?km=yes", "", 400},
		{"GET", "/v1/clients:export?keys=true", "", 400},
		{"GET", "/v1/clients?prefix=%00", "", 400},
		{"GET", "/v1/clients?prefix=a&prefix=b", "", 400},
		{"GET", "/v1/clients?entityB=x", "", 400},
		{"GET", "/v1/clients?aeID=x", "", 400},
		{"GET", "/v1/clients?disabled=2", "", 400},
		{"POST", "/v1/clients", `{"kmID":"c@b","entityB":"//sp/cse","lifetime":30}`, 400},
		{"POST", "/v1/clients", `{"kmID":"c@b","entityB":"//sp/cse","km":"secret but wrong"}`, 400},
		{"POST", "/v1/clients", `{"kmID":"` + strings.Repeat("x", maxBody) + `@b"}`, 400},
		{"GET", "/v1/clients/a@b", "", 200},
		{"GET", "/v1/clients/A@B", "", 200}, // 10.6: not case sensitive
		{"GET", "/v1/clients/nonsense", "", 400},
		{"GET", "/v1/clients?limit=0", "", 400},
		{"GET", "/v1/clients?after=x", "", 400},
		{"PUT", "/v1/clients/a@b", "{}", 404},
		{"DELETE", "/v1/keys/00000000000000000000000000000001@maf.example.com", "", 204},
		{"DELETE", "/v1/keys/01@maf.example.com", "", 400},
		{"GET", "/v1/keys/00000000000000000000000000000001@maf.example.com", "", 404},
		{"GET", "/v2/clients", "", 404},
		{"GET", "/", "", 404},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != c.status {
			t.Errorf("%s %s %.60s: status %d, want %d: %s", c.method, c.path, c.body, w.Code, c.status, w.Body)
		}
		if strings.Contains(w.Body.String(), "secret but") {
			t.Errorf("a refusal quotes the key: %s", w.Body)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s may be cached", c.method, c.path)
		}
	}
}

// TestWiped: when a request is answered, its keys are gone, whoever made them.
func TestWiped(t *testing.T) {
	fake := &fakeClients{clients: make(map[onem2m.KmID]authority.Client)}
	issued := secret.New([]byte("a private key"))
	h := Handler(Config{
		Clients: fake, Log: slog.New(slog.DiscardHandler), MaxLifetime: time.Hour, DefaultLifetime: time.Hour,
		IssueEntityB: func(context.Context, onem2m.CSEID, time.Duration) (adminapi.EntityB, error) {
			return adminapi.EntityB{Key: adminapi.Key{Key: issued}}, nil
		}})
	ask := func(path, body, want string) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
		if w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), want) {
			t.Errorf("status %d: %s", w.Code, w.Body)
		}
	}
	ask("/v1/clients", `{"kmID":"given@b","entityB":"//sp/cse","km":"00112233445566778899aabbccddeeff"}`, "given@b")
	ask("/v1/clients", `{"kmID":"drawn@b","entityB":"//sp/cse"}`, `"km":"bWFkZSBieSB0aGUgTUFGLg=="`)
	ask("/v1/entity-b", `{"cseID":"//sp/cse"}`, `"key":"YSBwcml2YXRlIGtleQ=="`)
	for i, key := range append(fake.kms, issued) {
		if !key.Equal(secret.New(make([]byte, key.Len()))) {
			t.Errorf("key %d was not wiped: %q", i, key.Bytes())
		}
	}
	if len(fake.kms) != 2 {
		t.Errorf("%d master keys", len(fake.kms))
	}
}

// TestOnlyOwner: a caller whom the kernel does not name, or names otherwise,
// gets nothing.
func TestOnlyOwner(t *testing.T) {
	var denied []string
	h := onlyOwner(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "in") }),
		func(ctx context.Context) { denied = append(denied, Caller(ctx)) })
	self := uint32(os.Geteuid())
	for _, c := range []struct {
		name string
		ctx  context.Context
		in   bool
	}{
		{"nobody", context.Background(), false},
		{"unknown", context.WithValue(context.Background(), callerKey{}, &caller{self, errors.New("unknown")}), false},
		{"another", context.WithValue(context.Background(), callerKey{}, &caller{self + 1, nil}), false},
		{"self", context.WithValue(context.Background(), callerKey{}, &caller{self, nil}), true},
		{"root", context.WithValue(context.Background(), callerKey{}, &caller{0, nil}), true},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil).WithContext(c.ctx))
		if in := w.Code == http.StatusOK; in != c.in {
			t.Errorf("%s: status %d", c.name, w.Code)
		}
	}
	if want := []string{"unknown", "unknown", fmt.Sprintf("uid:%d", self+1)}; !slices.Equal(denied, want) {
		t.Errorf("denied %q, want %q", denied, want)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if _, err := peerUID(a); err == nil {
		t.Error("a pipe has a user")
	}
}

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "maf")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another program answers") {
		t.Errorf("a second one on a living socket: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close() // as a crash leaves it
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("on a dead socket: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("on a file: %v", err)
	}
}

func TestNobodyThere(t *testing.T) {
	admin := adminapi.Open(filepath.Join(t.TempDir(), "s"))
	if _, err := admin.Status(t.Context()); !errors.Is(err, adminapi.ErrNotRunning) {
		t.Errorf("got %v", err)
	}
}
