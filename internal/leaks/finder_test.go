package leaks

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// How many octets in a row are found. A part of a key is a leak too, and eight
// octets don't occur by chance. Tracebacks show five elements of an array.
const (
	window      = 8
	arrayWindow = 5
)

// A finder finds secrets in texts.
type finder struct {
	values map[string][]byte // by name; of secrets of one name, the last
	// forms are the texts that show a part of a secret, by their first octets.
	forms map[[window]byte][]form
}

type form struct {
	text   string
	secret string // its name
	kind   string
}

func newFinder() *finder {
	return &finder{values: make(map[string][]byte), forms: make(map[[window]byte][]form)}
}

// add makes the finder look for a secret.
func (f *finder) add(name string, secret []byte) {
	if len(secret) < 2*window {
		panic("too short to be told from chance: " + name)
	}
	f.values[name] = secret
	for i := range len(secret) - arrayWindow + 1 {
		f.addForm(name, "array in hexadecimal", list(secret[i:i+arrayWindow], "0x%x", ", "))
	}
	for i := range len(secret) - window + 1 {
		f.addWindow(name, secret[i:i+window])
	}
}

func (f *finder) addForm(name, kind, text string) {
	if len(text) >= window {
		first := [window]byte([]byte(text))
		f.forms[first] = append(f.forms[first], form{text, name, kind})
	}
}

func (f *finder) addWindow(name string, b []byte) {
	f.addForm(name, "raw", string(b))
	quoted := strconv.Quote(string(b))
	f.addForm(name, "quoted", quoted[1:len(quoted)-1])
	quoted = strconv.QuoteToASCII(string(b))
	f.addForm(name, "quoted in ASCII", quoted[1:len(quoted)-1])
	f.addForm(name, "escaped as in a URL", url.QueryEscape(string(b)))
	for _, octet := range []string{"%02x", "%02X"} {
		for _, separator := range []string{"", " ", ":", "-", ",", ", ", " 0x", ",0x", `\x`, "%"} {
			f.addForm(name, "hexadecimal", list(b, octet, separator))
		}
	}
	for _, octet := range []string{"%d", "%o", "%b", "%08b"} {
		for _, separator := range []string{" ", ",", ", "} {
			f.addForm(name, "list of numbers", list(b, octet, separator))
		}
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 { // octets in the group of three that the window begins in
			text := encoding.EncodeToString(append(make([]byte, before), b...))
			// The first character, or two, and the last tell of others' bits too.
			text = text[(8*before+5)/6:]
			if 8*(before+len(b))%6 != 0 {
				text = text[:len(text)-1]
			}
			f.addForm(name, "base64", text)
		}
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		f.addForm(name, "machine word", fmt.Sprintf("%x", order.Uint64(b)))
		f.addForm(name, "machine word", fmt.Sprintf("%d", order.Uint64(b)))
		f.addForm(name, "machine words of 32 bits", fmt.Sprintf("0x%x, 0x%x", order.Uint32(b), order.Uint32(b[4:])))
	}
	f.addForm(name, "octets backwards", hex.EncodeToString(reversed(b)))
}

func list(b []byte, octet, separator string) string {
	texts := make([]string, len(b))
	for i, v := range b {
		texts[i] = fmt.Sprintf(octet, v)
	}
	return strings.Join(texts, separator)
}

func reversed(b []byte) []byte {
	b = slices.Clone(b)
	slices.Reverse(b)
	return b
}

// A finding is one place where a secret shows.
type finding struct {
	form
	line string // where it stands
}

func (f finding) String() string {
	return fmt.Sprintf("%s shows (%s) in %q", f.secret, f.kind, f.line)
}

// find returns the first place in text for each secret that shows.
func (f *finder) find(text []byte) []finding {
	var found []finding
	for i := range len(text) - window + 1 {
		for _, form := range f.forms[[window]byte(text[i:])] {
			known := slices.ContainsFunc(found, func(g finding) bool { return g.secret == form.secret })
			if !known && bytes.HasPrefix(text[i:], []byte(form.text)) {
				found = append(found, finding{form, lineAt(text, i)})
			}
		}
	}
	return found
}

