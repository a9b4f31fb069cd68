package primitive

import (
	"bytes"
	"testing"
)

// plain looks at many octets at a time, and finds what looking at each would,
// whatever octet it is, wherever it stands, and whatever stands around it.
func TestPlain(t *testing.T) {
	for _, around := range []byte{' ', 'a', '!', '#', '[', ']', 0x7f} {
		for c := range 256 {
			for length := 1; length <= 75; length++ {
				if length > 24 && (around != 'a' || length%9 > 2) {
					continue // it is the same again, four words at a time
				}
				for at := range length {
					text := bytes.Repeat([]byte{around}, length)
					text[at] = byte(c)
					want := length
					if c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
						want = at
					}
					for from := range at + 1 {
						if got := plain(string(text), from); got != want {
							t.Fatalf("%q from %d: %d, want %d", text, from, got, want)
						}
					}
				}
			}
		}
	}
}
