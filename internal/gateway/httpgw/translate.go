package httpgw

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// translate makes the HTTP request in x a oneM2M request (TS-0009 6.2 to 6.5),
// whose content it returns.
func (x *exchange) translate() (*primitive.Value, *refusal) {
	// First, so that a refusal carries the request identifier.
	contentType, refused := x.headers()
	if refused != nil {
		return nil, refused
	}
	r := &x.request
	note(&x.entry, r, x.head.Target)
	typ, json, err := parseContentType(contentType)
	if err != nil {
		return nil, malformed(err.Error())
	}
	switch x.head.Method {
	case "POST":
		r.Operation, r.Type = notify, typ
		if typ > 0 {
			r.Operation = create
		}
	case "GET":
		r.Operation = retrieve
	case "PUT":
		r.Operation = update
	case "DELETE":
		r.Operation = remove
	default:
		return nil, &refusal{onem2m.StatusOperationNotAllowed, 0, "a method that oneM2M does not use", true}
	}
	path, query, _ := strings.Cut(x.head.Target, "?")
	if r.To, err = parsePath(path); err != nil {
		return nil, malformed(err.Error())
	}
	note(&x.entry, r, r.To)
	if r.Query, err = ParseQuery(query); err != nil {
		return nil, malformed(err.Error())
	}
	if r.ID == "" {
		return nil, malformed("a request without X-M2M-RI")
	}
	return x.parseContent(json)
}

// headers reads those headers that oneM2M knows, and returns the Content-Type.
// The others are for a server that is none of ours: cookies, credentials and
// hints about what stands before it are left behind.
func (x *exchange) headers() (contentType string, refused *refusal) {
	const from, id, content = parameterCount, parameterCount + 1, parameterCount + 2
	var seen uint64
	for i := range x.head.Fields {
		f := &x.head.Fields[i]
		p, known := parameterOf(f)
		switch {
		case known && parameterHeaders[p].request:
			header := &parameterHeaders[p]
			if f.Value == "" {
				break // as good as absent: see isPlain
			}
			if !isPlain(f.Value, header.longest, header.blanks) {
				refused = malformed("a malformed " + header.name)
			} else {
				x.request.Params[p] = f.Value
			}
		case f.Is("X-M2M-Origin"):
			p = from
			if f.Value != "" && !isPlain(f.Value, longestFrom, false) {
				refused = malformed("a malformed X-M2M-Origin")
			} else {
				x.request.From, x.request.HasFrom = f.Value, f.Value != ""
			}
		case f.Is("X-M2M-RI"):
			p = id
			if !isPlain(f.Value, longestID, false) {
				refused = malformed("a malformed X-M2M-RI")
			} else {
				x.request.ID = f.Value
			}
		case f.Is("Content-Type"):
			p = content
			contentType = f.Value
		default:
			continue
		}
		if seen&(1<<p) != 0 {
			// Some readers take the first, some the last.
			refused = malformed(fmt.Sprintf("header %s twice", f.Name))
		}
		seen |= 1 << p
	}
	return contentType, refused
}

// parseContentType reads the resource type of a CREATE out of a Content-Type, and
// whether what it names is JSON. Anything beside them that a reader might take
// for a resource type is an error.
func parseContentType(s string) (typ int, json bool, err error) {
	media, params, more := strings.Cut(s, ";")
	for more {
		var param string
		param, params, more = strings.Cut(params, ";")
		name, value, _ := strings.Cut(strings.Trim(param, " \t"), "=")
		switch {
		case strings.EqualFold(name, "ty"):
			n, err := strconv.Atoi(value)
			if typ != 0 || err != nil || n < 1 || n > 1<<20 || value != strconv.Itoa(n) {
				return 0, false, fmt.Errorf("a malformed ty in Content-Type")
			}
			typ = n
		case strings.EqualFold(name, "charset") && strings.EqualFold(value, "utf-8"):
		default:
			return 0, false, fmt.Errorf("an unknown parameter in Content-Type")
		}
	}
	return typ, isJSONType(strings.ToLower(strings.TrimSpace(media))), nil
}

// parseContent reads the body.
func (x *exchange) parseContent(json bool) (*primitive.Value, *refusal) {
	r := &x.request
	wants := r.Operation != retrieve && r.Operation != remove
	switch {
	case len(x.body) == 0 && wants:
		return nil, malformed("a request without content")
	case len(x.body) == 0:
		return nil, nil
	case !wants:
		return nil, malformed("content in a request that has none")
	case !json:
		return nil, &refusal{badRequest, 415, "content that is not JSON", true}
	}
	v, err := primitive.ParseInPlace(x.body) // which nobody changes before the answer
	if err != nil {
		return nil, malformed(err.Error())
	}
	if v.Kind() != primitive.KindObject {
		return nil, malformed("content that is no JSON object")
	}
	return v, nil
}
