package httpgw

import (
	"errors"
	"strings"

	"github.com/onem2m-maf/maf/onem2m"
)

// longestTo bounds a target.
const longestTo = 1024

// CheckTo refuses a To parameter that has another form than these (TS-0001
// table 7.2-1), in which every segment consists of RFC 3986's unreserved
// characters:
//
//	in-cse/meter7/values                    CSE-relative
//	/mn-cse/base/values                     SP-relative
//	//sp.example.com/mn-cse/base/values     absolute
//
// So it needs no escapes in a URL, and no reader can decode, shorten or split it
// into another one.
func CheckTo(to string) error {
	if len(to) > longestTo {
		return errors.New("a target that is too long")
	}
	rest := to
	if absolute, ok := strings.CutPrefix(to, "//"); ok {
		sp, path, _ := strings.Cut(absolute, "/")
		if _, err := onem2m.ParseFQDN(sp); err != nil {
			return errors.New("an absolute target whose service provider is no FQDN")
		}
		rest = path
	} else {
		rest = strings.TrimPrefix(to, "/")
	}
	for segment := range strings.SplitSeq(rest, "/") {
		switch segment {
		case "":
			return errors.New("a target with an empty segment")
		case ".", "..":
			return errors.New("a target with a dot segment")
		case "~", "_":
			// Where they are no prefix of a path, a reader may still take them
			// for one.
			return errors.New("a target with a segment '~' or '_'")
		}
		if !isUnreserved(segment) {
			return errors.New("a target with a character that resource names don't have")
		}
	}
	return nil
}

func isUnreserved(s string) bool {
	for i := range len(s) {
		if !unreserved(s[i]) {
			return false
		}
	}
	return true
}

func unreserved(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

// appendPath appends the path of a target (TS-0009 6.2.2.1).
func appendPath(b []byte, to string) []byte {
	switch {
	case strings.HasPrefix(to, "//"):
		return append(append(b, "/_"...), to[1:]...)
	case strings.HasPrefix(to, "/"):
		return append(append(b, "/~"...), to...)
	}
	return append(append(b, '/'), to...)
}

// parsePath is appendPath's inverse, for a path as a device wrote it: it may
// have escaped characters that need no escape, and no others.
func parsePath(path string) (to string, err error) {
	if strings.IndexByte(path, '%') >= 0 {
		if path, err = unescapeUnreserved(path); err != nil {
			return "", err
		}
	}
	switch {
	case strings.HasPrefix(path, "/~/"):
		to = path[2:]
	case strings.HasPrefix(path, "/_/"):
		to = "/" + path[2:]
	case strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//"):
		to = path[1:]
	default:
		return "", errors.New("a path of no known form")
	}
	return to, CheckTo(to)
}

// unescapeUnreserved removes the escapes that change nothing (RFC 3986 section
// 6.2.2.2). All others hide a character that a path of oneM2M does not have:
// %00, %2F, %3F, %5C, %25.
func unescapeUnreserved(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b.WriteByte(s[i])
			continue
		}
		c, ok := unhex(s[i:])
		if !ok || !unreserved(c) {
			return "", errors.New("an escaped character in a path")
		}
		b.WriteByte(c)
		i += 2
	}
	return b.String(), nil
}

// unhex reads the escape that s begins with.
func unhex(s string) (byte, bool) {
	if len(s) < 3 {
		return 0, false
	}
	high, ok := hexDigit(s[1])
	low, ok2 := hexDigit(s[2])
	return high<<4 | low, ok && ok2
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}
