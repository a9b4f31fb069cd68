package http1

import (
	"strconv"
	"strings"
)

// ReadRequest reads the head of a request. An io.EOF means that there is none
// any more. After an *Error the connection can't be used on.
func (r *Reader) ReadRequest(m *Message) error {
	text, err := r.begin(m)
	if err != nil {
		return err
	}
	first, rest, ok := r.cutLine(text)
	if !ok {
		return errBareLF
	}
	if err := r.requestLine(m, first); err != nil {
		return err
	}
	if err := r.fields(m, rest); err != nil {
		return err
	}
	return r.requestFraming(m)
}

// ReadResponse reads the head of a response that is not of class 1xx. Like all
// of HTTP's readers it must be told when the request's method was HEAD; the
// gateway never sends one.
func (r *Reader) ReadResponse(m *Message) error {
	for range 4 { // interim responses
		text, err := r.begin(m)
		if err != nil {
			return err
		}
		first, rest, ok := r.cutLine(text)
		if !ok {
			return errBareLF
		}
		if err := statusLine(m, first); err != nil {
			return err
		}
		if err := r.fields(m, rest); err != nil {
			return err
		}
		if m.Status >= 200 {
			return responseFraming(m)
		}
	}
	return refuse(502, "no end of interim responses")
}

// begin reads a head, of which all of m's strings will be parts.
func (r *Reader) begin(m *Message) (string, error) {
	*m = Message{Fields: m.Fields[:0]}
	head, err := r.head()
	if err != nil {
		return "", err
	}
	return string(head), nil
}

// cutLine cuts the first line off text, without the line's end. ok is false when
// that is a bare LF and may not be.
func (r *Reader) cutLine(text string) (line, rest string, ok bool) {
	line, rest, _ = strings.Cut(text, "\n")
	line, ok = strings.CutSuffix(line, "\r")
	return line, rest, ok || r.Lenient
}

var errBareLF = refuse(400, "a line that ends with a bare LF")

func (r *Reader) requestLine(m *Message, line string) error {
	method, rest, _ := strings.Cut(line, " ")
	target, version, ok := strings.Cut(rest, " ")
	switch {
	case !ok || !isToken(method) || target == "" || !isVisible(target):
		return refuse(400, "a malformed request line")
	case version != "HTTP/1.1" && !(r.Lenient && version == "HTTP/1.0"):
		if strings.HasPrefix(version, "HTTP/") {
			return refuse(505, "a version that is not HTTP/1.1")
		}
		return refuse(400, "a malformed request line")
	}
	if r.Lenient && target[0] != '/' {
		target = "/" + target
	}
	m.Method, m.Target = method, target
	m.Close = version == "HTTP/1.0"
	return nil
}

func statusLine(m *Message, line string) error {
	version, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if version != "HTTP/1.1" && version != "HTTP/1.0" || len(code) != 3 || err != nil || status < 100 || status > 599 {
		return refuse(502, "a malformed status line")
	}
	m.Status, m.Close = status, version == "HTTP/1.0"
	return nil
}

// fields reads the header fields. text ends with the empty line.
func (r *Reader) fields(m *Message, text string) error {
	for {
		line, rest, terminated := r.cutLine(text)
		if line == "" && rest == "" {
			return nil
		}
		name, value, ok := strings.Cut(line, ":")
		switch {
		case !terminated:
			return errBareLF
		case line != "" && (line[0] == ' ' || line[0] == '\t'):
			return refuse(400, "a folded header line")
		case !ok || !isToken(name):
			return refuse(400, "a malformed header line")
		case len(m.Fields) == maxFields:
			return refuse(431, "more than %d header fields", maxFields)
		}
		value = strings.Trim(value, " \t")
		if !isFieldValue(value) {
			return refuse(400, "a control character in header %s", name)
		}
		m.Fields = append(m.Fields, Field{name, value})
		text = rest
	}
}

// framing is what the fields say of where the message ends.
type framing struct {
	hosts, lengths, encodings int
	length                    int64
}

func (m *Message) framing(status int) (f framing, err error) {
	for i := range m.Fields {
		switch field := &m.Fields[i]; {
		case field.Is("Content-Length"):
			f.lengths++
			if f.length, err = parseLength(field.Value); err != nil {
				return f, refuse(status, "a malformed Content-Length")
			}
		case field.Is("Transfer-Encoding"):
			f.encodings++
			if !strings.EqualFold(field.Value, "chunked") {
				return f, refuse(501, "a Transfer-Encoding other than chunked")
			}
		case field.Is("Host"):
			f.hosts++
		case field.Is("Connection"):
			if hasToken(field.Value, "close") {
				m.Close = true
			}
		case field.Is("Expect"):
			if !strings.EqualFold(field.Value, "100-continue") {
				return f, refuse(417, "an Expect other than 100-continue")
			}
			m.ExpectContinue = true
		}
	}
	// Whoever sends two may hope that we take one and the next reader the other,
	// also where both are the same today.
	if f.lengths+f.encodings > 1 {
		return f, refuse(status, "more than one of Content-Length and Transfer-Encoding")
	}
	m.length = f.length
	if f.encodings > 0 {
		m.length = chunked
	}
	return f, nil
}

func (r *Reader) requestFraming(m *Message) error {
	f, err := m.framing(400)
	if err != nil {
		return err
	}
	if f.hosts != 1 && !r.Lenient {
		return refuse(400, "%d Host headers", f.hosts)
	}
	return nil
}

func responseFraming(m *Message) error {
	f, err := m.framing(502)
	switch {
	case err != nil:
		return err
	case m.Status == 204 || m.Status == 304:
		// These have no body. If one comes all the same, it must not be taken for
		// the next response.
		m.Close = m.Close || m.length != 0
		m.length = 0
	case f.lengths+f.encodings == 0:
		m.length, m.Close = untilClose, true
	}
	return nil
}

func parseLength(s string) (int64, error) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseInt(s, 10, 64)
}

// hasToken reports whether a comma-separated list has the token.
func hasToken(list, token string) bool {
	for item := range strings.SplitSeq(list, ",") {
		if strings.EqualFold(strings.Trim(item, " \t"), token) {
			return true
		}
	}
	return false
}

// isToken reports whether s is a token of RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// isVisible reports whether s consists of visible US-ASCII characters.
func isVisible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// isFieldValue reports whether s has no control characters.
func isFieldValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' && s[i] != '\t' || s[i] == 0x7f {
			return false
		}
	}
	return true
}
