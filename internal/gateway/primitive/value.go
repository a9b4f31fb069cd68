package primitive

import "iter"

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
// the zero Value is null. A Value may be read concurrently.
type Value struct {
	kind    Kind
	truth   bool
	text    string // a string's content, or a number as written
	elems   []*Value
	members []member // in the order written
}

type member struct {
	name  string
	value *Value
}

// String returns a string value. NUL and what is not UTF-8 become U+FFFD, since
// no such string may reach a CSE.
func String(s string) *Value { return &Value{kind: KindString, text: s} }

// Number returns an integer value.
func Number(n int64) *Value { return &Value{kind: KindNumber} }

// Bool returns true or false.
func Bool(b bool) *Value { return &Value{kind: KindBool, truth: b} }

// Array returns an array of the given values.
func Array(elems ...*Value) *Value { return &Value{kind: KindArray, elems: elems} }

// Object returns an object without members; see Set.
func Object() *Value { return &Value{kind: KindObject} }

// Kind returns v's kind. A nil Value is null.
func (v *Value) Kind() Kind {
	if v == nil {
		return KindNull
	}
	return v.kind
}

// Get returns the member of exactly that name, or nil when v has none or is no
// object.
func (v *Value) Get(name string) *Value { return nil }

// Members yields an object's members in the order written, nothing for any
// other kind.
func (v *Value) Members() iter.Seq2[string, *Value] {
	return func(yield func(string, *Value) bool) {}
}

// Len returns the number of members of an object or elements of an array.
func (v *Value) Len() int { return 0 }

// Elems returns an array's elements, nil for any other kind.
func (v *Value) Elems() []*Value { return nil }

// Str returns a string's content.
func (v *Value) Str() (string, bool) { return "", false }

// Int returns a number that is written as an integer and fits.
func (v *Value) Int() (int64, bool) { return 0, false }

// Bool returns the truth of a true or false.
func (v *Value) Bool() (truth, ok bool) { return false, false }

// Set gives the object v the member name, in place of a member whose name
// differs in letter case at most, else as its last.
func (v *Value) Set(name string, value *Value) {}

// Delete takes the member name out of the object v.
func (v *Value) Delete(name string) {}

// Append appends v in its one canonical form to b: no white space, members in
// their order, strings with the fewest escapes, numbers as they were written.
func (v *Value) Append(b []byte) []byte { return b }
