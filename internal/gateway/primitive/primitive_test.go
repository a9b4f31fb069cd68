package primitive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestCanonicalForm(t *testing.T) {
	for _, test := range []struct{ in, out string }{
		{`null`, `null`},
		{" [ true , false\t,\r\nnull ] ", `[true,false,null]`},
		{`{}`, `{}`},
		{`{"b":1,"a":{"c":[]}}`, `{"b":1,"a":{"c":[]}}`},
		{`[0,-0,1.50,1E+3,-2e-7,12345678901234567890]`, `[0,-0,1.50,1E+3,-2e-7,12345678901234567890]`},
		{`"\u0041\/\"\\\b\f\n\r\t\u001F"`, `"A/\"\\\b\f\n\r\t\u001f"`},
		{`"\u00e9\ud83d\ude00\u2028"`, "\"é\U0001F600\u2028\""},
		{"\"é\x7f\"", "\"é\x7f\""},
		{`{"\u0066r":"C1"}`, `{"fr":"C1"}`},
	} {
		v, err := Parse([]byte(test.in))
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if got := string(v.Append(nil)); got != test.out {
			t.Errorf("%q becomes %q, want %q", test.in, got, test.out)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, in := range map[string]string{
		"nothing":                  ``,
		"white space":              ` `,
		"byte order mark":          "\ufeff{}",
		"two values":               `{} {}`,
		"trailing comma":           `{"a":1,}`,
		"trailing comma in array":  `[1,]`,
		"single quotes":            `{'a':1}`,
		"comment":                  `{}//`,
		"no value":                 `{"a"}`,
		"no name":                  `{1:2}`,
		"duplicate":                `{"fr":"Ca","fr":"Cb"}`,
		"duplicate by escape":      `{"fr":"Ca","\u0066r":"Cb"}`,
		"case variant":             `{"fr":"Ca","FR":"Cb"}`,
		"case variant, deep":       `{"a":[{"b":{"cr":1,"cR":2}}]}`,
		"Kelvin sign":              `{"k":1,"K":2}`,
		"long s":                   `{"rsc":1,"rſc":2}`,
		"dotless i":                `{"rqi":1,"rqı":2}`,
		"dotted capital I":         `{"rqi":1,"rqİ":2}`,
		"case variant, not ASCII":  `{"ä":1,"Ä":2}`,
		"NUL in a name":            `{"fr\u0000":1}`,
		"NUL in a string":          `{"fr":"Ca\u0000b"}`,
		"raw NUL":                  "{\"fr\":\"Ca\x00b\"}",
		"control in a name":        `{"fr\t":1}`,
		"DEL in a name":            "{\"fr\x7f\":1}",
		"raw line end":             "\"a\nb\"",
		"high surrogate":           `"\ud83d"`,
		"high surrogate, then not": `"\ud83d\u0041"`,
		"low surrogate":            `"\ude00"`,
		"two high surrogates":      `"\ud83d\ud83d"`,
		"surrogate in UTF-8":       "\"\xed\xa0\xbd\"",
		"overlong UTF-8":           "\"\xc0\x80\"",
		"Latin-1":                  "\"\xe9\"",
		"UTF-8 cut by an escape":   "\"\xe2\\n\x82\xac\"",
		"unknown escape":           `"\x41"`,
		"short escape":             `"\u004"`,
		"no end":                   `"abc`,
		"end in an escape":         `"abc\`,
		"leading zero":             `01`,
		"plus":                     `+1`,
		"point":                    `1.`,
		"no digits":                `-`,
		"exponent":                 `1e`,
		"hexadecimal":              `0x10`,
		"not a number":             `NaN`,
		"infinity":                 `-Infinity`,
		"word":                     `nul`,
		"long word":                `nullx`,
		"open object":              `{"a":1`,
		"open array":               `[1`,
		"long number":              strings.Repeat("1", maxNumber+1),
		"too deep":                 strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1),
		"too many":                 "[" + strings.Repeat("1,", MaxValues) + "1]",
		"too long":                 `"` + strings.Repeat("a", MaxSize) + `"`,
		"duplicate among many":     many(40, `"A7":0`),
		"Turkish i among many":     many(40, `"i":0,"ı":1`),
	} {
		v, err := Parse([]byte(in))
		if err == nil {
			t.Errorf("%s: accepted as %.80s", name, v.Append(nil))
		} else if !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v is no ErrSyntax", name, err)
		} else if len(err.Error()) > 200 {
			t.Errorf("%s: the error quotes too much", name)
		}
	}
}

// many returns an object of n members a0, a1 ... and one more text.
func many(n int, last string) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		fmt.Fprintf(&b, `"a%d":%d,`, i, i)
	}
	return b.String() + last + "}"
}

func TestLimitsAreReached(t *testing.T) {
	for name, in := range map[string]string{
		"depth":   strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
		"number":  strings.Repeat("1", maxNumber),
		"values":  "[" + strings.Repeat("1,", MaxValues-2) + "1]",
		"members": many(1000, `"b":1`),
		"size":    `"` + strings.Repeat("a", MaxSize-2) + `"`,
	} {
		if _, err := Parse([]byte(in)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSetFindDelete(t *testing.T) {
	v := Object()
	v.Set("a", Number(1))
	v.Set("fr", String("C1"))
	v.Set("FR", String("C2")) // in fr's place
	v.Set("l", Array(String("x"), nil, Object()))
	if got, want := string(v.Append(nil)), `{"a":1,"FR":"C2","l":["x",null,{}]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if v.Get("fr") != nil {
		t.Error("Get ignores case")
	}
	if written, value := v.Find("fr"); written != "FR" || value == nil {
		t.Error("Find does not ignore case")
	}
	v.Delete("fR")
	if got, want := string(v.Append(nil)), `{"a":1,"l":["x",null,{}]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	String("x").Set("a", Number(1)) // does nothing
	var none *Value
	if none.Get("a") != nil || none.Len() != 0 || none.Elems() != nil || string(none.Append(nil)) != "null" {
		t.Error("a nil Value is not null")
	}
}

func TestStringsMadeHereParse(t *testing.T) {
	for _, s := range []string{"", "a\x00b", "\xff", "\ud7ff", "\n\"\\"} {
		if _, err := Parse(String(s).Append(nil)); err != nil {
			t.Errorf("String(%q): %v", s, err)
		}
	}
}

func TestInt(t *testing.T) {
	for in, want := range map[string]bool{`7`: true, `-7`: true, `0`: true, `-0`: false, `7.0`: false, `7e0`: false, `"7"`: false,
		`9223372036854775808`: false, `null`: false} {
		v, err := Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := v.Int(); ok != want {
			t.Errorf("Int of %s: %v", in, ok)
		}
	}
}

func mustParse(t testing.TB, s string) *Value {
	t.Helper()
	v, err := Parse([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRequest(t *testing.T) {
	for _, test := range []struct{ in, out string }{
		{`{"fr":"Ca","op":1,"to":"in","rqi":"1","ty":4,"pc":{"m2m:cin":{"con":"x"}},"rvi":"3"}`,
			`{"op":1,"to":"in","fr":"Ca","rqi":"1","ty":4,"rvi":"3","pc":{"m2m:cin":{"con":"x"}}}`},
		{`{"m2m:rqp":{"op":"1","to":"/Mobius","fr":"S","rqi":"1","ty":"2","rcn":"1","pc":""}}`,
			`{"m2m:rqp":{"op":1,"to":"/Mobius","fr":"S","rqi":"1","ty":2,"rcn":1}}`},
		{`{"op":2,"to":"in","rqi":"1"}`, `{"op":2,"to":"in","rqi":"1"}`},
		{`{"op":2,"to":"in","rqi":"1","fr":""}`, `{"op":2,"to":"in","fr":"","rqi":"1"}`},
	} {
		r, err := ParseRequest(mustParse(t, test.in))
		if err != nil {
			t.Errorf("%s: %v", test.in, err)
			continue
		}
		if got := string(r.Value().Append(nil)); got != test.out {
			t.Errorf("%s\nbecomes %s\nwant    %s", test.in, got, test.out)
		}
	}
}

func TestRequestRefused(t *testing.T) {
	for name, in := range map[string]string{
		"no object":             `[]`,
		"null":                  `null`,
		"no op":                 `{"to":"in","rqi":"1"}`,
		"no to":                 `{"op":2,"rqi":"1"}`,
		"no rqi":                `{"op":2,"to":"in"}`,
		"case variant alone":    `{"op":2,"to":"in","rqi":"1","FR":"Ca"}`,
		"long name":             `{"op":2,"to":"in","rqi":"1","from":"Ca"}`,
		"unknown":               `{"op":2,"to":"in","rqi":"1","x":1}`,
		"service user":          `{"op":2,"to":"in","rqi":"1","msu":"u"}`,
		"op out of range":       `{"op":6,"to":"in","rqi":"1"}`,
		"op as a fraction":      `{"op":2.0,"to":"in","rqi":"1"}`,
		"op with zeros":         `{"op":"02","to":"in","rqi":"1"}`,
		"op with a sign":        `{"op":"+2","to":"in","rqi":"1"}`,
		"ty":                    `{"op":1,"to":"in","rqi":"1","ty":[2]}`,
		"rcn":                   `{"op":1,"to":"in","rqi":"1","rcn":true}`,
		"fr is null":            `{"op":2,"to":"in","rqi":"1","fr":null}`,
		"fr is a list":          `{"op":2,"to":"in","rqi":"1","fr":["Ca"]}`,
		"to with a space":       `{"op":2,"to":"in x","rqi":"1"}`,
		"rqi is a number":       `{"op":2,"to":"in","rqi":1}`,
		"rqi with a line end":   `{"op":2,"to":"in","rqi":"1\r\n"}`,
		"rqi too long":          `{"op":2,"to":"in","rqi":"` + strings.Repeat("1", maxRequestID+1) + `"}`,
		"pc is a string":        `{"op":1,"to":"in","rqi":"1","pc":"{}"}`,
		"wrapped beside others": `{"m2m:rqp":{"op":2,"to":"in","rqi":"1"},"op":2}`,
		"wrapped twice":         `{"m2m:rqp":{"m2m:rqp":{"op":2,"to":"in","rqi":"1"}}}`,
		"wrapped, other case":   `{"M2M:rqp":{"op":2,"to":"in","rqi":"1"}}`,
	} {
		if _, err := ParseRequest(mustParse(t, in)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResponse(t *testing.T) {
	r, err := ParseResponse(mustParse(t, `{"m2m:rsp":{"rsc":"2001","rqi":"1","fr":"/in","x":1,"pc":"","rvi":"3"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(r.Value().Append(nil)), `{"m2m:rsp":{"rsc":2001,"rqi":"1","fr":"/in","rvi":"3","pc":""}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, in := range []string{`[]`, `{"rsc":2000}`, `{"rqi":"1"}`, `{"rsc":99,"rqi":"1"}`, `{"rsc":2000,"rqi":1}`, `{"rsc":2000,"rqi":"1","fr":1}`} {
		if _, err := ParseResponse(mustParse(t, in)); !errors.Is(err, ErrSyntax) {
			t.Errorf("%s: %v", in, err)
		}
	}
}

// A member of Rest cannot say another originator than the field.
func TestRestHoldsNoField(t *testing.T) {
	r := &Request{Operation: 2, To: "in", From: "Ca", HasFrom: true, RequestID: "1", Rest: Object()}
	r.Rest.Set("fr", String("Cb"))
	r.Rest.Set("from", String("Cb"))
	if got, want := string(r.Value().Append(nil)), `{"op":2,"to":"in","fr":"Ca","rqi":"1"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// lastWins, firstWins and anyCase read an object's members as three kinds of
// real CSEs do.
func readers(t *testing.T, text []byte) (lastWins, firstWins, anyCase map[string]string) {
	dec := json.NewDecoder(bytes.NewReader(text))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, nil, nil
	}
	lastWins, firstWins, anyCase = map[string]string{}, map[string]string{}, map[string]string{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			t.Fatal(err)
		}
		lastWins[name.(string)] = string(value)
		if _, taken := firstWins[name.(string)]; !taken {
			firstWins[name.(string)] = string(value)
		}
		anyCase[foldName(name.(string))] = string(value)
	}
	return lastWins, firstWins, anyCase
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"op":1,"fr":"Ca","FR":"Cb"}`, `{"a":[1,-2.5e3,null,true,false,"\u00e9\ud83d\ude00\n"],"b":{"c":{}}}`,
		`"\u0000"`, `{"k":1,"K":2}`, ` [ ] `, `{"\u0066r":1,"i":2,"ı":3}`, "\"\x7f\u2028\"", `{"":""}`, `[1E400,-0]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Parse(in)
		if err != nil {
			return
		}
		if !json.Valid(in) {
			t.Fatalf("accepted %q, which is no JSON", in)
		}
		if inPlace, err := ParseInPlace(in); err != nil || !reflect.DeepEqual(v, inPlace) {
			t.Fatalf("%q is another in place: %v", in, err)
		}
		out := v.Append(nil)
		if len(out) > len(in) {
			t.Fatalf("%q grew to %q", in, out)
		}
		again, err := Parse(out)
		if err != nil {
			t.Fatalf("%q: its own form %q is refused: %v", in, out, err)
		}
		if !reflect.DeepEqual(v, again) {
			t.Fatalf("%q and %q are two trees", in, out)
		}
		if !bytes.Equal(again.Append(nil), out) {
			t.Fatalf("%q has two forms", in)
		}
		// encoding/json sees the same in both texts.
		if want, got := decoded(t, in), decoded(t, out); !reflect.DeepEqual(want, got) {
			t.Fatalf("%q is %v to encoding/json, %q is %v", in, want, out, got)
		}
		last, first, fold := readers(t, out)
		if !reflect.DeepEqual(last, first) || len(fold) != len(last) {
			t.Fatalf("readers disagree about %q", out)
		}
		if v.Kind() == KindObject && len(last) != v.Len() {
			t.Fatalf("%q has %d members to others", out, len(last))
		}
	})
}

func decoded(t *testing.T, text []byte) any {
	var v any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"op":1,"to":"in","fr":"Ca","rqi":"1","ty":2,"rcn":1,"rvi":"3","pc":{"m2m:ae":{}}}`))
	f.Add([]byte(`{"m2m:rqp":{"op":"1","to":"in","rqi":"1","pc":""}}`))
	f.Add([]byte(`{"op":2,"to":"in","rqi":"1","fc":{"fu":1},"rt":{"rtv":3}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Parse(in)
		if err != nil {
			return
		}
		r, err := ParseRequest(v)
		if err != nil {
			return
		}
		out := r.Value().Append(nil)
		v, err = Parse(out)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		again, err := ParseRequest(v)
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("%q and %q are two requests", in, out)
		}
	})
}

func FuzzParseResponse(f *testing.F) {
	f.Add([]byte(`{"rsc":2001,"to":"Ca","fr":"/in","rqi":"1","rvi":"3","pc":{"m2m:ae":{}}}`))
	f.Add([]byte(`{"m2m:rsp":{"rsc":"4106","rqi":"1","pc":""}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Parse(in)
		if err != nil {
			return
		}
		r, err := ParseResponse(v)
		if err != nil {
			return
		}
		v, err = Parse(r.Value().Append(nil))
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseResponse(v)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(r, again) {
			t.Fatalf("%q changes when it is written", in)
		}
	})
}

// body is a registration of 500 octets.
var body = []byte(`{"op": 1, "to": "/in-cse", "fr": "Cmeter7", "rqi": "req-0001", "ty": 2, "rvi": "3", "ot": "20261124T021701",
 "pc": {"m2m:ae": {"rn": "meter7", "api": "Nmeter.example.com", "rr": true, "srv": ["2a", "3", "4"],
  "poa": ["https://meter7.example.com:8443/notify", "mqtt://broker.example.com:1883"],
  "lbl": ["site:north", "floor:3", "kind:electricity"], "apn": "Stromz\u00e4hler im Keller", "et": "20271124T021701",
  "csz": ["application/json"], "tren": false, "mei": "meter7@ext.example.com", "nl": "node-7" } } } ` + "\n")

func BenchmarkParse(b *testing.B) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseAndAppend(b *testing.B) {
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		v, err := Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		r, err := ParseRequest(v)
		if err != nil {
			b.Fatal(err)
		}
		out = r.Value().Append(out[:0])
	}
}

func BenchmarkParseMegabyte(b *testing.B) {
	text := append(append([]byte(`{"m2m:cin":{"con":"`), bytes.Repeat([]byte("0123456789abcdef"), 1<<16)...), `"}}`...)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
