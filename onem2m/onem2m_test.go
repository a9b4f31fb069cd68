package onem2m

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// kind is one type of identifier as the tables and fuzz targets see it.
type kind struct {
	name  string
	parse func(string) (fmt.Stringer, error)
	// reread decodes text by UnmarshalText and encodes it again.
	reread func(text string) (string, error)
	accept map[string]string // text to its canonical form; "" means the same
	refuse []string
}

func kindOf[T interface {
	comparable
	fmt.Stringer
	MarshalText() ([]byte, error)
}, P interface {
	*T
	UnmarshalText([]byte) error
}](name string, parse func(string) (T, error), accept map[string]string, refuse []string) kind {
	return kind{
		name: name,
		parse: func(s string) (fmt.Stringer, error) {
			v, err := parse(s)
			if err != nil {
				var zero T
				if v != zero {
					panic(fmt.Sprintf("%s: a refused text gave a value: %#v", name, v))
				}
				return nil, err
			}
			if again, err := parse(v.String()); err != nil || again != v {
				panic(fmt.Sprintf("%s: %q does not parse back: %#v, %v", name, v, again, err))
			}
			return v, nil
		},
		reread: func(text string) (string, error) {
			var v T
			if err := P(&v).UnmarshalText([]byte(text)); err != nil {
				return "", err
			}
			out, err := v.MarshalText()
			return string(out), err
		},
		accept: accept,
		refuse: refuse,
	}
}

var (
	label63 = strings.Repeat("a", 63)
	name253 = strings.Repeat("a.", 126) + "a"
	part128 = strings.Repeat("x", 128)
)

const (
	hexUp  = "00112233445566778899AABBCCDDEEFF"
	hexLow = "00112233445566778899aabbccddeeff"
)

// badHosts must be refused wherever an FQDN stands.
var badHosts = []string{
	"", ".", "..", "a..b", ".a", "a.", "-a", "a-", "a.-b", "a-.b", "a_b", "a b", " a", "a ", "a\t", "a\n", "a\x00",
	"a\x00.b", "a\x7f", "*.a", "a.*", "a/b", "a@b", "a:1", "a%2eb", "[::1]", "::1", "127.0.0.1", "1", "a.1", "a.b.007",
	"bücher.example", "\u212aelvin.example", "xn--b\u00fccher", "\uff41.example", "a。b", "\xff", label63 + "a", name253 + "a", name253 + ".b",
}

// badRelatives must be refused before the @ of a KmId or KpsaId.
var badRelatives = []string{
	"", " ", "a b", " a", "a ", "a\t", "a\n", "a\x00", "\x00", "a\x7f", "a/b", "a%41", "a+b", "a:b", "a~b", "a@b", "é", "\u212a", "\xff", part128 + "x",
}

// badSegments must be refused as CSE-ID and (with a C in front) as stem.
var badSegments = []string{
	"", " ", "a b", " a", "a ", "a\t", "a\n", "a\x00", "\x00", "a\x7f", "a/", "a/b/c", "a%41", "a+b", "a:b", "a@b", "a?", "a#", "a*", "é", "\u212a", "\xff", part128 + "x",
}

// with puts each part in the place of format's %.
func with(format string, parts ...[]string) (texts []string) {
	for _, part := range parts {
		for _, p := range part {
			texts = append(texts, strings.Replace(format, "%", p, 1))
		}
	}
	return texts
}

