// Package secret holds key bytes that cannot be printed.
//
// A Key shows as "[redacted]" to fmt, log/slog, encoding/json and every other
// text encoder, whatever the verb, so that a key reaches a log line, an error
// or an API answer only where code asks for its Bytes by name.
package secret

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what a Key shows instead of its bytes.
const Redacted = "[redacted]"

// Key is a secret byte string. The zero value is the empty key.
//
// Copies of a Key share their bytes: Wipe on one empties all of them.
// A Key is safe for concurrent reading; Wipe must not run beside other calls.
type Key struct {
	// A function rather than a slice: reflection can't look into a closure, so
	// fmt finds nothing to print even where this Key stands in an unexported
	// field, which keeps fmt from calling Format. (A pointer isn't enough:
	// "%s" makes fmt follow it.)
	bytes func() []byte
}

// New returns a Key holding a copy of b.
func New(b []byte) Key {
	return Own(append([]byte(nil), b...))
}

// Own returns a Key that takes b itself, not a copy: the caller gives b up.
func Own(b []byte) Key { return Key{func() []byte { return b }} }

// Bytes returns the key itself, not a copy. It must not be modified or kept
// beyond the Key's life.
func (k Key) Bytes() []byte {
	if k.bytes == nil {
		return nil
	}
	return k.bytes()
}

// Len returns the key's length in octets.
func (k Key) Len() int { return len(k.Bytes()) }

// IsZero reports whether the key is empty.
func (k Key) IsZero() bool { return k.Len() == 0 }

// Equal compares two keys in time that depends on their lengths only.
func (k Key) Equal(o Key) bool {
	return subtle.ConstantTimeCompare(k.Bytes(), o.Bytes()) == 1
}

// Wipe overwrites the key with zeros. Go may have copied the bytes before
// (stacks grow, garbage collectors of the future may move), so this shortens a
// key's life in memory; it does not promise its end.
func (k Key) Wipe() { clear(k.Bytes()) }

// String returns Redacted.
func (Key) String() string { return Redacted }

// GoString returns Redacted.
func (Key) GoString() string { return Redacted }

// Format writes Redacted for every verb.
func (Key) Format(s fmt.State, _ rune) { io.WriteString(s, Redacted) }

// LogValue returns Redacted.
func (Key) LogValue() slog.Value { return slog.StringValue(Redacted) }

// MarshalText returns Redacted, which covers encoding/json, encoding/xml and
// the TOML and YAML encoders.
func (Key) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// errUndecodable is what every failed Parse returns: it must not quote its
// input, which may be a key with a typing error in it.
var errUndecodable = errors.New("key is neither hexadecimal nor base64 (for 32 octets: 64 hex digits or 44 base64 characters)")

// Parse reads a key written in hexadecimal (either case) or, when it isn't
// that, in base64 (standard alphabet, padded). A text that is valid in both,
// such as "deadbeef", is hexadecimal. Errors never quote the input, which stays
// the caller's to wipe: that is why it is not a string.
func Parse(text []byte) (Key, error) {
	// Line breaks are for the caller to trim: base64 would skip them anywhere.
	if bytes.ContainsAny(text, "\r\n") {
		return Key{}, errUndecodable
	}
	if key, ok := decode(hex.Decode, hex.DecodedLen(len(text)), text); ok {
		return key, nil
	}
	strict := base64.StdEncoding.Strict()
	if key, ok := decode(strict.Decode, strict.DecodedLen(len(text)), text); ok {
		return key, nil
	}
	return Key{}, errUndecodable
}

func decode(f func(dst, src []byte) (int, error), most int, text []byte) (Key, bool) {
	b := make([]byte, most)
	n, err := f(b, text)
	if err != nil || n == 0 {
		clear(b) // most of it may be the key
		return Key{}, false
	}
	return Own(b[:n]), true
}
