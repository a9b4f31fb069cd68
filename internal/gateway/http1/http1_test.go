package http1

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// read reads all messages of text, from a connection that gives one octet at a
// time.
func read(text string, lenient bool) (seen []string, err error) {
	r := NewReader(iotest.OneByteReader(strings.NewReader(text)))
	r.Lenient = lenient
	var m Message
	for {
		if err := r.Wait(); err != nil {
			if err == io.EOF {
				return seen, nil
			}
			return seen, err
		}
		if err := r.ReadRequest(&m); err != nil {
			return seen, err
		}
		body, err := r.ReadBody(&m, nil, 1000)
		if err != nil {
			return seen, err
		}
		one := m.Method + " " + m.Target
		for _, f := range m.Fields {
			one += "|" + f.Name + "=" + f.Value
		}
		seen = append(seen, one+"|"+string(body))
	}
}

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string // of all messages
		status     int      // of the error after them, -1 when it is no *Error
	}{
		{"plain", "GET /a HTTP/1.1\r\nHost: h\r\n\r\n", []string{"GET /a|Host=h|"}, 0},
		{"two", "GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\n", []string{"GET /a|Host=h|", "GET /b|Host=h|"}, 0},
		{"length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcPOST", []string{"POST /|Host=h|Content-Length=3|abc"}, -1},
		{"chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a\r\n0123456789\r\n0\r\n\r\n",
			[]string{"POST /|Host=h|Transfer-Encoding=chunked|abc0123456789"}, 0},
		{"white space around", "GET / HTTP/1.1\r\nHost: \t h \t\r\n\r\n", []string{"GET /|Host=h|"}, 0},
		{"1.0", "GET / HTTP/1.0\r\nHost: h\r\n\r\n", nil, 505},
		{"2.0", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", nil, 505},
		{"no version", "GET /\r\nHost: h\r\n\r\n", nil, 400},
		{"two blanks", "GET  / HTTP/1.1\r\nHost: h\r\n\r\n", nil, 400},
		{"blank in target", "GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", nil, 400},
		{"UTF-8 target", "GET /\u00e9 HTTP/1.1\r\nHost: h\r\n\r\n", nil, 400},
		{"no host", "GET / HTTP/1.1\r\n\r\n", nil, 400},
		{"two hosts", "GET / HTTP/1.1\r\nHost: h\r\nhost: h\r\n\r\n", nil, 400},
		{"leading empty line", "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", nil, 400},
		{"bare LF", "GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", nil, 400},
		{"bare CR", "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", nil, 400},
		{"NUL", "GET / HTTP/1.1\r\nHost: h\r\nX-M2M-Origin: Ca\x00b\r\n\r\n", nil, 400},
		{"folded", "GET / HTTP/1.1\r\nHost: h\r\nX-M2M-Origin: Ca\r\n b\r\n\r\n", nil, 400},
		{"blank before colon", "GET / HTTP/1.1\r\nHost: h\r\nX-M2M-Origin : Ca\r\n\r\n", nil, 400},
		{"no colon", "GET / HTTP/1.1\r\nHost: h\r\nX-M2M-Origin\r\n\r\n", nil, 400},
		{"no name", "GET / HTTP/1.1\r\nHost: h\r\n: Ca\r\n\r\n", nil, 400},
		{"two lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", nil, 400},
		{"list of lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc", nil, 400},
		{"signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", nil, 400},
		{"length and chunked", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nil, 400},
		{"gzip", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", nil, 501},
		{"chunked twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", nil, 400},
		{"hidden chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", nil, 400},
		{"chunk extension", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", nil, 400},
		{"chunk sign", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n", nil, 400},
		{"chunk with bare LF", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", nil, 400},
		{"long chunk", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", nil, 400},
		{"trailer", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", nil, 400},
		{"chunks too large", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", nil, 413},
		{"too large", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", nil, 413},
		{"other expectation", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", nil, 417},
		{"long head", "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("y", MaxHead) + "\r\n\r\n", nil, 431},
		{"many fields", "GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X: y\r\n", maxFields) + "\r\n", nil, 431},
		{"cut in the head", "GET / HTTP/1.1\r\nHost: h\r\n", nil, -1},
		{"cut in the body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab", nil, -1},
		{"cut in a chunk", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", nil, -1},
	} {
		seen, err := read(c.text, false)
		status := 0
		var e *Error
		if errors.As(err, &e) {
			status = e.Status
		} else if err != nil {
			status = -1
		}
		if status != c.status || strings.Join(seen, "\n") != strings.Join(c.want, "\n") {
			t.Errorf("%s: %q, %v; want %q, %d", c.name, seen, err, c.want, c.status)
		}
	}
}

// What a lenient Reader takes besides.
func TestLenientRequests(t *testing.T) {
	for text, want := range map[string]string{
		"POST n/abc HTTP/1.1\nA: b\n\n":                               "POST /n/abc|A=b|",
		"POST /n/abc HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}":         "POST /n/abc|Content-Length=2|{}",
		"POST /n/abc HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\r\n\x00": "POST /n/abc|Content-Length=2|{}",
	} {
		seen, _ := read(text, true)
		if len(seen) == 0 || seen[0] != want {
			t.Errorf("%q: %q, want %q", text, seen, want)
		}
	}
}

func TestResponses(t *testing.T) {
	for text, want := range map[string]string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}":                            "{}",
		"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\n{}":                               "{}",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n{}":                    "{}",
		"HTTP/1.0 200 OK\nA: b\n\n{}":                                               "{}",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n": "{}",
		"HTTP/1.1 204 No Content\r\n\r\n":                                           "",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}":                            "cut",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}":       "nonsense",
		"HTTP/1.1 20 OK\r\n\r\n":                                                    "nonsense",
		"SSH-2.0-OpenSSH\r\n\r\n":                                                   "nonsense",
		"HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("a", 1001):                       "nonsense",
	} {
		r := NewReader(strings.NewReader(text))
		r.Lenient = true
		var m Message
		err := r.ReadResponse(&m)
		var body []byte
		if err == nil {
			body, err = r.ReadBody(&m, nil, 1000)
		}
		got := string(body)
		var e *Error
		if errors.As(err, &e) {
			got = "nonsense"
		} else if err == io.ErrUnexpectedEOF {
			got = "cut"
		} else if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A body of one-octet chunks takes no more arrays than it doubles.
func TestSmallChunks(t *testing.T) {
	const n = 200_000
	head := "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	text := head + strings.Repeat("1\r\na\r\n", n) + "0\r\n\r\n"
	arrays := testing.AllocsPerRun(1, func() {
		r := NewReader(strings.NewReader(text))
		var m Message
		if err := r.ReadRequest(&m); err != nil {
			t.Fatal(err)
		}
		if body, err := r.ReadBody(&m, nil, n); err != nil || len(body) != n {
			t.Fatal(len(body), err)
		}
	})
	if arrays > 60 {
		t.Errorf("%.0f arrays", arrays)
	}
}

// A body behind a status that has none is not the next response.
func TestBodyThatMayNotBe(t *testing.T) {
	for text, want := range map[string]bool{
		"HTTP/1.1 204 No Content\r\n\r\n":                                      false,
		"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n":                 false,
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nHTTP/":            true,
		"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n": true,
	} {
		var m Message
		if err := NewReader(strings.NewReader(text)).ReadResponse(&m); err != nil || m.Close != want || m.HasBody() {
			t.Errorf("%q: close %v, %v", text, m.Close, err)
		}
	}
}

// A Reader holds a buffer only while there is something in it.
func TestIdleReaderHoldsNoBuffer(t *testing.T) {
	left, right := io.Pipe()
	r := NewReader(left)
	go func() {
		right.Write([]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{}"))
		right.Close()
	}()
	var m Message
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	if err := r.ReadRequest(&m); err != nil {
		t.Fatal(err)
	}
	if _, err := r.ReadBody(&m, nil, 10); err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(); err != io.EOF {
		t.Fatal(err)
	}
	if r.buf != nil {
		t.Error("it holds one")
	}
}

// What is read is not more than what is there, and every request read is read
// the same again from the fields that came out of it.
func FuzzRequest(f *testing.F) {
	f.Add([]byte("GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte("POST n HTTP/1.0\nA: b\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := NewReader(bytes.NewReader(text))
		var m Message
		if r.ReadRequest(&m) != nil {
			return
		}
		body, err := r.ReadBody(&m, nil, 1000)
		if err != nil {
			return
		}
		again := m.Method + " " + m.Target + " HTTP/1.1\r\n"
		for _, f := range m.Fields {
			again += f.Name + ": " + f.Value + "\r\n"
		}
		again += "\r\n"
		if m.length >= 0 {
			again += string(body)
		}
		r2 := NewReader(strings.NewReader(again))
		var m2 Message
		if err := r2.ReadRequest(&m2); err != nil {
			t.Fatalf("%q: %v", again, err)
		}
		if m2.Method != m.Method || m2.Target != m.Target || len(m2.Fields) != len(m.Fields) || m2.length != m.length {
			t.Fatalf("%+v, then %+v", m, m2)
		}
		for i, f := range m.Fields {
			if m2.Fields[i] != f {
				t.Fatalf("%+v, then %+v", f, m2.Fields[i])
			}
		}
	})
}
