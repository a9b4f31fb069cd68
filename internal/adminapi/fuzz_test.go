package adminapi

import (
	"strings"
	"testing"
)

// FuzzDuration: what is read is written, and read again, as the same.
func FuzzDuration(f *testing.F) {
	for _, text := range []string{"24h", "1h30m", "90s", "-1ns", "1.5h", "0", "106751d", "2540400h10m10.000000000s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var d, again Duration
		if d.UnmarshalText([]byte(text)) != nil {
			return
		}
		written, err := d.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(written); err != nil || again != d {
			t.Errorf("%q is written %q, which is %v, %v", text, written, again, err)
		}
	})
}

// FuzzKey: the same for keys, whose errors quote nothing.
func FuzzKey(f *testing.F) {
	for _, text := range []string{"deadbeef", "3q2+7w==", "", "0", "3q2+7x==", "3q2+\n7w=="} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var k, again Key
		if err := k.UnmarshalText([]byte(text)); err != nil {
			if len(text) > 8 && strings.Contains(err.Error(), text) {
				t.Errorf("the error quotes the key: %v", err)
			}
			return
		}
		written, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		// Base64 of digits only could be read as hexadecimal: no key of a real
		// length is all of those letters by chance.
		if strings.Trim(string(written), "0123456789abcdefABCDEF") == "" {
			return
		}
		if err := again.UnmarshalText(written); err != nil || !again.Equal(k.Key) {
			t.Errorf("a key of %d octets is read back otherwise: %v", k.Len(), err)
		}
	})
}