// lineAt is what stands around a place, for people.
func lineAt(text []byte, i int) string {
	const around = 100
	begin, end := max(0, i-around), min(len(text), i+around)
	if n := bytes.LastIndexByte(text[begin:i], '\n'); n >= 0 {
		begin += n + 1
	}
	if n := bytes.IndexByte(text[i:end], '\n'); n >= 0 {
		end = i + n
	}
	return string(text[begin:end])
}

// check fails the test when a secret shows in a text.
func (f *finder) check(t testing.TB, what string, text []byte) {
	t.Helper()
	for _, found := range f.find(text) {
		t.Errorf("%s: %v", what, found)
	}
}

// shows fails the test when a secret does not show where it must: then the
// finder is blind, or looks in the wrong place.
func (f *finder) shows(t testing.TB, what, secret string, text []byte) {
	t.Helper()
	if !slices.ContainsFunc(f.find(text), func(g finding) bool { return g.secret == secret }) {
		t.Errorf("%s: %s is not found where it is shown on purpose; the finder sees nothing", what, secret)
	}
}

// TestFinder: the finder knows what Go makes of octets.
func TestFinder(t *testing.T) {
	random := make([]byte, 32)
	rand.Read(random)
	text := []byte("all octets of this key can be printed")
	bounds := []byte{0, 1, 2, 3, 255, 254, '"', '\\', '\n', 0x7f, 0x80, 9, '%', '+', '/', '='}
	for _, key := range [][]byte{random, text, bounds} {
		f := newFinder()
		f.add("key", key)
		var asJSON, asText bytes.Buffer
		slog.New(slog.NewJSONHandler(&asJSON, nil)).Info("m", "key", key)
		slog.New(slog.NewTextHandler(&asText, nil)).Info("m", "key", key)
		numbers := make([]int, len(key))
		for i, b := range key {
			numbers[i] = int(b)
		}
		numbersJSON, err := json.Marshal(numbers)
		if err != nil {
			t.Fatal(err)
		}
		for what, shown := range map[string]string{
			"raw":             string(key),
			"%v":              fmt.Sprintf("%v", key),
			"%#v":             fmt.Sprintf("%#v", key),
			"%x":              fmt.Sprintf("%x", key),
			"%X":              fmt.Sprintf("%X", key),
			"% x":             fmt.Sprintf("% x", key),
			"%# x":            fmt.Sprintf("%# x", key),
			"%q":              fmt.Sprintf("%q", key),
			"%+q":             fmt.Sprintf("%+q", key),
			"%o":              fmt.Sprintf("%o", key),
			"%b":              fmt.Sprintf("%b", key),
			"string %v":       fmt.Sprintf("%v", struct{ s string }{string(key)}),
			"string %#v":      fmt.Sprintf("%#v", struct{ s string }{string(key)}),
			"string %x":       fmt.Sprintf("%x", string(key)),
			"array %v":        fmt.Sprintf("%v", [16]byte(key)),
			"array %#v":       fmt.Sprintf("%#v", [16]byte(key)),
			"traceback":       fmt.Sprintf("main.f({0x%x, 0x%x, 0x%x, 0x%x, 0x%x, ...})", key[0], key[1], key[2], key[3], key[4]),
			"register":        fmt.Sprintf("rax    0x%x", binary.LittleEndian.Uint64(key[8:])),
			"words":           fmt.Sprint([]uint64{binary.BigEndian.Uint64(key[8:])}),
			"base64":          base64.StdEncoding.EncodeToString(key),
			"base64, URL":     base64.RawURLEncoding.EncodeToString(key),
			"base64, shifted": base64.StdEncoding.EncodeToString(append([]byte{1}, key...)),
			"base64, by two":  base64.StdEncoding.EncodeToString(append([]byte{1, 2}, key...)),
			"dump":            hex.Dump(key),
			"slog, JSON":      asJSON.String(),
			"slog, text":      asText.String(),
			"JSON of numbers": string(numbersJSON),
			"URL":             url.Values{"k": {string(key)}}.Encode(),
			"number":          new(big.Int).SetBytes(key).Text(16),
			"backwards":       new(big.Int).SetBytes(reversed(key)).Text(16),
			"half":            hex.EncodeToString(key[5:13]),
		} {
			f.shows(t, what, "key", []byte("something before "+shown+" and behind"))
		}
		f.check(t, "nothing", []byte(strings.Repeat("the quick brown fox 0x00, 0x01 012345 ", 1000)))
	}
}
