package coapgw

import (
	"errors"
	"strconv"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
)

// A Dialect is a set of numbers for oneM2M's options.
type Dialect uint8

// The dialects. They share the numbers 259, 263, 267, 271 and 275, with one meaning.
const (
	// Release3 has the numbers of TS-0008 3.9, table 6.2.2.4.0-1: FR is 279. All are
	// critical, so that who doesn't know them refuses them.
	Release3 Dialect = iota
	// Early has the numbers of the texts before, counted up from FR at 256.
	Early
)

// UnmarshalText reads "release3" or "early".
func (d *Dialect) UnmarshalText(text []byte) error {
	switch string(text) {
	case "release3":
		*d = Release3
	case "early":
		*d = Early
	default:
		return errors.New(`not "release3" or "early"`)
	}
	return nil
}

// A parameter is one of the oneM2M parameters that have an option of their own.
type parameter int

const (
	from parameter = iota
	requestID
	statusCode
	resourceType
	originatingTime
	requestExpiration
	resultExpiration
	executionTime
	responseURI
	eventCategory
	groupRequestID
	contentOffset
	contentStatus
	assignedTokens
	releaseVersion
	vendorInformation
	signatures
	signatureRequest
	parameterCount
)

// noParameter stands in the table where a parameter has a field of its own.
const noParameter httpgw.Parameter = -1

// options says how each parameter travels. What TS-0008 has besides, and what came
// after it, is unknown here: Group Request Target Members is for the members of groups,
// which CSEs are. As the numbers are critical, a request with one is refused.
var options = [parameterCount]struct {
	numbers           [2]uint16 // by Dialect
	kind              coap.Kind
	longest           int // in octets
	request, response bool
	parameter         httpgw.Parameter
}{
	from:              {[2]uint16{279, 256}, coap.String, longestText, true, false, noParameter},
	requestID:         {[2]uint16{283, 257}, coap.String, longestText, true, true, noParameter},
	statusCode:        {[2]uint16{307, 265}, coap.Uint, 4, false, true, noParameter}, // see status
	resourceType:      {[2]uint16{267, 267}, coap.Uint, 2, true, false, noParameter},
	originatingTime:   {[2]uint16{259, 259}, coap.String, 64, true, true, httpgw.OriginatingTimestamp},
	requestExpiration: {[2]uint16{291, 260}, coap.String, 64, true, false, httpgw.RequestExpiration},
	resultExpiration:  {[2]uint16{295, 261}, coap.String, 64, true, true, httpgw.ResultExpiration},
	executionTime:     {[2]uint16{299, 262}, coap.String, 64, true, false, httpgw.OperationExecution},
	responseURI:       {[2]uint16{263, 263}, coap.String, longestText, true, false, httpgw.NotificationURI},
	eventCategory:     {[2]uint16{303, 264}, coap.Uint, 1, true, true, httpgw.EventCategory},
	groupRequestID:    {[2]uint16{311, 266}, coap.String, longestText, true, false, httpgw.GroupRequestID},
	contentOffset:     {[2]uint16{319, 268}, coap.Uint, 2, false, true, httpgw.ContentOffset},
	contentStatus:     {[2]uint16{323, 269}, coap.Uint, 2, false, true, httpgw.ContentStatus},
	assignedTokens:    {[2]uint16{327, 270}, coap.String, longestText, false, true, httpgw.AssignedTokenIDs},
	releaseVersion:    {[2]uint16{271, 271}, coap.String, 8, true, true, httpgw.ReleaseVersion},
	vendorInformation: {[2]uint16{331, 272}, coap.String, longestText, true, true, httpgw.VendorInformation},
	signatures:        {[2]uint16{339, 274}, coap.String, longestText, true, false, httpgw.AuthorizationSignatures},
	signatureRequest:  {[2]uint16{275, 275}, coap.String, longestText, false, true, httpgw.SignatureRequest},
}

// longestText bounds the option values that go to a CSE. One known CSE copies them into
// 255 octets and takes them for terminated strings.
const longestText = 254

// number returns a parameter's option number.
func (d Dialect) number(p parameter) uint16 { return options[p].numbers[d] }

// define is the definition of all options that the gateway understands.
func define(number uint16) (coap.Definition, bool) {
	for i := range options {
		if o := &options[i]; o.numbers[Release3] == number || o.numbers[Early] == number {
			return coap.Definition{Kind: o.kind, Max: o.longest}, true
		}
	}
	return coap.Standard(number)
}

