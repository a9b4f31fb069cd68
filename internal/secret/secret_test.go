package secret

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

type holder struct {
	Key   Key
	inner Key
	Ptr   *Key
}

func TestNeverPrinted(t *testing.T) {
	raw := []byte("sixteen octets!!")
	k := New(raw)
	h := holder{Key: k, inner: k, Ptr: &k}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%c", "%o", "%U", "%p", "%T", "%t"} {
		for _, v := range []any{k, &k, h, &h, []Key{k}, map[string]Key{"a": k}} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", k, "h", h, "p", &k)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", k, "h", h, "p", &k)
	json.NewEncoder(&out).Encode(h)
	xml.NewEncoder(&out).Encode(h)
	shown := strings.ToLower(out.String())
	for _, form := range []string{
		string(raw), fmt.Sprintf("%x", raw), "c2l4dgvlbibvy3rldhmhiq", // base64, lower case
		strings.Trim(fmt.Sprint(raw), "[]"), "0x73, 0x69",
	} {
		if strings.Contains(shown, form) {
			t.Errorf("the key shows as %q", form)
		}
	}
	if !strings.Contains(shown, Redacted) {
		t.Error("nothing was printed at all: the test cannot fail")
	}
}

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"00ff":     "\x00\xff",
		"00FF":     "\x00\xff",
		"deadbeef": "\xde\xad\xbe\xef",
		"AP8=":     "\x00\xff",
	} {
		k, err := Parse([]byte(in))
		if err != nil || string(k.Bytes()) != want {
			t.Errorf("Parse(%q): %v", in, err)
		}
	}
	for _, in := range []string{"", "zz secret zz", "AP9=", "AP8", "0ff", "AP8=\n", "AP\n8=", "AP\r8=", "00ff\n", " 00ff"} {
		_, err := Parse([]byte(in))
		if err == nil {
			t.Errorf("Parse(%q) succeeded", in)
		} else if in != "" && strings.Contains(err.Error(), in) {
			t.Errorf("the error quotes its input: %v", err)
		}
	}
}

func TestEqualAndWipe(t *testing.T) {
	a, b := New([]byte("abc")), New([]byte("abc"))
	if !a.Equal(b) || a.Equal(New([]byte("abd"))) || a.Equal(Key{}) || !(Key{}).Equal(Key{}) {
		t.Error("Equal is wrong")
	}
	a.Wipe()
	if a.Equal(b) || a.Len() != 3 {
		t.Error("Wipe left the key")
	}
}
