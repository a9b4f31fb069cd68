package coapgw

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
)

// Whatever a device sends, what the gateway makes of it for a CSE of either dialect is read
// by every CSE as the gateway read it, and is what the gateway would make of that again.
func FuzzRequest(f *testing.F) {
	d := &device{}
	for _, dialect := range []Dialect{Release3, Early} {
		d.dialect = dialect
		for _, m := range []*coap.Message{
			d.request(coap.GET, "~/in-cse/base", "Cmeter7", "", coap.URIQuery, "rcn=4&ty=2+3", coap.Observe, 0),
			d.request(coap.POST, "in-cse", "Cmeter7", `{"m2m:cnt":{"rn":"c","lbl":["a"]}}`, 267, 3, 271, "3", 259, "20260101T000000"),
			d.request(coap.POST, "_/sp.example.com/in-cse/x", "/mn-cse", `{"m2m:sgn":{"vrq":true}}`, int(dialect.number(eventCategory)), 2),
			d.request(coap.POST, "in-cse", "Cmeter7", "", coap.URIQuery, "op=2", coap.URIQuery, "rt=2"),
			d.request(coap.PUT, "in-cse", "Cmeter7\x00", `{"fr":"CAdmin"}`, 256, "x"),
		} {
			f.Add(m.Append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := coap.Parse(in)
		if err != nil || !m.Code.IsRequest() {
			return
		}
		d, refused := checkOptions(&m, Release3)
		if refused != nil {
			return
		}
		r, content, refused := readRequest(&m, d)
		if refused != nil {
			return
		}
		if content != nil {
			r.Content = content.Append(nil)
		}
		for _, cse := range []Dialect{Release3, Early} {
			b, err := NewBackend(BackendConfig{Address: "127.0.0.1:9", Dialect: cse})
			if err != nil {
				t.Fatal(err)
			}
			out, err := b.message(r)
			if err != nil {
				continue
			}
			for _, reader := range readers {
				if from := reader.read(out); from != r.From {
					t.Fatalf("a CSE that reads the %s sees %q, not %q", reader.name, from, r.From)
				}
			}
			octets := out.Append(nil)
			again, err := coap.Parse(octets)
			if err != nil {
				t.Fatal(err)
			}
			back, refused := checkOptions(&again, cse)
			if refused != nil || back != cse {
				t.Fatalf("dialect %d, %v", back, refused)
			}
			r2, content2, refused := readRequest(&again, cse)
			if refused != nil {
				t.Fatalf("%s: %q", refused.reason, octets)
			}
			if content2 != nil {
				r2.Content = content2.Append(nil)
			}
			out2, err := b.message(r2)
			if err != nil || !bytes.Equal(octets, out2.Append(nil)) {
				t.Fatalf("%q\nbecame\n%q, %v", octets, out2.Append(nil), err)
			}
			if r.Operation != r2.Operation || r.To != r2.To || r.From != r2.From || r.Type != r2.Type || fmt.Sprint(r.Query) != fmt.Sprint(r2.Query) {
				t.Fatalf("%+v\nbecame\n%+v", r, r2)
			}
		}
	})
}

// An answer that is taken is one that can be given.
func FuzzAnswer(f *testing.F) {
	m := &coap.Message{Code: coap.GET}
	m.Options.AddString(283, "id")
	ok := reply(m, coap.Created, 2001, `{"m2m:cnt":{}}`)
	ok.Options.AddString(coap.LocationPath, "coap://127.0.0.1/in-cse/c")
	f.Add(ok.Append(nil))
	f.Add([]byte("`E\x00\x01\xd4\xf7\x262004"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := coap.Parse(in)
		if err != nil || !m.Code.IsResponse() {
			return
		}
		r, err := readAnswer(&m, Release3, 2, "id")
		if err != nil {
			return
		}
		out := newAnswer(r, Early, 2, "own")
		again, err := coap.Parse(out.Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		r2, err := readAnswer(&again, Early, 2, "own")
		if err != nil || r2.Status != r.Status || !bytes.Equal(r.Content, r2.Content) && r2.ContentType != "" {
			t.Fatalf("%+v became %+v, %v", r, r2, err)
		}
	})
}