func kinds() []kind {
	return []kind{
		kindOf("FQDN", ParseFQDN, map[string]string{
			"maf.example.com": "", "MAF.Example.COM": "maf.example.com", "localhost": "", "a": "", "0a": "", "1.2.3.a4": "",
			"xn--bcher-kva.example": "", "a--b.c": "", label63 + ".a": "", name253: "", "10.in-addr.arpa": "",
		}, badHosts),
		kindOf("M2M-SP-ID", ParseSPID, map[string]string{
			"//sp.example.com": "", "//SP.example.com": "//sp.example.com",
		}, append(with("//%", badHosts), "sp.example.com", "/sp.example.com", "///sp.example.com", "//sp.example.com/", "//sp.example.com/cse", "", "/", "http://sp")),
		kindOf("KmId", ParseKmID, map[string]string{
			"meter7@maf.example.com": "", "Meter_7.A-b@MAF.example.com": "meter_7.a-b@maf.example.com", ".@a": "", "..@a": "", "-@a": "", "_@a": "", "1@a": "",
			part128 + "@" + name253: "",
		}, slices.Concat(with("meter7@%", badHosts), with("%@maf.example.com", badRelatives), []string{"", "@", "meter7", "a@b@c", "@maf.example.com"})),
		kindOf("relative key identifier", func(s string) (RelativeKeyID, error) { return ParseRelativeKeyID(s) }, map[string]string{
			hexUp: "", hexLow: hexUp, "00112233445566778899aAbBcCdDeEfF": hexUp, strings.Repeat("0", 32): "",
		}, []string{"", "00", hexUp[1:], hexUp + "0", hexUp + "00", "0x" + hexUp[2:], hexUp[:31] + "G", hexUp[:31] + " ", hexUp[:31] + "\x00", "００" + hexUp[6:]}),
		kindOf("KcId", ParseKcID, map[string]string{
			hexUp + "@maf.example.com": "", hexLow + "@MAF.example.com": hexUp + "@maf.example.com",
		}, slices.Concat(with(hexUp+"@%", badHosts), []string{"", hexUp, "@a", hexUp[2:] + "@a", hexUp + "00@a", hexUp[:31] + "g@a", hexUp + "@a@b", " " + hexUp + "@a", "0x" + hexUp + "@a"})),
		kindOf("KpsaId", ParseKpsaID, map[string]string{
			"Line-4@issuer.example.com": "", "Line-4@Issuer.example.com": "Line-4@issuer.example.com",
		}, slices.Concat(with("line4@%", badHosts), with("%@issuer.example.com", badRelatives), []string{"", "@", "line4"})),
		kindOf("Credential-ID", ParseCredentialID, map[string]string{
			"11-meter7@maf.example.com": "", "11-Meter7@MAF.example.com": "11-meter7@maf.example.com", "10-ThisKey@mymef.com": "",
			"12-" + hexLow + "@maf.example.com": "12-" + hexUp + "@maf.example.com", "12-Line4@issuer.example.com": "",
			"30-sha-256-120_abc": "", "31-urn.1": "", "32-in-cse.sp.example.com": "", "33-a@b": "", "34-n": "", "11--@a": "",
		}, slices.Concat(with("11-meter7@%", badHosts), with("11-%@maf.example.com", badRelatives), []string{
			"", "-", "11", "11-", "-meter7@maf.example.com", "011-meter7@maf.example.com", "+11-meter7@maf.example.com", "1-a@b", "13-a@b", "99-a", "11meter7@maf.example.com",
			" 11-meter7@maf.example.com", "11 -meter7@maf.example.com", "11-meter7", "12-x", "10-x", "32-/in-cse", "30-a b", "30-a\x00", "30-é", "30-" + part128 + "x",
			"\uff11\uff11-meter7@maf.example.com", "-11-meter7@maf.example.com",
		})),
		kindOf("CSE-ID", ParseCSEID, map[string]string{
			"/in-cse": "", "/Mobius2": "", "//sp.example.com/in-cse": "", "//SP.example.com/In_Cse.~1": "//sp.example.com/In_Cse.~1", "/~": "", "/...": "", "/" + part128: "",
		}, slices.Concat(with("/%", badSegments), with("//sp.example.com/%", badSegments), with("//%/in-cse", badHosts), []string{
			"", "/", "//", "///", "in-cse", "//sp.example.com", "///in-cse", "/.", "/..", "//sp.example.com/..", "//sp.example.com//in-cse", "http://sp.example.com/in-cse", "/in-cse/",
		})),
		kindOf("CSE domain name", ParseCSEDomainName, nil, append(slices.Clone(badHosts), "in-cse", "in_cse.sp.example.com", "*.sp.example.com", "in-cse.127")),
		kindOf("AE-ID", ParseAEID, map[string]string{
			"Cmeter7": "", "Smeter7": "", "CC": "", "SS": "", "C.": "", "C..": "", "/in-cse/Cmeter7": "", "/Smeter7": "", "//sp.example.com/in-cse/Cmeter7": "",
			"//sp.example.com/Smeter7": "", "//SP.example.com/Smeter7": "//sp.example.com/Smeter7", "/S1/C1": "", "C" + part128[1:]: "",
		}, slices.Concat(with("C%", badSegments), with("S%", badSegments), with("/in-cse/C%", badSegments), with("/%/Cmeter7", badSegments), with("//%/Smeter7", badHosts), []string{
			"", "/", "//", "C", "S", "/C", "/S", "/in-cse/C", "/in-cse/S", "//sp.example.com/S", "//sp.example.com/C", "//sp.example.com/in-cse/C", "cmeter7", "smeter7", "Xmeter7",
			"/Cmeter7", "//sp.example.com/Cmeter7", "/in-cse/Smeter7", "//sp.example.com/in-cse/Smeter7", "in-cse/Cmeter7", "/in-cse/Cmeter7/", "/../Cmeter7", "/./Cmeter7", "C/..", "/in-cse//Cmeter7",
			"/a/b/Cmeter7", "//sp.example.com/a/b/Cmeter7",
		})),
	}
}

