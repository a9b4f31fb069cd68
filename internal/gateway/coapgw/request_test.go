package coapgw

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
)

// What the CSE gets of an ordinary request in either dialect, octet for octet but for the
// token, and what the device gets back.
func TestRequest(t *testing.T) {
	for _, device := range []Dialect{Release3, Early} {
		for _, cse := range []Dialect{Release3, Early} {
			t.Run(fmt.Sprintf("from %d to %d", device, cse), func(t *testing.T) {
				backend := newCSE(t, func(m *coap.Message) *coap.Message {
					answer := reply(m, coap.Created, 2001, `{"m2m:cnt":{"rn":"c"}}`)
					answer.Options.AddString(coap.LocationPath, "in-cse/c") // as one known CSE does
					return answer
				})
				g := newRig(t, backend.addr, func(_ *Config, b *BackendConfig) { b.Dialect = cse })
				d := g.ae()
				d.dialect = device
				m := d.request(coap.POST, "~/in-cse/base", "Cmeter7", `{ "m2m:cnt" : {"rn":"c"} }`,
					int(device.number(resourceType)), []byte{0, 3}, coap.URIQuery, "rcn=1", 2000, "dropped",
					coap.URIHost, "elsewhere", int(device.number(originatingTime)), "20260101T000000")
				answer := d.do(m)
				if answer.Code != coap.Created || d.status(answer) != 2001 || string(answer.Payload) != `{"m2m:cnt":{"rn":"c"}}` {
					t.Errorf("answer: %+v", answer)
				}
				if id, _ := device.text(answer.Options, requestID); id != "req-1" {
					t.Errorf("request identifier %q", id)
				}
				if path := answer.Options.Strings(coap.LocationPath); fmt.Sprint(path) != "[in-cse c]" {
					t.Errorf("location %q", path)
				}
				got := backend.last(t)
				id, _ := cse.text(got.Options, requestID)
				if id == "" || id == "req-1" {
					t.Errorf("the CSE got the request identifier %q", id)
				}
				want := &coap.Message{Type: got.Type, Code: coap.POST, ID: got.ID, Token: got.Token, Payload: []byte(`{"m2m:cnt":{"rn":"c"}}`)}
				add(want, coap.URIPath, "~", coap.URIPath, "in-cse", coap.URIPath, "base", coap.ContentFormat, 50, coap.URIQuery, "rcn=1",
					coap.Accept, 50, int(cse.number(from)), "Cmeter7", int(cse.number(requestID)), id,
					int(cse.number(resourceType)), 3, int(cse.number(originatingTime)), "20260101T000000",
					int(cse.number(releaseVersion)), "3")
				if a, b := got.Append(nil), want.Append(nil); !bytes.Equal(a, b) {
					t.Errorf("the CSE got\n%q\nwant\n%q", a, b)
				}
				e := g.log.last()
				if e.Binding != "coap" || e.Operation != "CREATE" || e.Status != 2001 || e.Refused || e.From != "Cmeter7" || e.To != "/in-cse/base" {
					t.Errorf("recorded %+v", e)
				}
			})
		}
	}
}

