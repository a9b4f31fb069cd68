package coap

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The messages of RFC 7252 appendix A, figures 16 to 18.
func TestExamples(t *testing.T) {
	get := Message{Type: Confirmable, Code: GET, ID: 0x7d34}
	get.Options.AddString(URIPath, "temperature")
	if got, want := get.Append(nil), unhex(t, "40017d34bb74656d7065726174757265"); !bytes.Equal(got, want) {
		t.Errorf("GET: %x, want %x", got, want)
	}
	content := Message{Type: Acknowledgement, Code: Content, ID: 0x7d34, Payload: []byte("22.3 C")}
	if got, want := content.Append(nil), unhex(t, "60457d34ff32322e332043"); !bytes.Equal(got, want) {
		t.Errorf("2.05: %x, want %x", got, want)
	}
	get.Token = []byte{0x20}
	get.ID++
	if got, want := get.Append(nil), unhex(t, "41017d3520bb74656d7065726174757265"); !bytes.Equal(got, want) {
		t.Errorf("GET with a token: %x, want %x", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                      "",
		"half a header":                "400100",
		"version 0":                    "00010001",
		"version 2":                    "80010001",
		"token of 9 octets":            "49010001000102030405060708",
		"token cut off":                "4401000100",
		"empty with a token":           "4100000100",
		"empty with an option":         "40000001b161",
		"empty with a payload":         "40000001ff61",
		"marker and no payload":        "40010001ff",
		"option cut off":               "40010001b26a",
		"delta 15 that is no marker":   "40010001f0",
		"length 15":                    "400100010f" + "000000000000000000000000000000",
		"delta's octet missing":        "40010001d0",
		"delta's second octet missing": "40010001e000",
		"length's octet missing":       "400100010d",
		"number above 65535":           "40010001e0ffff",
		"numbers that add up too far":  "40010001e0fe00e0fe00",
		"65 options":                   "40010001" + string(bytes.Repeat([]byte("00"), 65)),
	} {
		if m, err := Parse(unhex(t, in)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %+v", name, err, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"40017d34bb74656d7065726174757265", "60457d34ff32322e332043", "41017d3520bb74656d7065726174757265",
		"40000001", "70000001", "5001abcd", "48020001000102030405060708d10a33e100000041ff7b7d",
		"40010001d1ff00", "40010001e1fee8ff", "40010001bd0061626364656667686970717273",
	} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Parse(in)
		if err != nil {
			return
		}
		if out := m.Append(nil); !bytes.Equal(in, out) {
			t.Fatalf("%x became %x", in, out)
		}
		before := slices.Clone(m.Options)
		if m.Options.Check(Standard) != nil {
			return
		}
		// What Check leaves is a message still, and one that Check takes as it is.
		again, err := Parse(m.Append(nil))
		if err != nil || len(again.Options) > len(before) {
			t.Fatalf("after Check: %v, %v", err, again)
		}
		n := len(again.Options)
		if err := again.Options.Check(Standard); err != nil || len(again.Options) != n {
			t.Fatalf("Check twice: %v, %v", err, again.Options)
		}
	})
}

// An endpoint that serves blocks takes any datagrams in any order, and what it sends are
// messages.
func FuzzReceive(f *testing.F) {
	first := Message{Type: Confirmable, Code: PUT, ID: 1, Token: []byte("t"), Payload: make([]byte, 16)}
	first.Options.AddBlock(Block1, Block{More: true})
	second := Message{Type: NonConfirmable, Code: PUT, ID: 2, Payload: []byte("x")}
	second.Options.AddBlock(Block1, Block{Number: 1})
	second.Options.AddBlock(Block2, Block{Number: 1, SZX: 2})
	f.Add(first.Append(nil), second.Append(nil), []byte{0x70, 0, 0, 1})
	f.Add([]byte{0x60, 0x45, 0, 1}, []byte{0x50, 0x45, 0, 1, 0x60}, []byte{0x40, 0, 0, 1})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		blocks := &Blocks{SZX: 6, Max: 64}
		defer blocks.Close()
		e := NewEndpoint(Config{
			Send: func(b []byte) error {
				if _, err := Parse(b); err != nil {
					t.Errorf("sent %x: %v", b, err)
				}
				return nil
			},
			Handle: func(ctx context.Context, m *Message) *Message {
				return blocks.Serve(ctx, m, func(_ context.Context, m *Message) *Message {
					if len(m.Payload) > 64 {
						t.Errorf("%d octets", len(m.Payload))
					}
					return &Message{Code: Content, Payload: make([]byte, 100)}
				})
			},
		})
		for _, datagram := range [][]byte{a, b, c} {
			e.Receive(datagram)
		}
		e.Close()
	})
}

