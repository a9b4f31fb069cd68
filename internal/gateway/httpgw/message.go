package httpgw

import (
	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

// A Request is a request primitive on its way to the CSE.
type Request struct {
	Operation policy.Operation
	// To is the target in oneM2M's form, see [CheckTo].
	To      string
	From    string
	HasFrom bool
	// ID is the request identifier for the CSE, see [Backend.RequestID].
	ID     string
	Type   int // the resource type of a CREATE, else 0
	Params Parameters
	Query  []QueryParam
	// Content is canonical JSON, as package primitive writes it, or nil.
	Content []byte

	room []byte // in which the content of the answer may be put
}

// A Response is the CSE's answer.
type Response struct {
	Status     onem2m.ResponseStatusCode
	HTTPStatus int // which carried it
	From       string
	Params     Parameters
	// Location is the path of a created resource, without scheme and host, or "".
	Location string
	// ContentType is a media type without parameters, "" when there is no
	// content.
	ContentType string
	Content     []byte
}

// Parameters are the parameters that have a header of their own in TS-0009 and
// no other place in a Request or Response; "" when absent.
type Parameters [parameterCount]string

// A Parameter is an index of Parameters.
type Parameter int

// The parameters, by their names in TS-0001 and their headers.
const (
	ReleaseVersion          Parameter = iota // X-M2M-RVI
	GroupRequestID                           // X-M2M-GID
	NotificationURI                          // X-M2M-RTU
	OriginatingTimestamp                     // X-M2M-OT
	ResultExpiration                         // X-M2M-RST
	RequestExpiration                        // X-M2M-RET
	OperationExecution                       // X-M2M-OET
	EventCategory                            // X-M2M-EC
	VendorInformation                        // X-M2M-VSI
	AuthorizationSignatures                  // X-M2M-AS
	ContentStatus                            // X-M2M-CTS
	ContentOffset                            // X-M2M-CTO
	AssignedTokenIDs                         // X-M2M-ATI
	SignatureRequest                         // X-M2M-ASRI
	parameterCount
)

// parameterHeaders says how each parameter travels. The letter case of a name
// is how it is written to the CSE: one known CSE compares names by case.
var parameterHeaders = [parameterCount]struct {
	name              string
	request, response bool
	longest           int
	blanks            bool // may hold spaces
}{
	// One known CSE copies this into 128 octets of its answer's header.
	ReleaseVersion:          {"X-M2M-RVI", true, true, 16, false},
	GroupRequestID:          {"X-M2M-GID", true, false, 128, false},
	NotificationURI:         {"X-M2M-RTU", true, false, 2048, false},
	OriginatingTimestamp:    {"X-M2M-OT", true, true, 64, false},
	ResultExpiration:        {"X-M2M-RST", true, true, 64, false},
	RequestExpiration:       {"X-M2M-RET", true, false, 64, false},
	OperationExecution:      {"X-M2M-OET", true, false, 64, false},
	EventCategory:           {"X-M2M-EC", true, true, 16, false},
	VendorInformation:       {"X-M2M-VSI", true, true, 512, true},
	AuthorizationSignatures: {"X-M2M-AS", true, false, 2048, false},
	ContentStatus:           {"X-M2M-CTS", false, true, 16, false},
	ContentOffset:           {"X-M2M-CTO", false, true, 32, false},
	AssignedTokenIDs:        {"X-M2M-ATI", false, true, 2048, true},
	SignatureRequest:        {"X-M2M-ASRI", false, true, 2048, true},
}

// parameterOf finds the parameter whose header this is.
func parameterOf(f *http1.Field) (Parameter, bool) {
	const prefix = "X-M2M-"
	if len(f.Name) <= len(prefix) {
		return 0, false
	}
	for p := range parameterCount {
		if f.Is(parameterHeaders[p].name) {
			return p, true
		}
	}
	return 0, false
}

const (
	longestID   = 100 // of request identifiers; see ReleaseVersion above
	longestFrom = 512
)

// isPlain reports whether s is of visible US-ASCII characters, and blanks within
// when it may be. A header of such a value is read alike by everyone. The empty
// string is not plain: one known CSE takes the next line for an empty header's
// value.
func isPlain(s string, longest int, blanks bool) bool {
	if s == "" || len(s) > longest || s[0] == ' ' || s[len(s)-1] == ' ' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ' ' && !blanks {
			return false
		}
	}
	return true
}
