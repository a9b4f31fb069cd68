package primitive

import (
	"iter"
	"slices"
	"strconv"
	"strings"
)

// A Kind says what a Value is.
type Kind uint8

// The kinds of JSON values.
const (
	KindNull Kind = iota
	KindBool
	KindNumber
	KindString
	KindArray
	KindObject
)

// A Value is one JSON value. Values come from Parse or from the constructors;
// the zero Value and a nil one are null. Reading a Value concurrently is fine.
type Value struct {
	kind  Kind
	truth bool
	clean bool   // isClean(text), of a string
	text  string // a string's content, or a number as it was written
	// members are an object's, in the order written, no two of which have the
	// sameName, or an array's elements, whose names are not used.
	members []member
}

type member struct {
	name  string
	value *Value
}

// String returns a string value. NUL, and octets that are not UTF-8, become
// U+FFFD: they end a string in one reader and not in another.
func String(s string) *Value {
	s = strings.ToValidUTF8(s, "\uFFFD")
	s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	return &Value{kind: KindString, clean: isClean(s), text: s}
}

// Number returns an integer value.
func Number(n int64) *Value {
	return &Value{kind: KindNumber, text: strconv.FormatInt(n, 10)}
}

// Array returns an array of the given values.
func Array(elems ...*Value) *Value {
	v := &Value{kind: KindArray}
	for _, e := range elems {
		if e == nil {
			e = &Value{}
		}
		v.members = append(v.members, member{value: e})
	}
	return v
}

// Object returns an object without members; see Set.
func Object() *Value { return &Value{kind: KindObject} }

// Kind returns v's kind.
func (v *Value) Kind() Kind {
	if v == nil {
		return KindNull
	}
	return v.kind
}

// Get returns the member of exactly that name, or nil when v has none or is no
// object.
func (v *Value) Get(name string) *Value {
	if v.Kind() != KindObject {
		return nil
	}
	for i := range v.members {
		if v.members[i].name == name {
			return v.members[i].value
		}
	}
	return nil
}

// Find returns the member whose name differs from name in letter case at most,
// and its name as written: what a reader that ignores case takes for name.
// There is at most one such member. written is "" when there is none.
func (v *Value) Find(name string) (written string, value *Value) {
	if v.Kind() != KindObject {
		return "", nil
	}
	if i := v.index(name); i >= 0 {
		return v.members[i].name, v.members[i].value
	}
	return "", nil
}

func (v *Value) index(name string) int {
	return slices.IndexFunc(v.members, func(m member) bool { return sameName(m.name, name) })
}

// Members yields an object's members in the order written, and nothing for any
// other kind.
func (v *Value) Members() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {
		if v.Kind() != KindObject {
			return
		}
		for _, m := range v.members {
			if !yield(m.name, m.value) {
				return
			}
		}
	}
}

// Objects yields every object in v, v itself first when it is one.
func (v *Value) Objects() iter.Seq[*Value] {
	return func(yield func(*Value) bool) { v.objects(yield) }
}

func (v *Value) objects(yield func(*Value) bool) bool {
	if v == nil || v.kind == KindObject && !yield(v) {
		return v == nil
	}
	for _, m := range v.members {
		if !m.value.objects(yield) {
			return false
		}
	}
	return true
}

// Len returns the number of members of an object or of elements of an array.
func (v *Value) Len() int {
	if v == nil {
		return 0
	}
	return len(v.members)
}

// Elems returns an array's elements in a new slice, nil for any other kind.
func (v *Value) Elems() []*Value {
	if v.Kind() != KindArray {
		return nil
	}
	elems := make([]*Value, len(v.members))
	for i, m := range v.members {
		elems[i] = m.value
	}
	return elems
}

// Str returns a string's content.
func (v *Value) Str() (string, bool) {
	if v.Kind() != KindString {
		return "", false
	}
	return v.text, true
}

// Int returns a number that is written as an integer, without exponent or
// fraction, and fits. "-0" is none: readers disagree whether it is 0.
func (v *Value) Int() (int64, bool) {
	if v.Kind() != KindNumber || v.text == "-0" {
		return 0, false
	}
	n, err := strconv.ParseInt(v.text, 10, 64)
	return n, err == nil
}

// Set gives the object v the member name, in the place of a member whose name
// differs in letter case at most, else as its last. It does nothing to any
// other kind. The name must be one that Parse accepts.
func (v *Value) Set(name string, value *Value) {
	if v.Kind() != KindObject {
		return
	}
	if value == nil {
		value = &Value{}
	}
	if i := v.index(name); i >= 0 {
		v.members[i] = member{name, value}
		return
	}
	v.members = append(v.members, member{name, value})
}

// Delete takes the member name, in any letter case, out of the object v.
func (v *Value) Delete(name string) {
	if v.Kind() != KindObject {
		return
	}
	v.members = slices.DeleteFunc(v.members, func(m member) bool { return sameName(m.name, name) })
}

// Append appends v in its one canonical form to b: no white space, members in
// their order, strings with the fewest escapes, numbers as they were written.
// Of a Value that Parse made it is never longer than what was parsed.
func (v *Value) Append(b []byte) []byte {
	switch v.Kind() {
	case KindBool:
		return strconv.AppendBool(b, v.truth)
	case KindNumber:
		return append(b, v.text...)
	case KindString:
		if v.clean {
			return append(append(append(b, '"'), v.text...), '"')
		}
		return appendString(b, v.text)
	case KindArray:
		b = append(b, '[')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = m.value.Append(b)
		}
		return append(b, ']')
	case KindObject:
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendString(b, m.name), ':')
			b = m.value.Append(b)
		}
		return append(b, '}')
	}
	return append(b, "null"...)
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	done := 0
	for i := plain(s, 0); i < len(s); i = plain(s, i) {
		c := s[i]
		if c >= 0x80 {
			i = notASCII(s, i)
			continue
		}
		b = append(b, s[done:i]...)
		i++
		done = i
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(b, s[done:]...), '"')
}
