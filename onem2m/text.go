package onem2m

import (
	"fmt"
	"strings"
)

// maxQuoted bounds how much of a refused text an error repeats: the text may
// come from an unauthenticated peer, and the error goes to a log.
const maxQuoted = 64

// syntaxError says why text is not the identifier that what names.
type syntaxError struct{ what, text, why string }

func (e *syntaxError) Error() string {
	text, more := e.text, ""
	if len(text) > maxQuoted {
		text, more = text[:maxQuoted], "..."
	}
	return fmt.Sprintf("%q%s is not a valid %s: %s", text, more, e.what, e.why)
}

func refuse(what, text, why string) error { return &syntaxError{what, text, why} }

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }
func isAlnum(c byte) bool { return isUpper(c) || 'a' <= c && c <= 'z' || isDigit(c) }

// foldASCII lowers A to Z and nothing else. strings.ToLower would also turn the
// Kelvin sign into a k, which makes two identifiers of one.
func foldASCII(s string) string {
	for i := 0; i < len(s); i++ {
		if isUpper(s[i]) {
			b := []byte(s)
			for ; i < len(b); i++ {
				if isUpper(b[i]) {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// maxPart bounds the parts of identifiers that the standard leaves unbounded.
// RFC 4279 5.3 has every TLS-PSK peer support identities of 128 octets.
const maxPart = 128

// relativeProblem says what is wrong with the relative part of a KmId or
// KpsaId, or "" when nothing is: Roman letters, digits, '.', '_' and '-' (10.6).
func relativeProblem(s string) string {
	switch {
	case s == "":
		return "nothing stands before the @"
	case len(s) > maxPart:
		return fmt.Sprintf("the part before the @ is longer than %d characters", maxPart)
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '.' && c != '_' && c != '-' {
			return "only letters, digits, '.', '_' and '-' may stand before the @"
		}
	}
	return ""
}

// segmentProblem says what is wrong with a CSE-ID or AE-ID stem, or "" when
// nothing is. Only RFC 3986's unreserved characters may stand in one, so that
// it never needs percent-encoding, which would be a second encoding. A lone "."
// or ".." is refused since URI normalisation (RFC 3986 6.2.2.3) removes them:
// "//sp.example/.." would become another identifier on the way.
func segmentProblem(s string) string {
	switch {
	case s == "":
		return "a part between the slashes is empty"
	case len(s) > maxPart:
		return fmt.Sprintf("a part is longer than %d characters", maxPart)
	case s == "." || s == "..":
		return "'.' and '..' are path steps, not names"
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '-' && c != '.' && c != '_' && c != '~' {
			return "only letters, digits, '-', '.', '_' and '~' may stand in it"
		}
	}
	return ""
}

// splitAt cuts "relative@fqdn" at its only @.
func splitAt(what, s string) (relative string, fqdn FQDN, err error) {
	relative, host, ok := strings.Cut(s, "@")
	if !ok {
		return "", "", refuse(what, s, "it has no @ before the FQDN")
	}
	fqdn, why := parseFQDN(host)
	if why != "" {
		return "", "", refuse(what, s, "after the @: "+why)
	}
	return relative, fqdn, nil
}

// unmarshal is what every UnmarshalText does: the empty text is the zero value.
func unmarshal[T any](dst *T, text []byte, parse func(string) (T, error)) error {
	var v T
	if len(text) > 0 {
		var err error
		if v, err = parse(string(text)); err != nil {
			return err
		}
	}
	*dst = v
	return nil
}
