package coap

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// The options of RFC 7252, RFC 7641 and RFC 7959.
const (
	IfMatch       = 1
	URIHost       = 3
	ETag          = 4
	IfNoneMatch   = 5
	Observe       = 6
	URIPort       = 7
	LocationPath  = 8
	URIPath       = 11
	ContentFormat = 12
	MaxAge        = 14
	URIQuery      = 15
	Accept        = 17
	LocationQuery = 20
	Block2        = 23
	Block1        = 27
	Size2         = 28
	ProxyURI      = 35
	ProxyScheme   = 39
	Size1         = 60
)

// Option is one option of a message.
type Option struct {
	Number uint16
	Value  []byte
}

// IsCritical reports whether a recipient that doesn't know the option must refuse the message.
func (o Option) IsCritical() bool { return o.Number&1 == 1 }

// Options are the options of a message in ascending order of their numbers. The methods
// that change them do so in place, as append does.
type Options []Option

// Get returns the value of the first option of the number.
func (o Options) Get(number uint16) (value []byte, ok bool) {
	for _, option := range o {
		if option.Number == number {
			return option.Value, true
		}
	}
	return nil, false
}

// Has reports whether there is an option of the number.
func (o Options) Has(number uint16) bool {
	_, ok := o.Get(number)
	return ok
}

// Uint returns the value of an option that is a number. A value of more than four
// octets, which Check lets through for no option, is none.
func (o Options) Uint(number uint16) (n uint32, ok bool) {
	value, ok := o.Get(number)
	if !ok || len(value) > 4 {
		return 0, false
	}
	for _, b := range value {
		n = n<<8 | uint32(b)
	}
	return n, true
}

// Strings returns the values of all options of the number.
func (o Options) Strings(number uint16) (all []string) {
	for _, option := range o {
		if option.Number == number {
			all = append(all, string(option.Value))
		}
	}
	return all
}

// Add adds an option behind those of the same number.
func (o *Options) Add(number uint16, value []byte) {
	at := len(*o)
	for at > 0 && (*o)[at-1].Number > number {
		at--
	}
	*o = slices.Insert(*o, at, Option{number, value})
}

// AddString adds an option that is a text.
func (o *Options) AddString(number uint16, value string) { o.Add(number, []byte(value)) }

// AddUint adds an option that is a number, in the fewest octets (RFC 7252 section 3.2).
func (o *Options) AddUint(number uint16, n uint32) {
	b := binary.BigEndian.AppendUint32(nil, n)
	for len(b) > 0 && b[0] == 0 {
		b = b[1:]
	}
	o.Add(number, b)
}

// Remove removes the options of the numbers.
func (o *Options) Remove(numbers ...uint16) {
	*o = slices.DeleteFunc(*o, func(option Option) bool { return slices.Contains(numbers, option.Number) })
}

// Kind is how the octets of an option are meant.
type Kind uint8

// The kinds of RFC 7252 section 3.2.
const (
	Opaque Kind = iota
	Uint
	String
)

// Definition says what an option may be.
type Definition struct {
	Kind       Kind
	Min, Max   int // octets
	Repeatable bool
}

// Standard returns the definition of an option of this package.
func Standard(number uint16) (Definition, bool) {
	switch number {
	case URIHost, ProxyScheme:
		return Definition{Kind: String, Min: 1, Max: 255}, true
	case ETag:
		return Definition{Min: 1, Max: 8, Repeatable: true}, true
	case Observe, Block1, Block2:
		return Definition{Kind: Uint, Max: 3}, true
	case URIPort, ContentFormat, Accept:
		return Definition{Kind: Uint, Max: 2}, true
	case LocationPath, URIPath, URIQuery, LocationQuery:
		return Definition{Kind: String, Max: 255, Repeatable: true}, true
	case MaxAge, Size1, Size2:
		return Definition{Kind: Uint, Max: 4}, true
	case ProxyURI:
		return Definition{Kind: String, Min: 1, Max: 1034}, true
	}
	// If-Match and If-None-Match, which only oneM2M's absent ETags could give a
	// meaning, are unknown and so refused.
	return Definition{}, false
}

// OptionError says which option is the reason for refusing a message.
type OptionError struct {
	Number uint16
	Reason string
}

func (e *OptionError) Error() string { return fmt.Sprintf("coap: option %d: %s", e.Number, e.Reason) }

// Check holds the options against their definitions, and drops the elective ones that
// have none. Its error is an *OptionError.
//
// RFC 7252 section 5.4.3 would have an elective option of the wrong length ignored, and
// section 5.4.5 the second of two. Both are refused here: which of two is ignored is what
// parsers differ in.
func (o *Options) Check(define func(number uint16) (Definition, bool)) error {
	kept := (*o)[:0:0]
	for i, option := range *o {
		d, known := define(option.Number)
		switch {
		case !known && option.IsCritical():
			return &OptionError{option.Number, "unknown and critical"}
		case !known:
			continue
		case !d.Repeatable && i > 0 && (*o)[i-1].Number == option.Number:
			return &OptionError{option.Number, "given twice"}
		case len(option.Value) < d.Min || len(option.Value) > d.Max:
			return &OptionError{option.Number, fmt.Sprintf("%d octets", len(option.Value))}
		case d.Kind == String && !utf8.Valid(option.Value):
			return &OptionError{option.Number, "not UTF-8"}
		case d.Kind == String && strings.ContainsRune(string(option.Value), 0):
			return &OptionError{option.Number, "NUL"}
		}
		kept = append(kept, option)
	}
	*o = kept
	return nil
}