func TestParse(t *testing.T) {
	for _, k := range kinds() {
		t.Run(k.name, func(t *testing.T) {
			for text, want := range k.accept {
				if want == "" {
					want = text
				}
				if v, err := k.parse(text); err != nil {
					t.Error(err)
				} else if v.String() != want {
					t.Errorf("%q reads as %q, want %q", text, v, want)
				}
				if got, err := k.reread(text); err != nil || got != want {
					t.Errorf("%q decodes and encodes to %q, %v; want %q", text, got, err, want)
				}
			}
			for _, text := range k.refuse {
				v, err := k.parse(text)
				if err == nil {
					t.Errorf("%q was accepted, as %q", text, v)
					continue
				}
				if !strings.Contains(err.Error(), "is not a valid "+k.name+": ") || len(err.Error()) > 600 {
					t.Errorf("%q is refused unclearly: %v", text, err)
				}
			}
		})
	}
}

// TestSpaceNowhere puts white space and control characters at every place of
// every good text.
func TestSpaceNowhere(t *testing.T) {
	for _, k := range kinds() {
		for text := range k.accept {
			for i := range len(text) + 1 {
				for _, bad := range []string{" ", "\t", "\r\n", "\x00", "\u00a0", "\u200b"} {
					if v, err := k.parse(text[:i] + bad + text[i:]); err == nil {
						t.Errorf("%s: %q was accepted", k.name, v)
					}
				}
			}
		}
	}
}

func TestEmptyText(t *testing.T) {
	for _, k := range kinds() {
		got, err := k.reread("")
		if k.name == "relative key identifier" {
			if err == nil {
				t.Errorf("%s: the empty text decodes, though no value means none", k.name)
			}
			continue
		}
		if got != "" || err != nil {
			t.Errorf("%s: the empty text gives %q, %v", k.name, got, err)
		}
	}
}

func TestUnmarshalKeepsOnError(t *testing.T) {
	id := KmID{"meter7", "maf.example.com"}
	if err := id.UnmarshalText([]byte("bad")); err == nil || id.Relative != "meter7" {
		t.Errorf("after a failed decoding: %v, %v", id, err)
	}
}

