// Package backendtest has small HTTP CSEs for tests, which read requests as
// loosely as real ones do, each in its own way: what one of them takes from a
// request with two originators another one does not.
package backendtest

import (
	"bytes"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A Style is how a Backend chooses among several.
type Style int

const (
	// FirstWins takes the first of two headers or JSON members of one name,
	// compares names by letter case, decodes a path before it splits it, and ends
	// it at a NUL, as programs in C do.
	FirstWins Style = iota
	// LastWins takes the last, as most scripting languages do.
	LastWins
	// AnyCase takes the last, whatever its letter case, and '_' for '-' in the
	// names of headers, as CGI and its descendants do.
	AnyCase
)

// Styles are all of them.
var Styles = map[string]Style{"first wins": FirstWins, "last wins": LastWins, "any case": AnyCase}

// A Request is one that a Backend got.
type Request struct {
	Raw     string // head and content
	Method  string
	Path    string // as the style reads it
	Origin  string // "" when it found none
	HasFrom bool
	ID      string
	Type    string // ty
	Content string
	// Originators are all that any reader could take for an originator, wherever
	// it stands.
	Originators []string
	// Reads is how many reads it took.
	Reads int
}

// A Backend is a CSE that knows no access control and keeps nothing but the
// answers that it gave, which it repeats for a request identifier that it has
// seen.
type Backend struct {
	URL string
	// Answer, when not nil, makes the answers: status, content.
	Answer func(*Request) (rsc int, content string)

	style Style
	mu    sync.Mutex
	seen  []Request         // guarded by mu
	given map[string]string // answers by request identifier; guarded by mu
	next  int               // number of AE-IDs assigned; guarded by mu
}

// Start starts a Backend, which ends with the test. Fields may be set before the
// first request.
func Start(t testing.TB, style Style) *Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{URL: "http://" + l.Addr().String(), style: style, given: make(map[string]string)}
	var mu sync.Mutex
	open := make(map[net.Conn]bool) // guarded by mu
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				defer c.Close()
				b.serve(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return b
}

// Requests returns what it got, and forgets it.
func (b *Backend) Requests() []Request {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen := b.seen
	b.seen = nil
	return seen
}

func (b *Backend) serve(c net.Conn) {
	var pending []byte
	buf := make([]byte, 64<<10)
	reads := 0
	for {
		r, n := b.parse(pending)
		if n == 0 {
			m, err := c.Read(buf)
			if err != nil {
				return
			}
			reads++
			pending = append(pending, buf[:m]...)
			continue
		}
		r.Raw, r.Reads = string(pending[:n]), reads
		pending, reads = pending[n:], 0
		if _, err := c.Write([]byte(b.answer(r))); err != nil {
			return
		}
		if strings.Contains(r.Raw, "Connection: close") {
			return
		}
	}
}

// parse reads the request that p begins with, and how long it is, or 0 when it
// is not all there.
func (b *Backend) parse(p []byte) (*Request, int) {
	head, content, ok := bytes.Cut(p, []byte("\r\n\r\n"))
	if !ok {
		return nil, 0
	}
	lines := strings.Split(string(head), "\r\n")
	words := strings.Split(lines[0]+"  ", " ")
	r := &Request{Method: words[0], Path: b.path(words[1])}
	length := 0
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		loose := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		if loose == "x-m2m-origin" {
			r.Originators = append(r.Originators, value)
		}
		switch {
		case loose == "content-length":
			length, _ = strconv.Atoi(value)
		case loose == "content-type":
			_, r.Type, _ = strings.Cut(value, "ty=")
		case b.is(name, "X-M2M-RI"):
			r.ID = b.choose(r.ID, value, r.ID != "")
		case b.is(name, "X-M2M-Origin"):
			r.Origin, r.HasFrom = b.choose(r.Origin, value, r.HasFrom), true
		}
	}
	if len(content) < length {
		return nil, 0
	}
	r.Content = string(content[:length])
	r.Originators = append(r.Originators, b.inContent(r.Content)...)
	return r, len(head) + 4 + length
}

func (b *Backend) is(name, want string) bool {
	if b.style == AnyCase {
		name = strings.ReplaceAll(name, "_", "-")
	}
	return name == want || b.style != FirstWins && strings.EqualFold(name, want)
}

func (b *Backend) choose(old, new string, again bool) string {
	if again && b.style == FirstWins {
		return old
	}
	return new
}

// path decodes first and splits later, which is the wrong way round.
func (b *Backend) path(target string) string {
	var out []byte
	for i := 0; i < len(target); i++ {
		if n, err := strconv.ParseUint(target[min(i+1, len(target)):min(i+3, len(target))], 16, 8); target[i] == '%' && err == nil {
			out = append(out, byte(n))
			i += 2
		} else {
			out = append(out, target[i])
		}
	}
	path, _, _ := strings.Cut(string(out), "?")
	if b.style == FirstWins {
		path, _, _ = strings.Cut(path, "\x00")
	}
	return path
}

// inContent finds what stands behind names that mean an originator, wherever.
func (b *Backend) inContent(content string) (found []string) {
	for _, name := range []string{`"fr"`, `"cr"`} {
		rest := strings.ToLower(content)
		for {
			i := strings.Index(rest, name)
			if i < 0 {
				break
			}
			rest = strings.TrimLeft(rest[i+len(name):], " :\t\r\n")
			value, _, _ := strings.Cut(strings.TrimPrefix(rest, `"`), `"`)
			found = append(found, value)
		}
	}
	return found
}

func (b *Backend) answer(r *Request) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.seen = append(b.seen, *r)
	if old, ok := b.given[r.ID]; ok {
		return old
	}
	rsc, content := b.outcome(r)
	b.given[r.ID] = fmt.Sprintf("HTTP/1.1 %d Whatever\r\nX-M2M-RSC: %d\r\nX-M2M-RI: %s\r\nX-M2M-RVI: 3\r\nServer: test\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", rsc/1000*100, rsc, r.ID, len(content), content)
	return b.given[r.ID]
}

// outcome says in the answer who asked. b.mu is held.
func (b *Backend) outcome(r *Request) (rsc int, content string) {
	switch {
	case b.Answer != nil:
		return b.Answer(r)
	case r.Method == "POST" && r.Type == "2":
		stem := r.Origin[strings.LastIndex(r.Origin, "/")+1:]
		if stem == "" || stem == "C" || stem == "S" {
			b.next++
			stem = fmt.Sprintf("%s%d", (stem + "C")[:1], b.next)
		}
		return 2001, fmt.Sprintf(`{"m2m:ae":{"ri":"%s","aei":"%s"}}`, stem, stem)
	case r.Method == "POST" && r.Type != "":
		return 2001, fmt.Sprintf(`{"m2m:any":{"cr":"%s"}}`, r.Origin)
	case r.Method == "PUT":
		return 2004, "{}"
	case r.Method == "DELETE":
		return 2002, ""
	}
	return 2000, fmt.Sprintf(`{"m2m:cb":{"asker":"%s"}}`, r.Origin)
}
