package primitive

import (
	"strings"
	"unicode"
)

// sameName reports whether some reader takes two member names for one. Readers
// that ignore letter case have been seen to compare ASCII letters only, to use
// Unicode's simple folding as Go's encoding/json does (the Kelvin sign is a k,
// the long s an s), and to map each character to lower and upper case as Java
// does, which adds the dotted capital and the dotless small i of Turkish.
func sameName(a, b string) bool {
	if a == b {
		return true
	}
	if a == "" || b == "" {
		return false
	}
	// Most pairs differ in their first letter. |0x20 makes capitals small, and
	// no two characters different that are not.
	if x, y := a[0], b[0]; x < 0x80 && y < 0x80 && x|0x20 != y|0x20 {
		return false
	}
	if isASCII(a) && isASCII(b) {
		return len(a) == len(b) && strings.EqualFold(a, b)
	}
	return foldName(a) == foldName(b)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// foldName returns what all names have in common that sameName takes for one.
func foldName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == 'İ' || r == 'ı' {
			return 'i'
		}
		// The smallest of the runes that fold to each other stands for them; of
		// ASCII letters, that is made the small one.
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		if 'A' <= least && least <= 'Z' {
			least += 'a' - 'A'
		}
		return least
	}, s)
}