// Requests that have no one meaning do not reach the CSE.
func TestRefused(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	const fr, rqi, rvi, ty = 279, 283, 271, 267
	ok := func(more ...any) *coap.Message { return d.request(coap.GET, "in-cse", "Cmeter7", "", more...) }
	post := func(content string, more ...any) *coap.Message {
		return d.request(coap.POST, "in-cse", "Cmeter7", content, more...)
	}
	path := func(segments ...string) *coap.Message {
		m := ok()
		m.Options.Remove(coap.URIPath)
		for _, s := range segments {
			m.Options.AddString(coap.URIPath, s)
		}
		return m
	}
	without := func(numbers ...uint16) *coap.Message {
		m := ok()
		m.Options.Remove(numbers...)
		return m
	}
	for _, c := range []struct {
		name   string
		m      *coap.Message
		code   coap.Code
		status int
	}{
		{"another originator", d.request(coap.GET, "in-cse", "Cother", ""), coap.Forbidden, 4106},
		{"no originator", without(fr), coap.BadRequest, 4000},
		{"no request identifier", without(rqi), coap.BadRequest, 4000},
		{"no path", without(coap.URIPath), coap.BadRequest, 4000},
		{"both dialects", ok(256, "Cmeter7"), coap.BadRequest, 4000},
		{"both dialects, another parameter", ok(257, "x"), coap.BadRequest, 4000},
		{"originator twice", ok(fr, "Cmeter7"), coap.BadOption, 4000},
		{"identifier twice", ok(rqi, "y"), coap.BadOption, 4000},
		{"unknown critical option", ok(2001, ""), coap.BadOption, 4000},
		{"members of a group", ok(335, "x"), coap.BadOption, 4000},
		{"If-Match", ok(coap.IfMatch, ""), coap.BadOption, 4000},
		{"Proxy-Uri", ok(coap.ProxyURI, "coap://elsewhere/"), coap.ProxyingNotSupported, 5001},
		{"Proxy-Scheme", ok(coap.ProxyScheme, "http"), coap.ProxyingNotSupported, 5001},
		{"status in a request", ok(307, 2000), coap.BadRequest, 4000},
		{"type in a RETRIEVE", ok(ty, 2), coap.BadRequest, 4000},
		{"type 0", post(`{"m2m:cnt":{}}`, ty, 0), coap.BadRequest, 4000},
		{"a type that reads as AE in ASCII", post(`{"m2m:cnt":{}}`, ty, int('2')), coap.NotImplemented, 5001},
		{"a type whose first octet reads as AE", post(`{"m2m:cnt":{}}`, ty, 0x0203), coap.NotImplemented, 5001},
		{"release 5", ok(rvi, "5"), coap.NotImplemented, 4001},
		{"release with a NUL", ok(rvi, "3\x00"), coap.BadOption, 4000},
		{"a slash in a segment", path("in-cse/x"), coap.BadRequest, 4000},
		{"dots", path("in-cse", "..", "x"), coap.BadRequest, 4000},
		{"one dot", path(".", "in-cse"), coap.BadRequest, 4000},
		{"empty segment", path("in-cse", "", "x"), coap.BadRequest, 4000},
		{"a query in the path", path("in-cse?fr=CAdmin"), coap.BadRequest, 4000},
		{"an escape in the path", path("in-cse", "%2e%2e"), coap.BadRequest, 4000},
		{"a NUL in the path", path("in-cse\x00"), coap.BadOption, 4000},
		{"a tilde within", path("in-cse", "~", "x"), coap.BadRequest, 4000},
		{"a tilde alone", path("~"), coap.BadRequest, 4000},
		{"a long segment", path(string(bytes.Repeat([]byte("x"), 255))), coap.BadRequest, 4000},
		{"originator in the query", ok(coap.URIQuery, "fr=CAdmin"), coap.BadRequest, 4000},
		{"originator in the query, hidden", ok(coap.URIQuery, "rcn=1&FR=CAdmin"), coap.BadRequest, 4000},
		{"originator in the query, escaped", ok(coap.URIQuery, "rcn=1%26fr=CAdmin"), coap.BadRequest, 4000},
		{"query twice", ok(coap.URIQuery, "rcn=1", coap.URIQuery, "RCN=4"), coap.BadRequest, 4000},
		{"another operation in the query", ok(coap.URIQuery, "op=4"), coap.BadRequest, 4000},
		{"CREATE by query without a type", post(`{"m2m:cnt":{}}`, coap.URIQuery, "op=1"), coap.BadRequest, 4000},
		{"DELETE by query with a type", post(`{"m2m:cnt":{}}`, ty, 3, coap.URIQuery, "op=4"), coap.BadRequest, 4000},
		{"XML", post("<a/>", coap.URIQuery, "x=y"), coap.BadRequest, 4000},
		{"no content", post("", ty, 3), coap.BadRequest, 4000},
		{"content of a RETRIEVE", d.request(coap.GET, "in-cse", "Cmeter7", `{"m2m:cnt":{}}`), coap.BadRequest, 4000},
		{"originator in the content", post(`{"fr":"CAdmin","rvi":"5","pc":{}}`), coap.BadRequest, 4000},
		{"originator beside the content", post(`{"m2m:cnt":{},"FR":"CAdmin"}`, ty, 3), coap.BadRequest, 4000},
		{"keys that differ by case", post(`{"m2m:cnt":{"rn":"a","RN":"b"}}`, ty, 3), coap.BadRequest, 4000},
		{"a list", post(`[{"m2m:cnt":{}}]`, ty, 3), coap.BadRequest, 4000},
		{"two values", post(`{"m2m:cnt":{}}{"m2m:cnt":{}}`, ty, 3), coap.BadRequest, 4000},
		{"XML wanted", ok(coap.Accept, 41), coap.NotAcceptable, 5207},
		{"FETCH", d.request(5, "in-cse", "Cmeter7", ""), coap.MethodNotAllowed, 4005},
	} {
		answer := d.do(c.m)
		if answer.Code != c.code || d.status(answer) != c.status {
			t.Errorf("%s: %v, status %d, want %v and %d: %q", c.name, answer.Code, d.status(answer), c.code, c.status, answer.Payload)
		}
		id, hasID := c.m.Options.Get(rqi)
		if echoed, ok := answer.Options.Get(rqi); hasID != ok || !bytes.Equal(id, echoed) && c.name != "identifier twice" {
			t.Errorf("%s: request identifier %q", c.name, echoed)
		}
		if e := g.log.last(); !e.Refused || int(e.Status) != c.status {
			t.Errorf("%s: recorded %+v", c.name, e)
		}
	}
	if got := backend.requests(); len(got) > 0 {
		t.Errorf("the CSE got %d requests: %q", len(got), got[0].Append(nil))
	}
	xml := post("<a/>")
	xml.Options.Remove(coap.ContentFormat)
	xml.Options.AddUint(coap.ContentFormat, 41)
	if answer := d.do(xml); answer.Code != coap.UnsupportedContentFormat || d.status(answer) != 4015 {
		t.Errorf("XML: %v", answer)
	}
}

// A POST with an operation in its query reaches the CSE as that operation's method.
func TestOperationInQuery(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	d := g.ae()
	for op, code := range map[int]coap.Code{2: coap.GET, 4: coap.DELETE} {
		m := d.request(coap.POST, "in-cse", "Cmeter7", "", coap.URIQuery, fmt.Sprintf("op=%d&rt=2", op))
		if answer := d.do(m); d.status(answer) != 2000 {
			t.Fatalf("%d: %q", d.status(answer), answer.Payload)
		}
		if got := backend.last(t); got.Code != code || fmt.Sprint(got.Options.Strings(coap.URIQuery)) != "[rt=2]" {
			t.Errorf("op=%d: %v, %q", op, got.Code, got.Options.Strings(coap.URIQuery))
		}
	}
}
