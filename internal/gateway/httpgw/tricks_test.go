package httpgw

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/onem2m"
)

const thief = "Cthief" // whom the meter wants to pass for

// A trick is a request that some readers take for the thief's or for another
// request. It is refused, or the CSE sees the meter and nobody else.
type trick struct {
	name string
	text string
	rsc  int // 0: allowed, and the CSE sees it
}

const json3 = "X-M2M-RI: 1\nX-M2M-RVI: 3\nContent-Type: application/json;ty=3"

func tricks() []trick {
	const plain = "X-M2M-RI: 1\nX-M2M-Origin: Cmeter7"
	get := func(target string) string { return request("GET "+target, plain, "") }
	headers := func(h string) string { return request("GET /in-cse", "X-M2M-RI: 1\n"+h, "") }
	post := func(content string) string {
		return request("POST /in-cse/Cmeter7", "X-M2M-Origin: Cmeter7\n"+json3, content)
	}
	typed := func(ct string) string {
		return request("POST /in-cse", "X-M2M-RI: 1\nX-M2M-Origin: Cmeter7\nContent-Type: "+ct, `{"m2m:cnt":{}}`)
	}
	const bad, no = int(onem2m.StatusBadRequest), int(onem2m.StatusOriginatorNotAuthenticated)
	return []trick{
		{"another's originator", headers("X-M2M-Origin: " + thief), no},
		{"two originators", headers("X-M2M-Origin: Cmeter7\nX-M2M-Origin: " + thief), bad},
		{"two originators, the other way", headers("X-M2M-Origin: " + thief + "\nX-M2M-Origin: Cmeter7"), bad},
		{"two that are equal", headers("X-M2M-Origin: Cmeter7\nX-M2M-Origin: Cmeter7"), bad},
		{"two of different case", headers("X-M2M-Origin: Cmeter7\nx-m2m-origin: " + thief), bad},
		{"an empty one and another", headers("X-M2M-Origin:\nX-M2M-Origin: " + thief), bad},
		{"an underscore", headers("X-M2M-Origin: Cmeter7\nX_M2M_Origin: " + thief), 0},
		{"a list", headers("X-M2M-Origin: Cmeter7, " + thief), bad},
		{"a list without blank", headers("X-M2M-Origin: Cmeter7," + thief), bad},
		{"a folded line", headers("X-M2M-Origin: Cmeter7\n " + thief), bad},
		{"a folded line of its own", headers("X-M2M-Origin:\n " + thief), bad},
		{"a NUL", headers("X-M2M-Origin: Cmeter7\x00" + thief), bad},
		{"a NUL first", headers("X-M2M-Origin: \x00" + thief), bad},
		{"a bare CR", headers("X-M2M-Origin: Cmeter7\rX-M2M-Origin: " + thief), bad},
		{"blank before the colon", headers("X-M2M-Origin: Cmeter7\nX-M2M-Origin : " + thief), bad},
		{"named by Connection", headers("X-M2M-Origin: Cmeter7\nConnection: X-M2M-Origin"), 0},
		{"UTF-8 that folds to ASCII", headers("X-M2M-Origin: \uff23meter7"), bad},
		{"the absolute form of another", headers("X-M2M-Origin: //sp.example.com/in-cse/" + thief), bad},
		{"the SP-relative form of another", headers("X-M2M-Origin: /in-cse/" + thief), bad},
		{"the CSE", headers("X-M2M-Origin: /in-cse"), bad},
		{"letter case", headers("X-M2M-Origin: CMETER7"), no},
		{"none", headers(""), bad},

		{"from in the query", get("/in-cse?From=" + thief), bad},
		{"a header in the query", get("/in-cse?x-m2m-ri=1"), bad},
		{"fr in the query", get("/in-cse?fr=" + thief), bad},
		{"FR in the query", get("/in-cse?FR=" + thief), bad},
		{"a parameter twice", get("/in-cse?rcn=1&rcn=4"), bad},
		{"in another case", get("/in-cse?rcn=1&RCN=4"), bad},
		{"without a value", get("/in-cse?rcn"), bad},
		{"an empty value", get("/in-cse?rcn="), bad},
		{"a NUL in the query", get("/in-cse?lbl=a%00b"), bad},
		{"a CRLF in the query", get("/in-cse?lbl=a%0d%0aX-M2M-Origin:%20" + thief), bad},
		{"a semicolon", get("/in-cse?lbl=a;fr=" + thief), bad},
		{"an escaped ampersand", get("/in-cse?lbl=a%26fr=" + thief), bad},
		{"an escaped ampersand and equals", get("/in-cse?lbl=a%26x%3d1"), 0},
		{"half an escape", get("/in-cse?lbl=%4"), bad},

		{"a NUL in the path", get("/in-cse/Cmeter7%00/x"), bad},
		{"a question mark in the path", get("/in-cse/Cmeter7%3Ffr=" + thief), bad},
		{"a slash in the path", get("/in-cse/Cmeter7%2F.."), bad},
		{"a backslash in the path", get("/in-cse/Cmeter7%5C.."), bad},
		{"a plain backslash", get("/in-cse\\..\\x"), bad},
		{"an escaped percent sign", get("/in-cse/%252e%252e"), bad},
		{"a hash", get("/in-cse#x"), bad},
		{"an escaped hash", get("/in-cse%23x"), bad},
		{"a blank", get("/in-cse%20x"), bad},
		{"dots", get("/in-cse/../x"), bad},
		{"escaped dots", get("/in-cse/%2e%2E/x"), bad},
		{"one dot", get("/./in-cse"), bad},
		{"an empty segment", get("/in-cse//x"), bad},
		{"an empty segment first", get("//in-cse/x"), bad},
		{"an empty segment last", get("/in-cse/"), bad},
		{"no segment", get("/"), bad},
		{"the absolute form of HTTP", get("http://other.example.com/in-cse"), bad},
		{"an asterisk", get("*"), bad},
		{"a tilde within", get("/in-cse/~/mn-cse"), bad},
		{"only a tilde", get("/~"), bad},
		{"tilde and nothing", get("/~/"), bad},
		{"underscore and no FQDN", get("/_/a_b/in-cse"), bad},
		{"letters that need no escape", get("/%69%6E-cse"), 0},

		{"the upper tester", get("/__ut__"), int(onem2m.StatusNotFound)},
		{"the upper tester, escaped", get("/%5F%5Fut__"), int(onem2m.StatusNotFound)},
		{"the console", get("/WebUI/index.html"), int(onem2m.StatusNotFound)},

		{"a key twice", post(`{"m2m:cnt":{"rn":"a","rn":"b"}}`), bad},
		{"a key twice, in another case", post(`{"m2m:cnt":{"cr":"Cmeter7","CR":"` + thief + `"}}`), bad},
		{"a key twice, escaped", post(`{"m2m:cnt":{"rn":"a","\u0072n":"b"}}`), bad},
		{"a root twice", post(`{"m2m:cnt":{},"m2m:cnt":{"cr":"` + thief + `"}}`), bad},
		{"another's creator", post(`{"m2m:cnt":{"cr":"` + thief + `"}}`), no},
		{"another's creator, escaped", post(`{"m2m:cnt":{"c\u0072":"` + thief + `"}}`), no},
		{"a NUL in a name", post(`{"m2m:cnt":{"cr\u0000":"` + thief + `"}}`), bad},
		{"a NUL in a string", post(`{"m2m:cnt":{"rn":"a\u0000b"}}`), bad},
		{"two values", post(`{"m2m:cnt":{}}{"m2m:cnt":{"cr":"` + thief + `"}}`), bad},
		{"a comment", post(`{"m2m:cnt":{/*"cr":"x",*/"rn":"a"}}`), bad},
		{"a byte order mark", post("\ufeff" + `{"m2m:cnt":{}}`), bad},
		{"no UTF-8", post("{\"m2m:cnt\":{\"rn\":\"\xff\"}}"), bad},
		{"no object", post(`[{"m2m:cnt":{}}]`), bad},
		{"no content", post(""), bad},
		{"content where there is none", request("GET /in-cse", plain, `{"fr":"`+thief+`"}`), bad},
		{"XML", typed("application/xml;ty=3"), bad},
		{"CBOR", typed("application/cbor;ty=3"), bad},
		{"a form", typed("application/x-www-form-urlencoded;ty=3"), bad},
		{"two resource types", typed("application/json;ty=3;ty=2"), bad},
		{"a resource type in another parameter", typed("application/json;x=ty=2;ty=3"), bad},
		{"a quoted resource type", typed(`application/json;ty="3"`), bad},
		{"a signed resource type", typed("application/json;ty=+3"), bad},
		{"a resource type with a zero", typed("application/json;ty=03"), bad},
		{"two content types", typed("application/json;ty=3\nContent-Type: application/json;ty=2"), bad},

		{"another method by header", headers("X-M2M-Origin: Cmeter7\nX-HTTP-Method-Override: DELETE"), 0},
		{"TRACE", request("TRACE /in-cse", plain, ""), int(onem2m.StatusOperationNotAllowed)},
		{"CONNECT", request("CONNECT other:80", plain, ""), int(onem2m.StatusOperationNotAllowed)},
		{"PATCH", request("PATCH /in-cse", plain+"\nContent-Type: application/json", "{}"), int(onem2m.StatusOperationNotAllowed)},
		{"HEAD", request("HEAD /in-cse", plain, ""), int(onem2m.StatusOperationNotAllowed)},
		{"lower case", request("get /in-cse", plain, ""), int(onem2m.StatusOperationNotAllowed)},
		{"Upgrade", headers("X-M2M-Origin: Cmeter7\nConnection: Upgrade\nUpgrade: websocket"), 0},
		{"a second request in the first's content", request("GET /in-cse", plain, request("GET /in-cse", "X-M2M-RI: 2\nX-M2M-Origin: "+thief, "")), bad},
		{"length and chunked", strings.Replace(post(`{"m2m:cnt":{}}`), "Content-Length", "Transfer-Encoding: chunked\r\nContent-Length", 1), bad},
		{"two lengths", strings.Replace(post(`{"m2m:cnt":{}}`), "Content-Length", "Content-Length: 0\r\nContent-Length", 1), bad},
		{"no request identifier", request("GET /in-cse", "X-M2M-Origin: Cmeter7", ""), bad},
		{"two request identifiers", headers("X-M2M-Origin: Cmeter7\nX-M2M-RI: 2"), bad},
	}
}

