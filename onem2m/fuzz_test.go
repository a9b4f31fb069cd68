package onem2m

import (
	"strings"
	"testing"
)

// fuzzKind feeds one parser. Whatever it accepts must be plain ASCII without
// white space and must be, up to the case of letters, what the value is written
// as: a parser that drops, adds or translates a character has two encodings of
// one identifier. (kind.parse itself checks that the value parses back.)
func fuzzKind(f *testing.F, name string) {
	var k kind
	for _, other := range kinds() {
		if other.name == name {
			k = other
		}
	}
	if k.parse == nil || len(k.accept)+len(k.refuse) < 10 {
		f.Fatalf("no seeds for %q", name)
	}
	for text := range k.accept {
		f.Add(text)
	}
	for _, text := range k.refuse {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := k.parse(text)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d characters", len(err.Error()))
			}
			return
		}
		if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q was accepted", text)
		}
		if out := v.String(); foldASCII(out) != foldASCII(text) {
			t.Errorf("%q is written %q", text, out)
		}
		if out, err := k.reread(text); err != nil || out != v.String() {
			t.Errorf("%q decodes and encodes to %q, %v", text, out, err)
		}
	})
}

func FuzzParseFQDN(f *testing.F)          { fuzzKind(f, "FQDN") }
func FuzzParseSPID(f *testing.F)          { fuzzKind(f, "M2M-SP-ID") }
func FuzzParseKmID(f *testing.F)          { fuzzKind(f, "KmId") }
func FuzzParseRelativeKeyID(f *testing.F) { fuzzKind(f, "relative key identifier") }
func FuzzParseKcID(f *testing.F)          { fuzzKind(f, "KcId") }
func FuzzParseKpsaID(f *testing.F)        { fuzzKind(f, "KpsaId") }
func FuzzParseCredentialID(f *testing.F)  { fuzzKind(f, "Credential-ID") }
func FuzzParseCSEID(f *testing.F)         { fuzzKind(f, "CSE-ID") }
func FuzzParseAEID(f *testing.F)          { fuzzKind(f, "AE-ID") }

// FuzzDomainName: a CSE-ID and its domain name lead to each other, or there is
// no domain name.
func FuzzDomainName(f *testing.F) {
	for _, text := range []string{"in-cse.sp.example.com", "IN-CSE.sp.example.com", "//sp.example.com/in-cse", "//sp.example.com/In-cse", "//a/b.c", "//b/-", "*.a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseCSEDomainName(text); err == nil && id.DomainName() != foldASCII(text) {
			t.Errorf("%q is %s, whose name is %q", text, id, id.DomainName())
		}
		id, err := ParseCSEID(text)
		if err != nil || id.DomainName() == "" {
			return
		}
		if back, err := ParseCSEDomainName(id.DomainName()); err != nil || back != id {
			t.Errorf("%s comes back as %s, %v", id, back, err)
		}
	})
}

func FuzzParseTimestamp(f *testing.F) {
	for _, text := range []string{"20141003T112032", "20141003T112032,5", "20141003T112032.5", "20141003T112060", "20141003T112032Z", "00000101T000000,000001"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		at, err := ParseTimestamp(text)
		if err != nil {
			return
		}
		if whole, _, _ := strings.Cut(text, ","); FormatTimestamp(at) != whole {
			t.Errorf("%q is written %q", text, FormatTimestamp(at))
		}
	})
}
