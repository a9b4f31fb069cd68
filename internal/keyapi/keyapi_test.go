package keyapi

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

const (
	relative = "00112233445566778899AABBCCDDEEFF"
	kc64     = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=" // 32 times 'k'
)

func kcID(t testing.TB, s string) onem2m.KcID {
	t.Helper()
	id, err := onem2m.ParseKcID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func exampleKey(t testing.TB) Key {
	return Key{
		KcID:     kcID(t, relative+"@maf.example.com"),
		Kc:       secret.New(bytes.Repeat([]byte("k"), KcLen)),
		Expires:  time.Date(2014, 10, 3, 11, 20, 32, 0, time.UTC),
		Lifetime: time.Hour,
		KmID:     onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"},
		SUID:     onem2m.SUIDSAEF,
		AEID:     onem2m.AEID{SP: "sp.example.com", Stem: "Smeter7"},
	}
}

const exampleAnswer = `{"KcID":"` + relative + `@maf.example.com","Kc":"` + kc64 + `",` +
	`"expirationTime":"20141003T112032","lifetime":3600,"KmID":"meter7@maf.example.com","SUID":32,"AE-ID":"//sp.example.com/Smeter7"}`

func equal(a, b *Key) bool {
	return a.KcID == b.KcID && a.Kc.Equal(b.Kc) && a.Expires.Equal(b.Expires) && a.Lifetime == b.Lifetime &&
		a.KmID == b.KmID && a.SUID == b.SUID && a.AEID == b.AEID && a.CSEID == b.CSEID
}

func TestAnswer(t *testing.T) {
	key := exampleKey(t)
	body, err := key.Encode()
	if err != nil || string(body) != exampleAnswer {
		t.Fatalf("%s, %v", body, err)
	}
	back, err := Decode(body)
	if err != nil || !equal(back, &key) {
		t.Fatalf("%+v, %v", back, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Key){
		"no KcID":            func(k *Key) { k.KcID = onem2m.KcID{} },
		"no Kc":              func(k *Key) { k.Kc = secret.Key{} },
		"short Kc":           func(k *Key) { k.Kc = secret.New(make([]byte, 31)) },
		"long Kc":            func(k *Key) { k.Kc = secret.New(make([]byte, 48)) },
		"no lifetime":        func(k *Key) { k.Lifetime = time.Second - 1 },
		"negative lifetime":  func(k *Key) { k.Lifetime = -time.Hour },
		"no KmID":            func(k *Key) { k.KmID = onem2m.KmID{} },
		"another MAF's KmID": func(k *Key) { k.KmID.FQDN = "other.example" },
		"wrong SUID":         func(k *Key) { k.SUID = onem2m.SUIDESPrim },
		"two identities":     func(k *Key) { k.CSEID = onem2m.CSEID{SP: "sp.example.com", ID: "mn"} },
		"relative AE-ID":     func(k *Key) { k.AEID.SP = "" },
		"relative CSE-ID":    func(k *Key) { k.AEID = onem2m.AEID{}; k.CSEID = onem2m.CSEID{ID: "mn"} },
	} {
		key := exampleKey(t)
		spoil(&key)
		if body, err := key.Encode(); err == nil {
			t.Errorf("%s: encoded as %s", name, body)
		}
	}
}

func TestDecode(t *testing.T) {
	for name, edit := range map[string][2]string{
		"unknown member":          {`{"KcID"`, `{"new":{"a":[1,2]},"KcID"`},
		"white space":             {`,"SUID"`, " ,\n \"SUID\" "},
		"other order":             {`,"SUID":32,`, `,`},
		"lower-case hexadecimal":  {"AABBCCDDEEFF", "aabbccddeeff"},
		"fraction of a second":    {"112032", "112032,5"},
		"no AE-ID":                {`,"AE-ID":"//sp.example.com/Smeter7"`, ""},
		"CSE-ID":                  {`"AE-ID":"//sp.example.com/Smeter7"`, `"CSE-ID":"//sp.example.com/mn-cse"`},
		"unknown like a known":    {`{"KcID"`, `{"kcid":"x","KcID"`},
		"a hundred years, nearly": {`3600`, `3153600000`},
	} {
		text := strings.Replace(exampleAnswer, edit[0], edit[1], 1)
		if name == "other order" {
			text = strings.Replace(text, "{", `{"SUID":32,`, 1)
		}
		if _, err := Decode([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, edit := range map[string][2]string{
		"nothing":                 {exampleAnswer, ""},
		"null":                    {exampleAnswer, "null"},
		"list":                    {exampleAnswer, "[]"},
		"empty object":            {exampleAnswer, "{}"},
		"cut short":               {`"}`, `"`},
		"more behind":             {`"}`, `"}{}`},
		"junk behind":             {`"}`, `"} x`},
		"NUL behind":              {`"}`, "\"}\x00"},
		"a brace behind":          {`"}`, `"}}`},
		"no KcID":                 {`"KcID"`, `"x"`},
		"no Kc":                   {`"Kc"`, `"x"`},
		"no expirationTime":       {`"expirationTime"`, `"x"`},
		"no lifetime":             {`"lifetime"`, `"x"`},
		"no KmID":                 {`"KmID"`, `"x"`},
		"no SUID":                 {`"SUID"`, `"x"`},
		"other letter case":       {`"Kc"`, `"kc"`},
		"a member twice":          {`{`, `{"SUID":32,`},
		"null Kc":                 {`"` + kc64 + `"`, "null"},
		"null AE-ID":              {`"//sp.example.com/Smeter7"`, "null"},
		"empty AE-ID":             {`"//sp.example.com/Smeter7"`, `""`},
		"bad KcID":                {relative, relative[2:]},
		"bad KmID":                {"meter7@", "meter 7@"},
		"another MAF's KmID":      {"meter7@maf", "meter7@other"},
		"bad AE-ID":               {"Smeter7", "Xmeter7"},
		"relative AE-ID":          {"//sp.example.com/Smeter7", "/Smeter7"},
		"both":                    {`"AE-ID"`, `"CSE-ID":"//sp.example.com/mn","AE-ID"`},
		"URL base64":              {kc64[:4], "a-_a"},
		"base64 without padding":  {"a2s=", "a2s"},
		"base64 with stray bits":  {"a2s=", "a2t="},
		"base64 with a line feed": {kc64[:4], kc64[:4] + `\n`},
		"short Kc":                {kc64[:4], ""},
		"bad time":                {"20141003T112032", "2014-10-03"},
		"lifetime 0":              {"3600", "0"},
		"negative lifetime":       {"3600", "-1"},
		"fractional lifetime":     {"3600", "3600.5"},
		"lifetime as text":        {"3600", `"3600"`},
		"overflowing lifetime":    {"3600", "9223372036854775807"},
		"more than 64 bits":       {"3600", "92233720368547758070"},
		"wrong SUID":              {`"SUID":32`, `"SUID":33`},
		"SUID as text":            {`"SUID":32`, `"SUID":"32"`},
	} {
		text := strings.Replace(exampleAnswer, edit[0], edit[1], 1)
		key, err := Decode([]byte(text))
		if err == nil {
			t.Errorf("%s: decoded as %+v", name, key)
		} else if strings.Contains(err.Error(), kc64[:8]) {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
}

func TestPath(t *testing.T) {
	id := kcID(t, relative+"@maf.example.com")
	if got := Path(id); got != "/v1/keys/maf.example.com/"+relative {
		t.Errorf("the path is %s", got)
	}
	for _, path := range []string{Path(id), strings.ToLower(Path(id)), "/v1/keys/MAF.example.com/" + relative} {
		if got, ok := ParsePath(path); !ok || got != id {
			t.Errorf("%s: %v, %v", path, got, ok)
		}
	}
	for _, path := range []string{
		"", "/", "/v1/keys/", "/v1/keys/maf.example.com", "/v1/keys/maf.example.com/", Path(id) + "/", "/" + Path(id), "/v1/keys//" + relative,
		Path(id) + "?", "/v2/keys/maf.example.com/" + relative, "/V1/keys/maf.example.com/" + relative, "/v1/keys/maf.example.com/" + relative + "@maf.example.com",
		"/v1/keys/maf%2eexample.com/" + relative, "/v1/keys/maf.example.com/%30" + relative[1:], "/v1/keys/../keys/maf.example.com/" + relative, Path(id) + "00",
	} {
		if got, ok := ParsePath(path); ok {
			t.Errorf("%q was accepted, as %v", path, got)
		}
	}
}

func FuzzPath(f *testing.F) {
	f.Add("/v1/keys/maf.example.com/" + relative)
	f.Add("/v1/keys/maf.example.com/" + relative + "/")
	f.Add("/v1/keys/maf%2eexample.com/" + strings.ToLower(relative))
	f.Fuzz(func(t *testing.T, path string) {
		if id, ok := ParsePath(path); ok && !strings.EqualFold(Path(id), path) {
			t.Errorf("%q is %s", path, Path(id))
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(exampleAnswer))
	f.Add([]byte(strings.Replace(exampleAnswer, "{", `{"x":[{}],`, 1)))
	f.Add([]byte(`{"KcID":null}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		key, err := Decode(body)
		if err != nil {
			return
		}
		again, err := key.Encode()
		if err != nil {
			t.Fatalf("decoded but not encodable: %v", err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		key.Expires = key.Expires.Truncate(time.Second)
		if !equal(back, key) {
			t.Errorf("%+v comes back as %+v", key, back)
		}
	})
}