func TestOptionsStayInOrder(t *testing.T) {
	var o Options
	o.AddString(URIPath, "a")
	o.AddUint(Size1, 70000)
	o.AddString(URIQuery, "q")
	o.AddString(URIPath, "b")
	o.AddUint(Observe, 0)
	if got := o.Strings(URIPath); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("path %q", got)
	}
	if !slices.IsSortedFunc(o, func(a, b Option) int { return int(a.Number) - int(b.Number) }) {
		t.Errorf("order: %v", o)
	}
	if n, ok := o.Uint(Size1); !ok || n != 70000 {
		t.Errorf("Size1 %d, %v", n, ok)
	}
	if v, ok := o.Get(Observe); !ok || len(v) != 0 {
		t.Errorf("zero is %x; it is no octets", v)
	}
	o.Remove(URIPath, Observe)
	if len(o) != 2 {
		t.Errorf("left: %v", o)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		options Options
		left    int
		refused uint16
	}{
		{"unknown and elective", Options{{URIPath, []byte("a")}, {2000, nil}}, 1, 0},
		{"unknown and critical", Options{{URIPath, []byte("a")}, {2001, nil}}, 0, 2001},
		{"If-None-Match", Options{{IfNoneMatch, nil}}, 0, IfNoneMatch},
		{"twice, critical", Options{{URIPort, []byte{1}}, {URIPort, []byte{1}}}, 0, URIPort},
		{"twice, elective", Options{{Observe, nil}, {Observe, []byte{1}}}, 0, Observe},
		{"repeated as it may be", Options{{URIPath, []byte("a")}, {URIPath, []byte("a")}}, 2, 0},
		{"too long", Options{{ContentFormat, []byte{0, 0, 50}}}, 0, ContentFormat},
		{"too short", Options{{URIHost, nil}}, 0, URIHost},
		{"NUL", Options{{URIPath, []byte("a\x00b")}}, 0, URIPath},
		{"not UTF-8", Options{{URIQuery, []byte{'a', 0xc0, 0x80}}}, 0, URIQuery},
		{"leading zeros are allowed", Options{{ContentFormat, []byte{0, 50}}}, 1, 0},
	} {
		o := slices.Clone(c.options)
		err := o.Check(Standard)
		var refused *OptionError
		switch {
		case c.refused == 0 && (err != nil || len(o) != c.left):
			t.Errorf("%s: %v, left %v", c.name, err, o)
		case c.refused != 0 && (!errors.As(err, &refused) || refused.Number != c.refused):
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestBlockValue(t *testing.T) {
	for _, b := range []Block{{}, {Number: 1, More: true, SZX: 6}, {Number: 1<<20 - 1, SZX: 0}} {
		var o Options
		o.AddBlock(Block1, b)
		if got, present, valid := o.Block(Block1); got != b || !present || !valid {
			t.Errorf("%+v became %+v, %v, %v", b, got, present, valid)
		}
	}
	for _, v := range [][]byte{{7}, {1, 0, 0, 0}} {
		if b, present, valid := (Options{{Block2, v}}).Block(Block2); !present || valid {
			t.Errorf("%x: %+v", v, b)
		}
	}
}