func TestTricks(t *testing.T) {
	for name, style := range backendtest.Styles {
		t.Run(name, func(t *testing.T) {
			cse := backendtest.Start(t, style)
			g := newRig(t, cse.URL, nil)
			device := g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7")
			for _, trick := range tricks() {
				// A connection of its own, since some end it; and a request
				// identifier of its own, which the CSE has not answered yet.
				c := g.dial(device)
				got := c.ask(strings.Replace(trick.text, "X-M2M-RI: 1\r\n", "X-M2M-RI: "+url.PathEscape(trick.name)+"\r\n", 1))
				c.conn.Close()
				seen := cse.Requests()
				if trick.rsc != 0 {
					if got.rsc() != trick.rsc || got.status < 400 || len(seen) > 0 {
						t.Errorf("%s: %v, want %d; the CSE got %+v", trick.name, got, trick.rsc, seen)
					}
					continue
				}
				if got.status != 200 || len(seen) != 1 {
					t.Errorf("%s: %v; the CSE got %+v", trick.name, got, seen)
					continue
				}
				if r := seen[0]; fmt.Sprint(r.Originators) != "[Cmeter7]" || r.Origin != "Cmeter7" || r.Method != "GET" || r.Path != "/in-cse" {
					t.Errorf("%s: the CSE got\n%s", trick.name, r.Raw)
				}
			}
			g.server.Shutdown(t.Context()) // after which all is in the log
			for _, e := range g.log.all() {
				if e.Peer != "//sp.example.com/in-cse/Cmeter7" || e.KcID.IsZero() || e.Refused != (e.Status >= 4000) || e.Refused && e.Reason == "" || e.To == "" && e.Operation != "" {
					t.Errorf("access log: %+v", e)
				}
			}
			if n := len(g.log.all()); n != len(tricks()) {
				t.Errorf("%d entries in the access log for %d requests", n, len(tricks()))
			}
		})
	}
}

