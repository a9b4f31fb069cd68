package onem2m

import "strings"

// CSEID is a CSE-ID: SP-relative "/in-cse" or absolute "//sp.example.com/in-cse"
// (TS-0001 table 7.2-1). The zero value means none.
//
// The two forms are different values; make both absolute before comparing.
// A CSE-ID is case sensitive, save for its FQDN (TS-0004 6.2.3: "/cse1" and
// "/Cse1" are two CSEs).
type CSEID struct {
	SP FQDN   // the service provider's; "" in the SP-relative form
	ID string // 1 to 128 of RFC 3986's unreserved characters, without the slash
}

// ParseCSEID reads a CSE-ID in either form.
func ParseCSEID(s string) (CSEID, error) {
	sp, path, why := cutSP(s)
	if why != "" {
		return CSEID{}, refuse("CSE-ID", s, why)
	}
	if strings.Contains(path, "/") {
		return CSEID{}, refuse("CSE-ID", s, "it has a slash too many")
	}
	if why := segmentProblem(path); why != "" {
		return CSEID{}, refuse("CSE-ID", s, why)
	}
	return CSEID{sp, path}, nil
}

// cutSP splits "//sp/path" or "/path".
func cutSP(s string) (sp FQDN, path, why string) {
	if rest, ok := strings.CutPrefix(s, "//"); ok {
		host, path, ok := strings.Cut(rest, "/")
		if !ok {
			return "", "", "nothing follows the service provider's FQDN"
		}
		if sp, why = parseFQDN(host); why != "" {
			return "", "", "service provider: " + why
		}
		return sp, path, ""
	}
	path, ok := strings.CutPrefix(s, "/")
	if !ok {
		return "", "", "it does not begin with a slash"
	}
	return "", path, ""
}

// String returns the identifier in its form, or "" for the zero value.
func (id CSEID) String() string {
	switch {
	case id.IsZero():
		return ""
	case id.SP == "":
		return "/" + id.ID
	}
	return "//" + string(id.SP) + "/" + id.ID
}

// IsZero reports whether id is no identifier at all.
func (id CSEID) IsZero() bool { return id == CSEID{} }

// IsAbsolute reports whether id names its service provider.
func (id CSEID) IsAbsolute() bool { return id.SP != "" }

// Absolute returns the absolute form of id: as it is when it already names a
// service provider, else under sp.
func (id CSEID) Absolute(sp FQDN) CSEID {
	if id.SP == "" && id.ID != "" {
		id.SP = sp
	}
	return id
}

// DomainName returns the CSE's public domain name, the CSE-ID in front of the
// service provider's (TS-0001 6.5.1.1): "in-cse.sp.example.com". A CSE-ID
// certificate carries it in subjectAltName.
//
// It returns "" where there is no such name that leads back to id: the
// SP-relative form has no FQDN, and a CSE-ID with a capital, a dot, '_' or '~'
// has no place in a domain name, or would come back in lower case as another
// CSE's. [ParseCSEDomainName] is the inverse.
func (id CSEID) DomainName() string {
	if !id.IsAbsolute() {
		return ""
	}
	name := id.ID + "." + string(id.SP)
	if back, err := ParseCSEDomainName(name); err != nil || back != id {
		return ""
	}
	return name
}

// ParseCSEDomainName reads the public domain name of a CSE into its absolute
// CSE-ID: the first label is the CSE-ID, the rest the service provider's FQDN.
// Upper-case letters are folded, as in every domain name.
func ParseCSEDomainName(s string) (CSEID, error) {
	name, why := parseFQDN(s)
	if why != "" {
		return CSEID{}, refuse("CSE domain name", s, why)
	}
	label, sp, ok := strings.Cut(string(name), ".")
	if !ok {
		return CSEID{}, refuse("CSE domain name", s, "no service provider follows the CSE-ID")
	}
	return CSEID{FQDN(sp), label}, nil
}

// MarshalText implements [encoding.TextMarshaler].
func (id CSEID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *CSEID) UnmarshalText(text []byte) error { return unmarshal(id, text, ParseCSEID) }

