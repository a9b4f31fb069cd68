package keyapi

import (
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/onem2m"
)

var meter7 = onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"}

const revocationsAnswer = `{"next":9,"revocations":[{"KmID":"meter7@maf.example.com"},` +
	`{"KmID":"meter7@maf.example.com","KcID":"` + relative + `@maf.example.com"}]}`

func TestRevocations(t *testing.T) {
	r := &Revocations{Next: 9, List: []Revocation{{KmID: meter7}, {KmID: meter7, KcID: kcID(t, relative+"@maf.example.com")}}}
	body, err := r.Encode()
	if err != nil || string(body) != revocationsAnswer {
		t.Fatalf("%s, %v", body, err)
	}
	back, err := DecodeRevocations(body)
	if err != nil || back.Next != 9 || !slices.Equal(back.List, r.List) {
		t.Fatalf("%+v, %v", back, err)
	}
	for name, bad := range map[string]Revocation{
		"nobody's":      {},
		"a KcID alone":  {KcID: r.List[1].KcID},
		"of other MAFs": {KmID: meter7, KcID: kcID(t, relative+"@maf.example.org")},
	} {
		if body, err := (&Revocations{List: []Revocation{bad}}).Encode(); err == nil {
			t.Errorf("%s: %s", name, body)
		}
	}
}

func TestDecodeRevocationsRefuses(t *testing.T) {
	for _, bad := range []string{
		``, `{}`, `[]`, `null`, `{"next":1}`, `{"revocations":[]}`, `{"next":-1,"revocations":[]}`, `{"next":null,"revocations":[]}`,
		`{"next":"1","revocations":[]}`, `{"next":1.5,"revocations":[]}`, `{"next":1,"revocations":null}`, `{"next":1,"revocations":{}}`,
		`{"next":1,"next":2,"revocations":[]}`, `{"next":1,"revocations":[]}{}`, `{"next":1,"revocations":[{}]}`, `{"next":1,"revocations":[null]}`,
		`{"Next":1,"Revocations":[]}`,
		strings.Replace(revocationsAnswer, "@maf.example.com", "", 1),
		strings.Replace(revocationsAnswer, relative, "00", 1),
		strings.Replace(revocationsAnswer, `"`+relative+`@maf.example.com"`, `""`, 1),
		strings.Replace(revocationsAnswer, `"`+relative+`@maf.example.com"`, `null`, 1),
		strings.Replace(revocationsAnswer, relative+"@maf.example.com", relative+"@maf.example.org", 1),
		`{"next":1,"revocations":[` + strings.Repeat(`{"KmID":"meter7@maf.example.com"},`, MaxRevocations) + `{"KmID":"meter7@maf.example.com"}]}`,
	} {
		if r, err := DecodeRevocations([]byte(bad)); err == nil {
			t.Errorf("%.200s: %+v", bad, r)
		}
	}
	// A later MAF may add members.
	if _, err := DecodeRevocations([]byte(`{"next":1,"more":[],"revocations":[{"KmID":"meter7@maf.example.com","why":"lost"}]}`)); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeRevocations(f *testing.F) {
	f.Add([]byte(revocationsAnswer))
	f.Add([]byte(`{"next":0,"revocations":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := DecodeRevocations(body)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("%+v was decoded and can't be encoded: %v", r, err)
		}
		back, err := DecodeRevocations(again)
		if err != nil || back.Next != r.Next || !slices.Equal(back.List, r.List) {
			t.Fatalf("%+v became %+v, %v", r, back, err)
		}
	})
}