// CSEs repeat the answer that they gave for a request identifier, whoever asks
// with it.
func TestReusedRequestIdentifier(t *testing.T) {
	for name, style := range backendtest.Styles {
		t.Run(name, func(t *testing.T) {
			cse := backendtest.Start(t, style)
			g := newRig(t, cse.URL, nil)
			meter := g.meter()
			other := g.dial(g.site.AE("meter8", "//sp.example.com/in-cse/Cmeter8"))
			first := meter.ask(request("GET /in-cse", "X-M2M-RI: 1\nX-M2M-Origin: Cmeter7", ""))
			second := other.ask(request("GET /in-cse", "X-M2M-RI: 1\nX-M2M-Origin: Cmeter8", ""))
			if !strings.Contains(first.content, "Cmeter7") || !strings.Contains(second.content, "Cmeter8") {
				t.Errorf("%v, then %v", first, second)
			}
			// One can't be chosen that the gateway makes for another, either.
			seen := cse.Requests()
			if len(seen) != 2 || seen[0].ID == seen[1].ID {
				t.Fatalf("the CSE got %+v", seen)
			}
			third := other.ask(request("GET /in-cse", "X-M2M-RI: "+seen[0].ID+"\nX-M2M-Origin: Cmeter8", ""))
			if !strings.Contains(third.content, "Cmeter8") || third.headers["X-M2M-RI"] != seen[0].ID {
				t.Errorf("%v", third)
			}
			// A repetition stays one.
			meter.ask(request("GET /in-cse", "X-M2M-RI: 1\nX-M2M-Origin: Cmeter7", ""))
			if again := cse.Requests(); len(again) != 2 || again[1].ID != seen[0].ID {
				t.Errorf("the CSE got %+v", again)
			}
		})
	}
}