// AEID is an AE-ID in one of its forms (TS-0001 table 7.2-1, TS-0004 6.2.3):
//
//	                assigned by the Registrar CSE     assigned by the service provider
//	stem            Cmeter7                           Smeter7
//	SP-relative     /in-cse/Cmeter7                   /Smeter7
//	absolute        //sp.example.com/in-cse/Cmeter7   //sp.example.com/Smeter7
//
// The zero value means none. Two forms of one AE-ID are different values; make
// both [AEID.Absolute] before comparing. An AE-ID is case sensitive, save for
// its FQDN.
type AEID struct {
	SP  FQDN   // the service provider's; "" unless absolute
	CSE string // the Registrar CSE-ID without its slash; "" in a stem and with an S stem
	// Stem begins with 'C' or 'S' and holds 2 to 128 of RFC 3986's unreserved
	// characters.
	Stem string
	// SPRelative tells "/Smeter7" (true) from the bare stem "Smeter7". It is
	// false in every other form, whose other fields tell.
	SPRelative bool
}

// ParseAEID reads an AE-ID in any of its forms.
func ParseAEID(s string) (AEID, error) {
	id, why := parseAEID(s)
	if why != "" {
		return AEID{}, refuse("AE-ID", s, why)
	}
	return id, nil
}

func parseAEID(s string) (id AEID, why string) {
	if !strings.HasPrefix(s, "/") {
		return AEID{Stem: s}, stemProblem(s)
	}
	sp, path, why := cutSP(s)
	if why != "" {
		return AEID{}, why
	}
	if cse, stem, ok := strings.Cut(path, "/"); ok {
		if why := segmentProblem(cse); why != "" {
			return AEID{}, why
		}
		if why := stemProblem(stem); why != "" {
			return AEID{}, why
		}
		if stem[0] != 'C' {
			return AEID{}, "only a stem beginning with 'C' stands under a CSE-ID"
		}
		return AEID{SP: sp, CSE: cse, Stem: stem}, ""
	}
	if why := stemProblem(path); why != "" {
		return AEID{}, why
	}
	if path[0] != 'S' {
		return AEID{}, "a stem beginning with 'C' needs the Registrar's CSE-ID in front"
	}
	return AEID{SP: sp, Stem: path, SPRelative: sp == ""}, ""
}

// stemProblem says what is wrong with an AE-ID stem, or "". 'C' and 'S' alone
// are what a registering AE writes to ask for a stem, not stems.
func stemProblem(s string) string {
	switch {
	case s == "":
		return "its stem is empty"
	case s[0] != 'C' && s[0] != 'S':
		return "its stem does not begin with 'C' or 'S'"
	case len(s) == 1:
		return "its stem is a 'C' or 'S' with nothing behind"
	}
	return segmentProblem(s)
}

// String returns the identifier in its form, or "" for the zero value.
func (id AEID) String() string {
	stem := id.Stem
	if id.CSE != "" {
		stem = id.CSE + "/" + stem
	}
	switch {
	case id.SP != "":
		return "//" + string(id.SP) + "/" + stem
	case id.CSE != "" || id.SPRelative:
		return "/" + stem
	}
	return stem
}

// IsZero reports whether id is no identifier at all.
func (id AEID) IsZero() bool { return id == AEID{} }

// IsStem reports whether id is a bare stem, which names an AE only beside its
// Registrar CSE.
func (id AEID) IsStem() bool {
	return id.SP == "" && id.CSE == "" && !id.SPRelative && id.Stem != ""
}

// IsAbsolute reports whether id names its service provider.
func (id AEID) IsAbsolute() bool { return id.SP != "" }

// Absolute returns the absolute form of id, as seen at the given Registrar CSE:
// parts that id leaves out are the Registrar's. It returns the zero value when
// they are needed and registrar is not absolute.
func (id AEID) Absolute(registrar CSEID) AEID {
	if id.IsZero() || id.IsAbsolute() {
		return id
	}
	if !registrar.IsAbsolute() {
		return AEID{}
	}
	abs := AEID{SP: registrar.SP, CSE: id.CSE, Stem: id.Stem}
	if id.IsStem() && strings.HasPrefix(id.Stem, "C") {
		abs.CSE = registrar.ID
	}
	return abs
}

// MarshalText implements [encoding.TextMarshaler].
func (id AEID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *AEID) UnmarshalText(text []byte) error { return unmarshal(id, text, ParseAEID) }