func TestJSON(t *testing.T) {
	type record struct {
		Km   KmID         `json:"km"`
		Kc   KcID         `json:"kc"`
		Cred CredentialID `json:"cred"`
		CSE  CSEID        `json:"cse,omitzero"`
		AE   AEID         `json:"ae,omitzero"`
		SP   SPID         `json:"sp"`
		SUID SUID         `json:"suid"`
	}
	in := record{
		Km:   KmID{"meter7", "maf.example.com"},
		Kc:   KcID{RelativeKeyID{0xab}, "maf.example.com"},
		Cred: KmID{"meter7", "maf.example.com"}.CredentialID(),
		CSE:  CSEID{"sp.example.com", "in-cse"},
		SUID: SUIDSAEF,
	}
	const want = `{"km":"meter7@maf.example.com","kc":"AB000000000000000000000000000000@maf.example.com",` +
		`"cred":"11-meter7@maf.example.com","cse":"//sp.example.com/in-cse","sp":"","suid":32}`
	text, err := json.Marshal(in)
	if err != nil || string(text) != want {
		t.Fatalf("got  %s, %v\nwant %s", text, err, want)
	}
	var out record
	if err := json.Unmarshal(text, &out); err != nil || out != in {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestErrorsAreBounded(t *testing.T) {
	_, err := ParseKmID(strings.Repeat("\x00", 1<<20))
	if err == nil || len(err.Error()) > 600 {
		t.Error("a megabyte of junk makes a long error")
	}
}

func TestCSEID(t *testing.T) {
	for _, c := range []struct{ text, absolute, domain string }{
		{"/in-cse", "//sp.example.com/in-cse", ""},
		{"//other.example/in-cse", "//other.example/in-cse", "in-cse.other.example"},
		{"//other.example/In-cse", "//other.example/In-cse", ""},
		{"//other.example/in_cse", "//other.example/in_cse", ""},
		{"//other.example/in.cse", "//other.example/in.cse", ""},
		{"//other.example/-", "//other.example/-", ""},
		{"//other.example/" + label63, "//other.example/" + label63, label63 + ".other.example"},
		{"//other.example/" + label63 + "a", "//other.example/" + label63 + "a", ""},
		{"//" + name253 + "/a", "//" + name253 + "/a", ""},
	} {
		id, err := ParseCSEID(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := id.Absolute("sp.example.com").String(); got != c.absolute {
			t.Errorf("%s: absolute form %s", id, got)
		}
		if got := id.DomainName(); got != c.domain {
			t.Errorf("%s: domain name %q, want %q", id, got, c.domain)
		}
		if c.domain == "" {
			continue
		}
		if back, err := ParseCSEDomainName(strings.ToUpper(c.domain)); err != nil || back != id {
			t.Errorf("%s: comes back as %s, %v", id, back, err)
		}
	}
	if id := (CSEID{}).Absolute("sp.example.com"); !id.IsZero() || id.DomainName() != "" {
		t.Errorf("none made absolute is %q", id)
	}
}

func TestAEIDForms(t *testing.T) {
	registrar := CSEID{"sp.example.com", "in-cse"}
	for _, c := range []struct {
		text     string
		stem     bool
		absolute string
	}{
		{"Cmeter7", true, "//sp.example.com/in-cse/Cmeter7"},
		{"Smeter7", true, "//sp.example.com/Smeter7"},
		{"/Smeter7", false, "//sp.example.com/Smeter7"},
		{"/mn-cse/Cmeter7", false, "//sp.example.com/mn-cse/Cmeter7"},
		{"//other.example/mn-cse/Cmeter7", false, "//other.example/mn-cse/Cmeter7"},
		{"//other.example/Smeter7", false, "//other.example/Smeter7"},
	} {
		id, err := ParseAEID(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if id.IsStem() != c.stem {
			t.Errorf("%s: IsStem is %v", id, id.IsStem())
		}
		abs := id.Absolute(registrar)
		if abs.String() != c.absolute || !abs.IsAbsolute() {
			t.Errorf("%s: absolute form %s", id, abs)
		}
		if again, err := ParseAEID(c.absolute); err != nil || again != abs {
			t.Errorf("%s: the absolute form parses to another value, %#v, %v", id, again, err)
		}
		if !id.IsAbsolute() && !id.Absolute(CSEID{ID: "in-cse"}).IsZero() {
			t.Errorf("%s: made absolute at a registrar that isn't", id)
		}
	}
}

func TestCompare(t *testing.T) {
	// == is what decides who gets a key.
	a, _ := ParseKmID("METER7@MAF.EXAMPLE.COM")
	b, _ := ParseKmID("meter7@maf.example.com")
	if a != b {
		t.Error("a KmId is not case sensitive (10.6)")
	}
	c, _ := ParseCSEID("//sp.example.com/cse1")
	d, _ := ParseCSEID("//sp.example.com/Cse1")
	if c == d {
		t.Error("a CSE-ID is case sensitive (TS-0004 6.2.3)")
	}
	e, _ := ParseKpsaID("line4@issuer.example.com")
	f, _ := ParseKpsaID("Line4@issuer.example.com")
	if e == f {
		t.Error("a KpsaId is case sensitive")
	}
}

func TestTimestamp(t *testing.T) {
	for text, want := range map[string]time.Time{
		"20141003T112032":        time.Date(2014, 10, 3, 11, 20, 32, 0, time.UTC),
		"20141003T112032,5":      time.Date(2014, 10, 3, 11, 20, 32, 500_000_000, time.UTC),
		"20141003T112032,000001": time.Date(2014, 10, 3, 11, 20, 32, 1_000, time.UTC),
		"20240229T235959":        time.Date(2024, 2, 29, 23, 59, 59, 0, time.UTC),
		"00000101T000000":        time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		"99991231T235959":        time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		got, err := ParseTimestamp(text)
		if err != nil || !got.Equal(want) || got.Location() != time.UTC {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if back := FormatTimestamp(got); back != text[:15] {
			t.Errorf("%s: comes back as %s", text, back)
		}
	}
	for _, text := range []string{
		"", "20141003", "20141003T1120", "20141003T112032Z", "20141003T112032+00", "2014-10-03T11:20:32", "20141003 112032", "20141003t112032",
		"20141003T112032.5", "20141003T112032,", "20141003T112032,1234567", "20141003T112032,1,2", "20141003T112032,-1", "20141003T112032,5x",
		"20141303T112032", "20140229T112032", "20141003T242032", "20141003T116032", "20141003T112060", "20141003T112061", " 20141003T112032", "20141003T112032 ",
		"+2014103T112032", "-2014103T112032", "2014 003T112032", "120141003T112032", "２0141003T112032", "20141003T112032\x00",
	} {
		if got, err := ParseTimestamp(text); err == nil {
			t.Errorf("%q was accepted, as %v", text, got)
		}
	}
	late := time.Date(2014, 10, 3, 11, 20, 32, 999_999_999, time.FixedZone("", 3600))
	if got := FormatTimestamp(late); got != "20141003T102032" {
		t.Errorf("%v is written %s: it must be UTC and never later", late, got)
	}
}

func TestNumbersTravelAsNumbers(t *testing.T) {
	text, err := json.Marshal([]any{SUIDSAEF, StatusOriginatorNotAuthenticated, CredentialKmID})
	if err != nil || string(text) != "[32,4106,11]" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestStatusBindings(t *testing.T) {
	// The rows of TS-0009 table 6.3.2-1 and TS-0008 table 6.2.4-1 that clause
	// 7.3.2.1 of TS-0004 needs, and a code without a name here.
	for _, c := range []struct {
		code   ResponseStatusCode
		text   string
		http   int
		coapAs string
	}{
		{2000, "2000 OK", 200, "2.05"},
		{2001, "2001 CREATED", 201, "2.01"},
		{2002, "2002 DELETED", 200, "2.02"},
		{2004, "2004 UPDATED", 200, "2.04"},
		{4000, "4000 BAD_REQUEST", 400, "4.00"},
		{4004, "4004 NOT_FOUND", 404, "4.04"},
		{4005, "4005 OPERATION_NOT_ALLOWED", 405, "4.05"},
		{4008, "4008 REQUEST_TIMEOUT", 504, "5.04"},
		{4102, "4102 CONTENTS_UNACCEPTABLE", 400, "4.00"},
		{4103, "4103 ORIGINATOR_HAS_NO_PRIVILEGE", 403, "4.03"},
		{4106, "4106 ORIGINATOR_NOT_AUTHENTICATED", 403, "4.03"},
		{4107, "4107 SECURITY_ASSOCIATION_REQUIRED", 403, "4.03"},
		{4126, "4126 APP_RULE_VALIDATION_FAILED", 403, "4.03"},
		{5000, "5000 INTERNAL_SERVER_ERROR", 500, "5.00"},
		{5001, "5001 NOT_IMPLEMENTED", 501, "5.01"},
		{5103, "5103 TARGET_NOT_REACHABLE", 404, "4.04"},
		{6042, "6042", 500, "5.00"},
	} {
		coap := c.code.CoAPCode()
		if got := fmt.Sprintf("%d.%02d", coap>>5, coap&31); c.code.HTTPStatus() != c.http || got != c.coapAs {
			t.Errorf("%s: HTTP %d, CoAP %s", c.code, c.code.HTTPStatus(), got)
		}
		if c.code.String() != c.text {
			t.Errorf("%d is called %q", int(c.code), c.code)
		}
	}
}
