package onem2m

import "strings"

// FQDN is a fully qualified domain name in lower case, such as
// "maf.example.com": the identity of a MAF (a MAF-ID) or MEF, and the middle of
// most other identifiers. The zero value means none.
//
// A name holds at most 253 characters in labels of 1 to 63 letters, digits and
// inner hyphens (RFC 1123 2.1), and no final dot. Internationalised names stand
// in their ASCII form ("xn--..."). A name of one label, as on a private
// network, is accepted (so does the grammar of TS-0004 6.2.3). One whose last label is all digits is not: it would be
// an IPv4 address or could be taken for one, and neither is a name that SNI can
// carry (RFC 6066 3).
type FQDN string

// ParseFQDN reads a domain name. Upper-case letters are folded.
func ParseFQDN(s string) (FQDN, error) {
	f, why := parseFQDN(s)
	if why != "" {
		return "", refuse("FQDN", s, why)
	}
	return f, nil
}

// parseFQDN returns the name, or why s is none.
func parseFQDN(s string) (f FQDN, why string) {
	switch {
	case s == "":
		return "", "it is empty"
	case len(s) > 253:
		return "", "the name is longer than 253 characters"
	}
	digits := false
	for label := range strings.SplitSeq(s, ".") {
		if why := labelProblem(label); why != "" {
			return "", why
		}
		digits = strings.Trim(label, "0123456789") == ""
	}
	if digits {
		return "", "its last label is a number, as in an IP address"
	}
	return FQDN(foldASCII(s)), ""
}

func labelProblem(label string) string {
	switch {
	case label == "":
		return "it has an empty label (two dots in a row, or one at an end)"
	case len(label) > 63:
		return "it has a label longer than 63 characters"
	case label[0] == '-' || label[len(label)-1] == '-':
		return "it has a label that begins or ends with a hyphen"
	}
	for i := 0; i < len(label); i++ {
		if c := label[i]; !isAlnum(c) && c != '-' {
			return "only letters, digits, '-' and '.' may stand in a domain name (write others in their xn-- form)"
		}
	}
	return ""
}

// String returns the name.
func (f FQDN) String() string { return string(f) }

// IsZero reports whether f is no name at all.
func (f FQDN) IsZero() bool { return f == "" }

// MarshalText implements [encoding.TextMarshaler].
func (f FQDN) MarshalText() ([]byte, error) { return []byte(f), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (f *FQDN) UnmarshalText(text []byte) error { return unmarshal(f, text, ParseFQDN) }

// SPID is an M2M-SP-ID, the identity of an M2M Service Provider:
// "//sp.example.com" (TS-0001 table 7.2-1). The zero value means none.
type SPID struct{ FQDN FQDN }

// ParseSPID reads an M2M-SP-ID.
func ParseSPID(s string) (SPID, error) {
	host, ok := strings.CutPrefix(s, "//")
	if !ok {
		return SPID{}, refuse("M2M-SP-ID", s, "it does not begin with //")
	}
	f, why := parseFQDN(host)
	if why != "" {
		return SPID{}, refuse("M2M-SP-ID", s, why)
	}
	return SPID{f}, nil
}

// String returns the M2M-SP-ID with its two slashes, or "" for the zero value.
func (id SPID) String() string {
	if id.IsZero() {
		return ""
	}
	return "//" + string(id.FQDN)
}

// IsZero reports whether id is no identifier at all.
func (id SPID) IsZero() bool { return id == SPID{} }

// MarshalText implements [encoding.TextMarshaler].
func (id SPID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *SPID) UnmarshalText(text []byte) error { return unmarshal(id, text, ParseSPID) }
