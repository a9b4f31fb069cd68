package adminserver

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/onem2m"
)

// FuzzRequest: whatever is asked, the answer is JSON, or nothing; no request is
// our fault, and none makes a client that we would refuse to name.
func FuzzRequest(f *testing.F) {
	f.Add("POST", "/v1/clients", `{"kmID":"meter9@maf.example.com","entityB":"//sp.example.com/in-cse","km":"000102030405060708090a0b0c0d0e0f","lifetime":"24h"}`)
	f.Add("PATCH", "/v1/clients/meter7%40maf.example.com", `{"disabled":true,"lifetime":"1h"}`)
	f.Add("PATCH", "/v1/clients/meter7@maf.example.com", `{"aeID":"Smeter7","cseID":null}`)
	f.Add("GET", "/v1/clients?after=meter7@maf.example.com&limit=3", "")
	f.Add("DELETE", "/v1/clients/%2f", "{}")
	f.Add("POST", "/v1/entity-b", `{"cseID":"//sp.example.com/in-cse","lifetime":"24h"}`)
	f.Add("GET", "/v1/status", "")
	f.Add("POST", "/v1/clients:import?update=true", `{"kmID":"meter9@maf.example.com","entityB":"//sp.example.com/in-cse","km":"000102030405060708090a0b0c0d0e0f","lifetime":"2h","line":3}`+"\n{}\n")
	f.Add("GET", "/v1/clients:export?prefix=m&match=7", "")
	f.Fuzz(func(t *testing.T, method, target, body string) {
		u, err := url.Parse(target)
		if err != nil || !strings.HasPrefix(u.Path, "/") {
			return // net/http answers those
		}
		fake := &fakeClients{clients: make(map[onem2m.KmID]authority.Client)}
		fake.clients[kmID("meter7")] = authority.Client{KmID: kmID("meter7"), IdB: inCSE}
		handler := Handler(Config{
			Clients: fake,
			IssueEntityB: func(_ context.Context, id onem2m.CSEID, life time.Duration) (adminapi.EntityB, error) {
				if !id.IsAbsolute() || life <= 0 {
					t.Errorf("a certificate for %v, good for %v", id, life)
				}
				return adminapi.EntityB{CSEID: id}, nil
			},
			Status:          func() adminapi.Runtime { return adminapi.Runtime{Version: "test"} },
			DefaultLifetime: time.Hour, MinLifetime: time.Minute, MaxLifetime: 24 * time.Hour,
			Log: slog.New(slog.DiscardHandler),
		})
		r := httptest.NewRequest(http.MethodGet, "/", strings.NewReader(body))
		r.Method, r.URL = method, u
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)

		if w.Code >= http.StatusInternalServerError {
			t.Errorf("answer %d", w.Code)
		}
		// What the router itself refuses or redirects is no JSON.
		if strings.Contains(w.Header().Get("Content-Type"), "json") {
			for line := range bytes.Lines(w.Body.Bytes()) {
				if !json.Valid(line) {
					t.Errorf("answer %d is no JSON: %q", w.Code, line)
				}
			}
		}
		for id, c := range fake.clients {
			if again, err := onem2m.ParseKmID(id.String()); err != nil || again != id {
				t.Errorf("a client is called %q (%v)", id, err)
			}
			if c.Lifetime != 0 && (c.Lifetime < time.Minute || c.Lifetime > 24*time.Hour) {
				t.Errorf("a lifetime of %v", c.Lifetime)
			}
		}
	})
}
