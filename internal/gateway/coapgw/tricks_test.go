package coapgw

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/matrix"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// A reader finds the originators that some kind of CSE takes from a message. There is one
// for each kind of misreading that real ones are known for.
type reader struct {
	name string
	read func(*coap.Message) string
}

var readers = []reader{
	{"first of either dialect", func(m *coap.Message) string {
		for _, o := range m.Options {
			if o.Number == 256 || o.Number == 279 {
				return string(o.Value)
			}
		}
		return ""
	}},
	{"last of either dialect", func(m *coap.Message) (from string) {
		for _, o := range m.Options {
			if o.Number == 256 || o.Number == 279 {
				from = string(o.Value)
			}
		}
		return from
	}},
	{"terminated by NUL, and from the payload in any case", func(m *coap.Message) (from string) {
		for _, o := range m.Options {
			if o.Number == 256 || o.Number == 279 {
				from = string(o.Value)
			}
		}
		for i := range from {
			if from[i] == 0 {
				from = from[:i]
				break
			}
		}
		// encoding/json takes the last of several members, and ignores case.
		var payload struct{ FR *string }
		if json.Unmarshal(m.Payload, &payload) == nil && payload.FR != nil {
			from = *payload.FR
		}
		return from
	}},
}

// Every trick, in both of the CSE's dialects: the CSE sees the authenticated originator,
// whichever way it reads, or nothing.
func TestTricks(t *testing.T) {
	const victim = "CAdmin"
	tricks := []struct {
		name string
		make func(d *device) *coap.Message
	}{
		{"honest", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse", "Cmeter7", "") }},
		{"absolute form", func(d *device) *coap.Message {
			return d.request(coap.GET, "in-cse", "//sp.example.com/in-cse/Cmeter7", "")
		}},
		{"victim", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse", victim, "") }},
		{"own in 279, victim in 256", func(d *device) *coap.Message {
			return d.request(coap.GET, "in-cse", "Cmeter7", "", 256, victim)
		}},
		{"victim in 279, own in 256", func(d *device) *coap.Message {
			return d.request(coap.GET, "in-cse", victim, "", 256, "Cmeter7")
		}},
		{"own, then victim", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse", "Cmeter7", "", 279, victim) }},
		{"victim, then own", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse", victim, "", 279, "Cmeter7") }},
		{"victim and a NUL", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse", victim+"\x00Cmeter7", "") }},
		{"own and a NUL", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse", "Cmeter7\x00", "") }},
		{"in the payload", func(d *device) *coap.Message {
			return d.request(coap.POST, "in-cse", "Cmeter7", `{"fr":"`+victim+`","to":"in-cse","op":1,"rqi":"1","rvi":"5","pc":{"m2m:cnt":{}}}`, 267, 3)
		}},
		{"in the payload, in capitals", func(d *device) *coap.Message {
			return d.request(coap.POST, "in-cse", "Cmeter7", `{"m2m:cnt":{},"Fr":"`+victim+`"}`, 267, 3)
		}},
		{"in the payload, twice", func(d *device) *coap.Message {
			return d.request(coap.PUT, "in-cse", "Cmeter7", `{"fr":"Cmeter7","fr":"`+victim+`"}`)
		}},
		{"in the query", func(d *device) *coap.Message {
			return d.request(coap.GET, "in-cse", "Cmeter7", "", coap.URIQuery, "fr="+victim)
		}},
		{"an end of the target by NUL", func(d *device) *coap.Message { return d.request(coap.GET, "in-cse\x00", "Cmeter7", "") }},
		{"creator of another", func(d *device) *coap.Message {
			return d.request(coap.POST, "in-cse", "Cmeter7", `{"m2m:cnt":{"cr":"`+victim+`"}}`, 267, 3)
		}},
	}
	for _, dialect := range []Dialect{Release3, Early} {
		backend := newCSE(t, nil)
		g := newRig(t, backend.addr, func(_ *Config, b *BackendConfig) { b.Dialect = dialect })
		d := g.ae()
		for _, trick := range tricks {
			before := len(backend.requests())
			answer := d.do(trick.make(d))
			got := backend.requests()[before:]
			if len(got) == 0 == answer.Code.IsSuccess() {
				t.Errorf("%s: %v, and the CSE got %d requests", trick.name, answer.Code, len(got))
			}
			for _, m := range got {
				for _, r := range readers {
					if from := r.read(m); from != "Cmeter7" {
						t.Errorf("%s: a CSE that reads the %s sees %q", trick.name, r.name, from)
					}
				}
			}
		}
		if len(backend.requests()) < 1 {
			t.Error("the honest request didn't reach the CSE")
		}
	}
}

// A request identifier that another device, or another originator, has used is another one
// at the CSE, which therefore can't answer from its memory.
func TestReusedRequestID(t *testing.T) {
	backend := newCSE(t, nil)
	g := newRig(t, backend.addr, nil)
	one := g.ae()
	two := g.dial(g.site.AE("meter8", "//sp.example.com/in-cse/Cmeter8"), nil)
	ids := make(map[string]bool)
	for _, m := range []struct {
		d    *device
		from string
	}{{one, "Cmeter7"}, {two, "Cmeter8"}} {
		for range 2 { // a repetition is known as one
			m.d.n = 0
			if answer := m.d.do(m.d.request(coap.GET, "in-cse", m.from, "")); m.d.status(answer) != 2000 {
				t.Fatal(answer)
			}
			id, _ := Release3.text(backend.last(t).Options, requestID)
			ids[id] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("the CSE saw the identifiers %v, want one for each device", ids)
	}
}

// Through CoAP, every combination has the verdict of the standard.
func TestMatrix(t *testing.T) {
	rows, err := matrix.Rows()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(matrix.Config())
	if err != nil {
		t.Fatal(err)
	}
	// A registration that succeeded would change the verdicts of the rows after it.
	backend := newCSE(t, func(m *coap.Message) *coap.Message { return reply(m, coap.Forbidden, 4103, "") })
	g := newRig(t, backend.addr, func(c *Config, _ *BackendConfig) { c.Rules = rules })
	devices := make(map[string]*device)
	for _, p := range matrix.Peers() {
		if p.Association.KmID.IsZero() {
			continue // without an association there is no request
		}
		var end *saef.Device
		switch a := p.Association; {
		case !a.AEID.IsZero():
			end = g.site.AE(p.Name, a.AEID.String())
		case !a.CSEID.IsZero():
			end = g.site.CSE(p.Name, a.CSEID.String())
		default:
			end = g.site.Unnamed(p.Name)
		}
		devices[p.Name] = g.dial(end, nil)
	}
	if len(devices) < 9 {
		t.Fatalf("%d peers", len(devices))
	}
	var all sync.WaitGroup
	var origins sync.Map // by request, what the CSE must see
	for name, d := range devices {
		all.Go(func() {
			for _, row := range rows {
				if row.Peer.Name != name || testing.Short() && row.Form.Class == "malformed" {
					continue
				}
				d.checkRow(row, &origins)
			}
		})
	}
	all.Wait()
	for _, m := range backend.requests() {
		from, _ := Release3.text(m.Options, from)
		tag := fmt.Sprint(m.Options.Strings(coap.URIQuery))
		if want, ok := origins.LoadAndDelete(tag); !ok || want != from {
			t.Errorf("request %s: the CSE saw %q, want %q", tag, from, want)
		}
	}
	origins.Range(func(tag, want any) bool {
		t.Errorf("request %s from %q didn't reach the CSE", tag, want)
		return true
	})
}

func (d *device) checkRow(row matrix.Row, origins *sync.Map) {
	op := row.Operation
	m := d.request(method(op.Operation), "", "", op.Content)
	m.Options.Remove(coap.URIPath, 279)
	path, err := pathOf(op.To)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, segment := range path {
		m.Options.AddString(coap.URIPath, segment)
	}
	tag := fmt.Sprintf("tag=%s.%d", row.Peer.Name, d.n)
	m.Options.AddString(coap.URIQuery, tag)
	if row.Form.HasFrom {
		m.Options.AddString(279, row.Form.From)
	}
	if op.Type > 0 {
		m.Options.AddUint(267, uint32(op.Type))
	}
	answer := d.do(m)
	status := onem2m.ResponseStatusCode(d.status(answer))
	switch {
	case row.Status == 0 && status != 4103:
		d.t.Errorf("%v: %v (%q), but it is allowed (%s)", row, status, answer.Payload, row.Clause)
	case row.Status == 0:
		origins.Store("["+tag+"]", row.Origin)
	case status == row.Status && answer.Code == codeOf(status, op.Operation):
	case status == onem2m.StatusBadRequest && answer.Code == coap.BadOption && row.Form.Class == "malformed":
		// Not even a text, so no rule gets to see it.
	default:
		d.t.Errorf("%v: %v, status %v, want %v (%s)", row, answer.Code, status, row.Status, row.Clause)
	}
}
