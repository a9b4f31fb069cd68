package httpgw

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/http1"
)

// Whatever a device sends, what the CSE would get of it is read back, by a
// reader as strict, as the very same request; it has one originator at most, and
// a path that needs no decoding.
func FuzzNormalise(f *testing.F) {
	for _, trick := range tricks() {
		f.Add([]byte(trick.text))
	}
	f.Add([]byte(benchRequest(`{"m2m:cin":{"con":"21.5"}}`)))
	f.Add([]byte(request("PUT /~/mn-cse/a?rcn=1&ty=2+3&lbl=%20&lbl=%C3%A9", originator(1)+"\nX-M2M-RET: 1\nX-M2M-VSI: a b\nContent-Type: application/json", "{}")))
	b, err := NewBackend(BackendConfig{URL: "http://cse.example.com"})
	if err != nil {
		f.Fatal(err)
	}
	read := func(text []byte) (*exchange, bool) {
		x := &exchange{}
		r := http1.NewReader(bytes.NewReader(text))
		if r.ReadRequest(&x.head) != nil {
			return nil, false
		}
		var err error
		if x.body, err = r.ReadBody(&x.head, nil, 1<<20); err != nil {
			return nil, false
		}
		content, refused := x.translate()
		if refused != nil {
			return nil, false
		}
		if content != nil {
			x.request.Content = content.Append(nil)
		}
		return x, true
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		x, ok := read(text)
		if !ok {
			return
		}
		head, err := b.appendRequest(nil, &x.request)
		if err != nil {
			if !b.isHidden(x.request.To) {
				t.Fatalf("%q is taken, but not carried: %v", text, err)
			}
			return
		}
		out := append(head, x.request.Content...)
		again, ok := read(out)
		if !ok {
			t.Fatalf("%q makes %q, which is refused", text, out)
		}
		if !reflect.DeepEqual(again.request, x.request) {
			t.Fatalf("%q makes %q:\n%+v\n%+v", text, out, x.request, again.request)
		}
		if n := strings.Count(strings.ToLower(string(head)), "\r\nx-m2m-origin: "); n > 1 || n == 1 != x.request.HasFrom {
			t.Fatalf("%q makes %q", text, out)
		}
		path, _, _ := bytes.Cut(head, []byte("?"))
		path, _, _ = bytes.Cut(path, []byte(" HTTP/1.1\r\n"))
		if bytes.ContainsAny(path, "%\\\x00") || bytes.Contains(path, []byte("//")) || bytes.Contains(path, []byte("/../")) {
			t.Fatalf("%q makes %q", text, out)
		}
		if second, err := b.appendRequest(nil, &again.request); err != nil || !bytes.Equal(second, head) {
			t.Fatalf("%q, then %q", head, second)
		}
	})
}

// What another binding may give as a target is carried as that target.
func FuzzTarget(f *testing.F) {
	for _, to := range []string{"in-cse/x", "/mn-cse/x", "//sp.example.com/in-cse", "~", "/~/x", "a//b", "-", ".."} {
		f.Add(to)
	}
	f.Fuzz(func(t *testing.T, to string) {
		if CheckTo(to) != nil {
			return
		}
		if back, err := parsePath(string(appendPath(nil, to))); err != nil || back != to {
			t.Fatalf("%q comes back as %q, %v", to, back, err)
		}
	})
}

// No answer of a CSE or of a device makes one that a device reads as two.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nX-M2M-RSC: 2000\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 201\nX-M2M-RSC: 2001\nContent-Location: http://h/x\nX-M2M-ATI: a:b + c:d\n\n{}"))
	f.Add([]byte("HTTP/1.0 204 \r\nX-M2M-RSC: 2004\r\nX-M2M-Origin: /in-cse\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := http1.NewReader(bytes.NewReader(text))
		r.Lenient = true
		var m http1.Message
		if r.ReadResponse(&m) != nil {
			return
		}
		content, err := r.ReadBody(&m, nil, 1<<20)
		if err != nil {
			return
		}
		response, err := readResponse(&m, content, "1")
		if err != nil {
			return
		}
		a := answer{status: response.Status, http: response.HTTPStatus, id: "1", from: response.From, params: &response.Params,
			location: response.Location, contentType: response.ContentType, content: response.Content}
		out := append(appendAnswer(nil, &a, true), a.content...)
		strict := http1.NewReader(bytes.NewReader(out))
		if err := strict.ReadResponse(&m); err != nil {
			t.Fatalf("%q makes %q: %v", text, out, err)
		}
		if body, err := strict.ReadBody(&m, nil, 1<<20); err != nil || !bytes.Equal(body, a.content) || strict.Buffered() > 0 {
			t.Fatalf("%q makes %q: %v", text, out, err)
		}
	})
}