// dialectOf tells which dialect the options are of; fallback when they are of both. Two
// dialects in one message are refused: a CSE reads one number, another CSE the other.
func dialectOf(o coap.Options, fallback Dialect) (Dialect, error) {
	var found [2]bool
	for i := range options {
		numbers := options[i].numbers
		if numbers[Release3] == numbers[Early] {
			continue
		}
		for d := range numbers {
			found[d] = found[d] || o.Has(numbers[d])
		}
	}
	switch {
	case found[Release3] && found[Early]:
		return fallback, errors.New("options of two dialects")
	case found[Early]:
		return Early, nil
	case found[Release3]:
		return Release3, nil
	}
	return fallback, nil
}

// text returns a parameter that is a text.
func (d Dialect) text(o coap.Options, p parameter) (string, bool) {
	value, ok := o.Get(d.number(p))
	return string(value), ok
}

// readParameters reads the parameters that have no field of their own.
func (d Dialect) readParameters(o coap.Options, isRequest bool) (params httpgw.Parameters, err error) {
	for i := range options {
		p := &options[i]
		value, ok := o.Get(p.numbers[d])
		switch {
		case !ok:
			continue
		case isRequest && !p.request:
			return params, errors.New("a parameter of responses in a request")
		case p.parameter == noParameter || !isRequest && !p.response:
			continue
		case p.kind == coap.Uint:
			n, _ := o.Uint(p.numbers[d])
			params[p.parameter] = strconv.FormatUint(uint64(n), 10)
		case isPlain(string(value), p.parameter == httpgw.VendorInformation):
			params[p.parameter] = string(value)
		case isRequest:
			return params, errors.New("a parameter with characters that it doesn't have")
		}
	}
	return params, nil
}

// addParameters writes them. What doesn't fit an option is left out.
func (d Dialect) addParameters(o *coap.Options, params *httpgw.Parameters) {
	for i := range options {
		p := &options[i]
		if p.parameter == noParameter || params[p.parameter] == "" {
			continue
		}
		value := params[p.parameter]
		if p.kind == coap.Uint {
			if n, err := strconv.ParseUint(value, 10, 8*min(p.longest, 4)); err == nil {
				o.AddUint(p.numbers[d], uint32(n))
			}
		} else if len(value) <= p.longest {
			o.AddString(p.numbers[d], value)
		}
	}
}

// isPlain reports whether s is of visible US-ASCII characters, and blanks within when it
// may be: what goes through every CSE's hands as it is. One known CSE hands its CoAP
// options on as HTTP headers, and ends when one has another character.
func isPlain(s string, blanks bool) bool {
	if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ' ' && !blanks {
			return false
		}
	}
	return true
}

// JSON content formats. The others than the first are TS-0008's own numbers, which IANA
// knows nothing of.
const (
	formatJSON             = 50
	formatResourceJSON     = 10001
	formatNotificationJSON = 10003
)

func isJSON(format uint32) bool {
	return format == formatJSON || format == formatResourceJSON || format == formatNotificationJSON
}

// mediaTypes are the content formats of what CSEs answer with.
var mediaTypes = []struct {
	format uint32
	name   string
}{
	{formatJSON, "application/json"},
	{0, "text/plain"},
	{41, "application/xml"},
	{60, "application/cbor"},
	{formatResourceJSON, "application/vnd.onem2m-res+json"},
	{formatNotificationJSON, "application/vnd.onem2m-ntfy+json"},
	{10014, "application/vnd.onem2m-res+xml"},
	{10010, "application/vnd.onem2m-res+cbor"},
	{10009, "application/vnd.onem2m-prsp+json"},
}

func mediaType(format uint32) string {
	for _, m := range mediaTypes {
		if m.format == format {
			return m.name
		}
	}
	return ""
}

// isJSONType is isJSON of a media type.
func isJSONType(mediaType string) bool {
	format, ok := contentFormat(mediaType)
	return ok && isJSON(format)
}

func contentFormat(mediaType string) (uint32, bool) {
	for _, m := range mediaTypes {
		if strings.EqualFold(m.name, mediaType) {
			return m.format, true
		}
	}
	return 0, false
}
