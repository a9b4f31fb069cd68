package httpgw

import (
	"errors"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
)

// What the CSE gets of a plain request is exactly this.
func TestRequestAsTheCSEGetsIt(t *testing.T) {
	cse := backendtest.Start(t, backendtest.FirstWins)
	c := newRig(t, cse.URL, nil).meter()
	got := c.ask(request("POST /%69n-cse/Cmeter7?rcn=1&lbl=a+b&lbl=c%20d",
		`x-m2m-origin: Cmeter7
X-M2M-RI: 4711
x-M2M-rvi: 3
Content-Type: application/vnd.onem2m-res+json; ty=3
Accept: */*
User-Agent: meter
Cookie: a=b
Authorization: Basic Y3NlOmFkbWlu
X-Forwarded-For: 127.0.0.1
X_M2M_Origin: Cthief
Connection: keep-alive, X-M2M-Origin
X-M2M-RSC: 2000
Date: Thu, 01 Jan 1970 00:00:00 GMT`, "{ \"m2m:cnt\" : {\"rn\":\"\\u0061\", \"mni\":1e2 } }\n"))
	if got.status != 200 || got.rsc() != 2001 || got.headers["X-M2M-RI"] != "4711" || got.headers["X-M2M-RVI"] != "3" || got.headers["Server"] != "" {
		t.Errorf("the device got %v", got)
	}
	seen := only(t, cse)
	want := "POST /in-cse/Cmeter7?rcn=1&lbl=a+b+c%20d HTTP/1.1\r\n" +
		"Host: " + strings.TrimPrefix(cse.URL, "http://") + "\r\n" +
		"X-M2M-Origin: Cmeter7\r\n" +
		"X-M2M-RI: " + seen.ID + "\r\n" +
		"X-M2M-RVI: 3\r\n" +
		"Accept: application/json\r\n" +
		"Content-Type: application/json;ty=3\r\n" +
		"Content-Length: 32\r\n\r\n" +
		`{"m2m:cnt":{"rn":"a","mni":1e2}}`
	if seen.Raw != want {
		t.Errorf("the CSE got\n%s\nwant\n%s", seen.Raw, want)
	}
	if seen.ID == "4711" || len(seen.ID) > 32 {
		t.Errorf("request identifier %q", seen.ID)
	}
}

// A device of whom only its key is known registers, and is from then on who the
// CSE said it is.
func TestRegistration(t *testing.T) {
	for name, style := range backendtest.Styles {
		t.Run(name, func(t *testing.T) {
			cse := backendtest.Start(t, style)
			cse.Answer = func(r *backendtest.Request) (int, string) {
				if r.Type == "2" {
					return 2001, `{"m2m:ae":{"aei":"Clamp5","ri":"Clamp5"}}`
				}
				return 2000, "{}"
			}
			g := newRig(t, cse.URL, nil)
			lamp := g.dial(g.site.Unnamed("lamp"))
			ask := func(from string) int {
				return lamp.ask(request("GET /in-cse", "X-M2M-RI: "+from+"\nX-M2M-Origin: "+from, "")).rsc()
			}
			if rsc := ask("Clamp5"); rsc != 4106 {
				t.Errorf("before: %d", rsc)
			}
			got := lamp.ask(request("POST /in-cse?rcn=0", "X-M2M-RI: 1\nX-M2M-Origin: C\nContent-Type: application/json;ty=2",
				`{"m2m:ae":{"api":"Nlamp","rr":true,"srv":["3"]}}`))
			if got.rsc() != 2001 {
				t.Fatalf("%v", got)
			}
			if seen := only(t, cse); seen.Origin != "C" || strings.Contains(seen.Raw, "rcn") {
				t.Errorf("the CSE got %s", seen.Raw)
			}
			if rsc := ask("Clamp5"); rsc != 2000 {
				t.Errorf("after: %d", rsc)
			}
			if rsc := ask("Clamp6"); rsc != 4106 {
				t.Errorf("as another: %d", rsc)
			}
		})
	}
}

// A Backend carries for other bindings only what every reader reads alike.
func TestBackendRefuses(t *testing.T) {
	cse := backendtest.Start(t, backendtest.FirstWins)
	b, err := NewBackend(BackendConfig{URL: cse.URL + "/base/"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	good := Request{Operation: retrieve, To: "//sp.example.com/in-cse/x", From: "Cmeter7", HasFrom: true, ID: "1",
		Query: []QueryParam{{"lbl", []string{"a b", "c&d"}}}}
	if r, err := b.Do(t.Context(), &good); err != nil || r.Status != 2000 {
		t.Fatalf("%v, %v", r, err)
	}
	if seen := only(t, cse); !strings.HasPrefix(seen.Raw, "GET /base/_/sp.example.com/in-cse/x?lbl=a%20b+c%26d HTTP/1.1\r\n") {
		t.Errorf("%s", seen.Raw)
	}
	for name, spoil := range map[string]func(*Request){
		"operation":        func(r *Request) { r.Operation = 6 },
		"no operation":     func(r *Request) { r.Operation = 0 },
		"type":             func(r *Request) { r.Type = 2 },
		"create, no type":  func(r *Request) { r.Operation = create },
		"target":           func(r *Request) { r.To = "in-cse/../x" },
		"target with CRLF": func(r *Request) { r.To = "in-cse HTTP/1.1\r\nX-M2M-Origin: Cthief" },
		"originator":       func(r *Request) { r.From = "Cmeter7\r\nX-M2M-Origin: Cthief" },
		"no originator":    func(r *Request) { r.From = "" },
		"no identifier":    func(r *Request) { r.ID = "" },
		"long identifier":  func(r *Request) { r.ID = strings.Repeat("a", 101) },
		"parameter":        func(r *Request) { r.Params[GroupRequestID] = "a\nX-M2M-Origin: Cthief" },
		"answer's":         func(r *Request) { r.Params[ContentStatus] = "1" },
		"query name":       func(r *Request) { r.Query = []QueryParam{{"a=b&c", []string{"1"}}} },
		"fr":               func(r *Request) { r.Query = []QueryParam{{"Fr", []string{"Cthief"}}} },
		"query twice":      func(r *Request) { r.Query = append(r.Query, QueryParam{"LBL", []string{"x"}}) },
		"NUL in query":     func(r *Request) { r.Query = []QueryParam{{"lbl", []string{"a\x00"}}} },
		"empty value":      func(r *Request) { r.Query = []QueryParam{{"lbl", []string{""}}} },
	} {
		r := good
		spoil(&r)
		_, err := b.Do(t.Context(), &r)
		var e *BackendError
		if !errors.As(err, &e) || e.Status != 4000 || !e.NotSent {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seen := cse.Requests(); len(seen) > 0 {
		t.Errorf("%+v", seen)
	}
	for _, url := range []string{"", "127.0.0.1:80", "https://h", "http://", "http://u@h", "http://h/?a", "http://h/#a", "http://h/a b", "http://h/../x"} {
		if _, err := NewBackend(BackendConfig{URL: url}); err == nil {
			t.Errorf("URL %q is taken", url)
		}
	}
}
