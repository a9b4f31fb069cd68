package httpgw

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// A QueryParam is one parameter of a query string: a part of the Filter Criteria
// or another parameter that TS-0009 table 6.2.2.2-1 puts there, or the name of an
// attribute to filter by. Values has more than one element where a list is
// meant: "ty=2+3". They are not escaped.
type QueryParam struct {
	Name   string
	Values []string
}

const maxQueryParams = 64

// ParseQuery reads a query string. A parameter that occurs again with the same
// name continues its list; one whose name differs by letter case is refused, as
// is what another reader could take for the request's own parameters.
func ParseQuery(raw string) ([]QueryParam, error) {
	if raw == "" {
		return nil, nil
	}
	var params []QueryParam
	for pair := range strings.SplitSeq(raw, "&") {
		name, list, ok := strings.Cut(pair, "=")
		if !ok || list == "" {
			// One known CSE reads on past the end of such a one.
			return nil, errors.New("a query parameter without a value")
		}
		p, err := parameter(&params, name)
		if err != nil {
			return nil, err
		}
		for value := range strings.SplitSeq(list, "+") {
			value, err := unescape(value)
			if err != nil {
				return nil, err
			}
			p.Values = append(p.Values, value)
		}
	}
	return params, checkQuery(params)
}

// parameter finds the parameter of a name, or adds one.
func parameter(params *[]QueryParam, name string) (*QueryParam, error) {
	for i := range *params {
		if p := &(*params)[i]; p.Name == name {
			return p, nil
		}
	}
	if len(*params) == maxQueryParams {
		return nil, errors.New("too many query parameters")
	}
	*params = append(*params, QueryParam{Name: name})
	return &(*params)[len(*params)-1], nil
}

// checkQuery refuses parameters that CSEs read differently.
func checkQuery(params []QueryParam) error {
	for i := range params {
		p := &params[i]
		if !isQueryName(p.Name) {
			return errors.New("a query parameter with a malformed name")
		}
		for _, other := range params[:i] {
			if strings.EqualFold(p.Name, other.Name) {
				return errors.New("a query parameter twice")
			}
		}
		if single(p.Name) && len(p.Values) > 1 {
			return errors.New("a query parameter with two values that has one")
		}
		for _, v := range p.Values {
			if v == "" || !utf8.ValidString(v) || strings.ContainsFunc(v, isControl) {
				return errors.New("a query parameter with a malformed value")
			}
		}
	}
	return nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// isQueryName admits short names, also those of specializations ("m2m:x",
// "c.cr"), but not those of request parameters that travel elsewhere: an
// originator is in no query.
func isQueryName(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !unreserved(c) && c != ':' || c == '~' {
			return false
		}
	}
	if len(name) >= len("X-M2M-") && strings.EqualFold(name[:len("X-M2M-")], "X-M2M-") {
		return false
	}
	for _, taken := range []string{"fr", "from", "to", "rqi", "rvi", "pc"} {
		if strings.EqualFold(name, taken) {
			return false
		}
	}
	return true
}

// single reports whether a parameter occurs once with one value (TS-0009 table
// 6.2.2.2-1): CSEs take the first or the last of several.
func single(name string) bool {
	switch name {
	case "rt", "rp", "rcn", "da", "drt", "crb", "cra", "ms", "us", "sts", "stb", "exb", "exa", "sza", "szb",
		"lim", "fu", "fo", "lvl", "ofst", "arp", "smf", "cfs", "cfq", "sqi", "gpn":
		return true
	}
	return false
}

// appendQuery appends the query string of the parameters with its question mark,
// in the one form that there is for them.
func appendQuery(b []byte, params []QueryParam) []byte {
	separator := byte('?')
	for _, p := range params {
		b = append(append(append(b, separator), p.Name...), '=')
		for i, v := range p.Values {
			if i > 0 {
				b = append(b, '+')
			}
			b = appendEscaped(b, v)
		}
		separator = '&'
	}
	return b
}

func appendEscaped(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; unreserved(c) || c == ':' || c == ',' || c == '*' {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

// unescape decodes a value. Of the characters with a meaning in URLs only those
// stand for themselves of which all readers say so.
func unescape(s string) (string, error) {
	if isUnreserved(s) {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			c, ok := unhex(s[i:])
			if !ok {
				return "", errors.New("a malformed escape in a query")
			}
			b = append(b, c)
			i += 2
		case unreserved(c) || strings.IndexByte("!$'()*,:@/?", c) >= 0:
			b = append(b, c)
		default: // ';' and '=' part, '#' ends, '"' and '<' have no place
			return "", errors.New("a character in a query that needs an escape")
		}
	}
	return string(b), nil
}
