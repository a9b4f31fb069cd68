package strictjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

type inner struct {
	ID  string `json:"kmID"`
	Off bool   `json:"disabled"`
}

type row struct {
	inner
	Line int    `json:"line,omitzero"`
	Text string `json:"text,omitempty"`
}

func TestUnmarshal(t *testing.T) {
	for text, want := range map[string]row{
		`{}`:                                   {},
		" {\"kmID\" : \"a\" ,\n\t\"line\":3} ": {inner: inner{ID: "a"}, Line: 3},
		`{"disabled":true,"text":"{\"kmID\":1,\\"}`: {inner: inner{Off: true}, Text: `{"kmID":1,\`},
		`{"text":"kmID","kmID":"text"}`:             {inner: inner{ID: "text"}, Text: "kmID"},
		`{"text":null}`:                             {},
	} {
		var got row
		if err := Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		``:                          "unexpected end",
		`null`:                      "not one JSON object",
		`[]`:                        "not a JSON object",
		`"kmID"`:                    "not a JSON object",
		`{"kmID":"a"}{}`:            "after top-level value",
		`{"KmID":"a"}`:              `unknown member "KmID"`,
		`{"kmid":"a","kmID":"b"}`:   `unknown member "kmid"`,
		`{"kmID":"a","kmID":"a"}`:   `"kmID" twice`,
		`{"km\u0049D":"a"}`:         `unknown member`,
		`{"inner":"a"}`:             `unknown member "inner"`,
		`{"":"a"}`:                  `unknown member ""`,
		`{"x":1}`:                   `unknown member "x"`,
		`{"line":"12secret34"}`:     "line can't be a string",
		`{"line":12345678901234.5}`: "line can't be a number",
		`{"line":{}}`:               "line can't be a object",
		`{"x":{"kmID":"a"}}`:        "plain values",
	} {
		var got row
		err := Unmarshal([]byte(text), &got)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "1234") {
			t.Errorf("the error quotes a value: %v", err)
		}
	}
}

// FuzzUnmarshal: what is taken is what encoding/json reads, has only the known
// names, and is the same when it is written and read again.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"kmID":"a","line":3,"disabled":false,"text":"\"\\"}`))
	f.Add([]byte(`{"KmID":"a"}`))
	f.Add([]byte("{\"text\":\"\\u2028\" , \"kmID\"\n: \"{\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, plain, again row
		if Unmarshal(data, &got) != nil {
			return
		}
		var all map[string]any
		if json.Unmarshal(data, &plain) != nil || json.Unmarshal(data, &all) != nil || !reflect.DeepEqual(got, plain) {
			t.Fatalf("%q: %+v, %+v", data, got, plain)
		}
		names, _ := members(data)
		if len(names) != len(all) {
			t.Errorf("%q has %d members, %d names were seen", data, len(all), len(names))
		}
		for name := range all {
			if !has(reflect.TypeFor[row](), []byte(name)) {
				t.Errorf("%q was taken with the member %q", data, name)
			}
		}
		text, err := json.Marshal(got)
		if err != nil || Unmarshal(text, &again) != nil || again != got {
			t.Errorf("%q comes back as %q, %+v (%v)", data, text, again, err)
		}
	})
}
