// Package primitive reads and writes the JSON of oneM2M requests so that no
// second reader can read it differently.
//
// A gateway that checks who speaks in a request, and a CSE that acts on it, are
// two readers of one text. Where JSON or its parsers leave room, a device can
// make the first see one originator and the second another: a member given
// twice (some take the first, some the last), or once as "fr" and once as "FR"
// (some ignore case); a NUL, at which some end a string; half a surrogate pair
// or broken UTF-8, which some drop, some replace and some refuse. Parse refuses
// all of that, wherever in the text it stands, and Value.Append writes what was
// read anew, in one form. What goes on to the CSE is that form, never the
// octets that the device sent.
package primitive

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// The limits of Parse. They keep a text from costing much more memory than its
// length, and from reaching limits of a CSE's parser.
const (
	MaxSize   = 4 << 20 // octets
	MaxDepth  = 32      // arrays and objects within each other
	MaxValues = 1 << 17
	maxNumber = 64 // octets; Python refuses integers of more than 4,300 digits
)

// ErrSyntax is what every error of Parse, ParseRequest and ParseResponse is
// (with errors.Is).
var ErrSyntax = errors.New("primitive: malformed")

// Parse reads one JSON value: RFC 8259, in UTF-8, without member names that
// differ in letter case at most, without NUL, and within the limits. It keeps
// no part of b. An error names an offset and at most a member's name.
func Parse(b []byte) (*Value, error) {
	if len(b) > MaxSize {
		return nil, errSize
	}
	return parse(string(b)) // the one copy; strings without escapes are parts of it
}

// ParseInPlace is Parse without the copy: b must not be changed for as long as the
// Value, or a string that came from it, is in use. It is for contents of a
// megabyte, where that copy costs as much as the reading.
func ParseInPlace(b []byte) (*Value, error) {
	if len(b) > MaxSize {
		return nil, errSize
	}
	return parse(unsafe.String(unsafe.SliceData(b), len(b)))
}

var errSize = fmt.Errorf("%w: more than %d octets", ErrSyntax, MaxSize)

func parse(s string) (*Value, error) {
	p := parser{s: s, members: make([]member, 0, 24)}
	v := p.value(0)
	p.space()
	if p.err == nil && p.i < len(p.s) {
		p.fail("data after the value")
	}
	if p.err != nil {
		return nil, p.err
	}
	return v, nil
}

// A parser stands at s[i]. After the first error every method returns at once.
type parser struct {
	s     string
	i     int
	count int // values made so far
	err   error

	room    []Value  // unused ones, made many at a time
	members []member // those of the objects and arrays that are open, innermost last
}

func (p *parser) fail(what string) {
	if p.err == nil {
		p.err = fmt.Errorf("%w: %s at octet %d", ErrSyntax, what, p.i)
	}
	p.i = len(p.s)
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\r', '\n':
			p.i++
		default:
			return
		}
	}
}

// next skips white space and takes the octet c, if it is next.
func (p *parser) next(c byte) bool {
	p.space()
	if p.i < len(p.s) && p.s[p.i] == c {
		p.i++
		return true
	}
	return false
}

func (p *parser) new(kind Kind) *Value {
	if p.count++; p.count > MaxValues {
		p.fail("too many values")
	}
	if len(p.room) == 0 {
		p.room = make([]Value, min(max(p.count, 12), 512))
	}
	v := &p.room[0]
	p.room = p.room[1:]
	v.kind = kind
	return v
}

func (p *parser) value(depth int) *Value {
	p.space()
	if p.i >= len(p.s) {
		p.fail("end of text")
		return nil
	}
	switch c := p.s[p.i]; {
	case c == '{' || c == '[':
		if depth == MaxDepth {
			p.fail("too deep")
			return nil
		}
		p.i++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		v := p.new(KindString)
		v.text, v.clean = p.str()
		return v
	case c == '-' || '0' <= c && c <= '9':
		v := p.new(KindNumber)
		v.text = p.number()
		return v
	default:
		return p.word()
	}
}

func (p *parser) word() *Value {
	for _, w := range [...]struct {
		text  string
		kind  Kind
		truth bool
	}{{"null", KindNull, false}, {"true", KindBool, true}, {"false", KindBool, false}} {
		if rest := p.s[p.i:]; len(rest) >= len(w.text) && rest[:len(w.text)] == w.text {
			p.i += len(w.text)
			v := p.new(w.kind)
			v.truth = w.truth
			return v
		}
	}
	p.fail("no JSON value")
	return nil
}

