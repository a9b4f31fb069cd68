package adminserver

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// fakeKeyset notes what it is asked for.
type fakeKeyset struct {
	asked []string
	err   error
}

func (f *fakeKeyset) note(what string) error {
	f.asked = append(f.asked, what)
	return f.err
}

func (f *fakeKeyset) Describe(context.Context) (adminapi.Keyset, error) {
	return adminapi.Keyset{Keys: []adminapi.KeysetKey{{ID: 7, State: "primary"}}}, f.note("describe")
}

func (f *fakeKeyset) Add(context.Context) (adminapi.KeysetKey, error) {
	return adminapi.KeysetKey{ID: 8}, f.note("add")
}

func (f *fakeKeyset) Promote(_ context.Context, id uint32) error {
	return f.note("promote " + keyName(id))
}
func (f *fakeKeyset) Retire(_ context.Context, id uint32) error {
	return f.note("retire " + keyName(id))
}
func (f *fakeKeyset) Protect(context.Context) error { return f.note("protect") }

func (f *fakeKeyset) StartRewrap(_ context.Context, rate int) (adminapi.Rewrap, error) {
	return adminapi.Rewrap{Running: true, Rate: rate}, f.note("start")
}

func (f *fakeKeyset) Rewrap() adminapi.Rewrap {
	f.note("rewrap")
	return adminapi.Rewrap{Seen: 9}
}

func keyName(id uint32) string {
	if id == 4294967295 {
		return "max"
	}
	return "it"
}

// The client's methods and the server's are the same.
func TestKeyset(t *testing.T) {
	fake := &fakeKeyset{}
	admin, _ := serve(t, func(c *Config) { c.Keyset = fake })
	ctx := t.Context()
	keyset, err := admin.Keyset(ctx)
	if err != nil || len(keyset.Keys) != 1 || keyset.Keys[0].ID != 7 {
		t.Errorf("%+v, %v", keyset, err)
	}
	if key, err := admin.AddKeysetKey(ctx); err != nil || key.ID != 8 {
		t.Errorf("%+v, %v", key, err)
	}
	if err := errors.Join(admin.PromoteKeysetKey(ctx, 4294967295), admin.RetireKeysetKey(ctx, 4294967295), admin.ProtectKeyset(ctx)); err != nil {
		t.Error(err)
	}
	for asked, want := range map[int]int{0: adminapi.DefaultRewrapRate, 3: 3} {
		if r, err := admin.StartRewrap(ctx, adminapi.NewRewrap{Rate: asked}); err != nil || !r.Running || r.Rate != want {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if r, err := admin.Rewrap(ctx); err != nil || r.Seen != 9 {
		t.Errorf("%+v, %v", r, err)
	}
	if got, want := strings.Join(fake.asked, ", "), "describe, add, promote max, retire max, protect, start, start, rewrap"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	fake.err = &adminapi.Error{Status: http.StatusConflict, Code: adminapi.CodeInUse, Text: "not yet"}
	if err := admin.RetireKeysetKey(ctx, 1); !errors.Is(err, adminapi.CodeInUse) || err.Error() != "not yet" {
		t.Errorf("refused: %v", err)
	}
}

func TestKeysetStrict(t *testing.T) {
	fake := &fakeKeyset{}
	admin, _ := serve(t, nil)
	if _, err := admin.Keyset(t.Context()); !errors.Is(err, adminapi.CodeNotFound) {
		t.Errorf("without a keyset: %v", err)
	}
	h := Handler(Config{Keyset: fake})
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/v1/keyset/keys/x/promote", ""},
		{"POST", "/v1/keyset/keys/01/promote", ""},
		{"POST", "/v1/keyset/keys/-1/promote", ""},
		{"DELETE", "/v1/keyset/keys/4294967296", ""},
		{"DELETE", "/v1/keyset/keys/+1", ""},
		{"POST", "/v1/keyset/rewrap", ""},
		{"POST", "/v1/keyset/rewrap", `{"rate":-1}`},
		{"POST", "/v1/keyset/rewrap", `{"rate":1000001}`},
		{"POST", "/v1/keyset/rewrap", `{"Rate":1}`},
		{"POST", "/v1/keyset/rewrap", `{"rate":1}{}`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if w.Code != http.StatusBadRequest {
			t.Errorf("%s %s %s: status %d: %s", c.method, c.path, c.body, w.Code, w.Body)
		}
	}
	if len(fake.asked) > 0 {
		t.Errorf("asked for %q", fake.asked)
	}
}