func (p *parser) array(depth int) *Value {
	v := p.new(KindArray)
	if p.next(']') {
		return v
	}
	base := len(p.members)
	for p.err == nil {
		p.members = append(p.members, member{value: p.value(depth)})
		if p.next(',') {
			continue
		}
		if !p.next(']') {
			p.fail("no ',' or ']'")
		}
		break
	}
	v.members = p.take(base)
	return v
}

func (p *parser) object(depth int) *Value {
	v := p.new(KindObject)
	if p.next('}') {
		return v
	}
	base := len(p.members)
	for p.err == nil {
		m := member{name: p.name()}
		if !p.next(':') {
			p.fail("no ':'")
		}
		m.value = p.value(depth)
		p.members = append(p.members, m)
		if p.next(',') {
			continue
		}
		if !p.next('}') {
			p.fail("no ',' or '}'")
		}
		break
	}
	v.members = p.take(base)
	p.unique(v.members)
	return v
}

// take returns the members from base on, and closes what they are of.
func (p *parser) take(base int) []member {
	members := append([]member(nil), p.members[base:]...)
	p.members = p.members[:base]
	return members
}

// name reads a member's name. Control characters are no part of any name, and
// have a way of being stripped.
func (p *parser) name() string {
	p.space()
	if p.i >= len(p.s) || p.s[p.i] != '"' {
		p.fail("no member name")
		return ""
	}
	name, _ := p.str()
	for i := range len(name) {
		if name[i] < 0x20 || name[i] == 0x7f {
			p.fail("control character in a member name")
			return ""
		}
	}
	return name
}

// unique fails when two of the names are one to some reader.
func (p *parser) unique(members []member) {
	if len(members) > 16 {
		p.uniqueOfMany(members)
		return
	}
	for i := range members {
		for j := range i {
			if sameName(members[i].name, members[j].name) {
				p.duplicate(members[i].name)
				return
			}
		}
	}
}

// uniqueOfMany takes time that does not grow with the square of their number.
func (p *parser) uniqueOfMany(members []member) {
	seen := make(map[string]bool, len(members))
	for _, m := range members {
		key := foldName(m.name)
		if seen[key] {
			p.duplicate(m.name)
			return
		}
		seen[key] = true
	}
}

func (p *parser) duplicate(name string) {
	p.fail(fmt.Sprintf("a second member %q in an object that ends", short(name)))
}

// short cuts a name for an error text.
func short(name string) string {
	const most = 40
	if len(name) > most {
		return name[:most]
	}
	return name
}

// number reads a number of RFC 8259's grammar and returns it as written.
func (p *parser) number() string {
	start := p.i
	p.accept('-', '-')
	if !p.accept('0', '0') && !p.digits() {
		p.fail("number without digits")
	}
	if p.accept('.', '.') && !p.digits() {
		p.fail("fraction without digits")
	}
	if p.accept('e', 'e') || p.accept('E', 'E') {
		_ = p.accept('-', '-') || p.accept('+', '+')
		if !p.digits() {
			p.fail("exponent without digits")
		}
	}
	if p.err == nil && p.i-start > maxNumber {
		p.fail("number too long")
	}
	return p.s[start:p.i]
}

// accept takes one octet from lo to hi, if it is next.
func (p *parser) accept(lo, hi byte) bool {
	if p.i < len(p.s) && lo <= p.s[p.i] && p.s[p.i] <= hi {
		p.i++
		return true
	}
	return false
}

func (p *parser) digits() bool {
	start := p.i
	for p.accept('0', '9') {
	}
	return p.i > start
}

// str reads a string, whose first quote is next, and returns its content, and
// whether that isClean.
func (p *parser) str() (text string, clean bool) {
	p.i++
	start := p.i
	ascii := true
	for {
		p.i = plain(p.s, p.i)
		if p.i == len(p.s) {
			p.fail("string without end")
			return "", false
		}
		switch c := p.s[p.i]; {
		case c == '"':
			s := p.s[start:p.i]
			if !ascii && !utf8.ValidString(s) {
				p.fail("string that is not UTF-8")
				return "", false
			}
			p.i++
			return s, true
		case c == '\\':
			text = p.escaped(start)
			return text, isClean(text)
		case c < 0x20:
			p.fail("control character in a string")
			return "", false
		}
		ascii = false
		p.i = notASCII(p.s, p.i)
	}
}

// plain returns the index of the first octet of s, from i on, that means
// something in a JSON string or is not ASCII, or s's length. Contents are mostly
// text, of which it looks at eight octets at a time.
func plain(s string, i int) int {
	const high = 0x8080808080808080
	for ; i+32 <= len(s); i += 32 {
		t := s[i : i+32]
		if (suspects(word(t[:8]))|suspects(word(t[8:16]))|suspects(word(t[16:24]))|suspects(word(t[24:])))&high != 0 {
			break
		}
	}
	for i+8 <= len(s) && suspects(word(s[i:i+8]))&high == 0 {
		i += 8
	}
	for i < len(s) && s[i] >= 0x20 && s[i] < 0x80 && s[i] != '"' && s[i] != '\\' {
		i++
	}
	return i
}

// isClean reports whether a string needs no escapes.
func isClean(s string) bool {
	for i := plain(s, 0); i < len(s); i = plain(s, i) {
		if s[i] < 0x80 {
			return false
		}
		i = notASCII(s, i)
	}
	return true
}

// suspects returns a word without any octet's highest bit when no octet of w is
// one that plain looks for: no subtraction borrows from the octet above then, and
// none comes out with its highest bit.
func suspects(w uint64) uint64 {
	const each = 0x0101010101010101
	return w | (w - each*0x20) | ((w ^ each*'"') - each) | ((w ^ each*'\\') - each)
}

// word returns eight octets as one.
func word(t string) uint64 {
	_ = t[7]
	return uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
		uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
}

// notASCII returns the index of the first octet of s that is ASCII, from i on.
func notASCII(s string, i int) int {
	for i < len(s) && s[i] >= 0x80 {
		i++
	}
	return i
}

// escaped reads the rest of the string that began at s[start], from its first
// escape on.
func (p *parser) escaped(start int) string {
	b := append(make([]byte, 0, p.i-start+32), p.s[start:p.i]...)
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			p.i++
			if !utf8.Valid(b) {
				p.fail("string that is not UTF-8")
			}
			return string(b)
		case c == '\\':
			b = p.escape(b)
		case c < 0x20:
			p.fail("control character in a string")
		default:
			end := max(plain(p.s, p.i), p.i+1)
			b = append(b, p.s[p.i:end]...)
			p.i = end
		}
	}
	p.fail("string without end")
	return ""
}

// escape reads one escape and appends the character to b.
func (p *parser) escape(b []byte) []byte {
	if p.i+1 >= len(p.s) {
		p.fail("string without end")
		return b
	}
	c := p.s[p.i+1]
	p.i += 2
	switch c {
	case '"', '\\', '/':
		return append(b, c)
	case 'b':
		return append(b, '\b')
	case 'f':
		return append(b, '\f')
	case 'n':
		return append(b, '\n')
	case 'r':
		return append(b, '\r')
	case 't':
		return append(b, '\t')
	case 'u':
		return p.unicode(b)
	}
	p.fail("unknown escape")
	return b
}

// unicode reads the digits of \uXXXX, and a second escape when the first is the
// first half of a surrogate pair.
func (p *parser) unicode(b []byte) []byte {
	r := p.hex()
	if utf16.IsSurrogate(r) {
		if p.i+1 >= len(p.s) || p.s[p.i] != '\\' || p.s[p.i+1] != 'u' {
			p.fail("half a surrogate pair")
			return b
		}
		p.i += 2
		r = utf16.DecodeRune(r, p.hex())
		if r == utf8.RuneError { // no pair makes this one
			p.fail("half a surrogate pair")
			return b
		}
	}
	if r == 0 {
		p.fail("NUL")
		return b
	}
	return utf8.AppendRune(b, r)
}

func (p *parser) hex() rune {
	if p.i+4 > len(p.s) {
		p.fail("string without end")
		return 0
	}
	var r rune
	for range 4 {
		c := p.s[p.i]
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			p.fail("escape without four digits")
			return 0
		}
		p.i++
	}
	return r
}
