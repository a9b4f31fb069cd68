package onem2m

import "strconv"

// ResponseStatusCode is a oneM2M response status code (TS-0004 6.6.3). It
// travels as a number.
type ResponseStatusCode int

// The codes that a gateway in front of a CSE answers with or acts on. CSEs know
// many more, which pass through as numbers.
const (
	StatusOK                          ResponseStatusCode = 2000
	StatusCreated                     ResponseStatusCode = 2001
	StatusDeleted                     ResponseStatusCode = 2002
	StatusUpdated                     ResponseStatusCode = 2004
	StatusBadRequest                  ResponseStatusCode = 4000
	StatusNotFound                    ResponseStatusCode = 4004
	StatusOperationNotAllowed         ResponseStatusCode = 4005
	StatusRequestTimeout              ResponseStatusCode = 4008
	StatusContentsUnacceptable        ResponseStatusCode = 4102
	StatusOriginatorHasNoPrivilege    ResponseStatusCode = 4103
	StatusOriginatorNotAuthenticated  ResponseStatusCode = 4106
	StatusSecurityAssociationRequired ResponseStatusCode = 4107
	StatusAppRuleValidationFailed     ResponseStatusCode = 4126
	StatusInternalServerError         ResponseStatusCode = 5000
	StatusNotImplemented              ResponseStatusCode = 5001
	StatusTargetNotReachable          ResponseStatusCode = 5103
)

// bindings is how a code shows in the protocols that carry it.
type bindings struct {
	name string // TS-0004 table 6.6.3
	http int    // TS-0009 table 6.3.2-1
	coap int    // TS-0008 table 6.2.4-1: 403 is 4.03
}

func (c ResponseStatusCode) bindings() bindings {
	switch c {
	case StatusOK:
		return bindings{"OK", 200, 205} // in answer to RETRIEVE; 2.04 to NOTIFY
	case StatusCreated:
		return bindings{"CREATED", 201, 201}
	case StatusDeleted:
		return bindings{"DELETED", 200, 202}
	case StatusUpdated:
		return bindings{"UPDATED", 200, 204}
	case StatusBadRequest:
		return bindings{"BAD_REQUEST", 400, 400}
	case StatusNotFound:
		return bindings{"NOT_FOUND", 404, 404}
	case StatusOperationNotAllowed:
		return bindings{"OPERATION_NOT_ALLOWED", 405, 405}
	case StatusRequestTimeout:
		return bindings{"REQUEST_TIMEOUT", 504, 504}
	case StatusContentsUnacceptable:
		return bindings{"CONTENTS_UNACCEPTABLE", 400, 400}
	case StatusOriginatorHasNoPrivilege:
		return bindings{"ORIGINATOR_HAS_NO_PRIVILEGE", 403, 403}
	case StatusOriginatorNotAuthenticated:
		return bindings{"ORIGINATOR_NOT_AUTHENTICATED", 403, 403}
	case StatusSecurityAssociationRequired:
		return bindings{"SECURITY_ASSOCIATION_REQUIRED", 403, 403}
	case StatusAppRuleValidationFailed:
		return bindings{"APP_RULE_VALIDATION_FAILED", 403, 403}
	case StatusNotImplemented:
		return bindings{"NOT_IMPLEMENTED", 501, 501}
	case StatusTargetNotReachable:
		return bindings{"TARGET_NOT_REACHABLE", 404, 404}
	}
	// Also for codes without a name here: what the other side can do nothing
	// about.
	return bindings{"INTERNAL_SERVER_ERROR", 500, 500}
}

// String returns the number and, when it has one here, the standard's name:
// "4106 ORIGINATOR_NOT_AUTHENTICATED".
func (c ResponseStatusCode) String() string {
	number := strconv.Itoa(int(c))
	b := c.bindings()
	if b.http == 500 && c != StatusInternalServerError {
		return number
	}
	return number + " " + b.name
}

// HTTPStatus returns the HTTP status that carries the code (TS-0009 6.3.2), or
// 500 when the code has no name in this package.
func (c ResponseStatusCode) HTTPStatus() int { return c.bindings().http }

// CoAPCode returns the CoAP response code that carries the code (TS-0008
// 6.2.4) in CoAP's own form, class<<5|detail, or 5.00 when the code has no name
// in this package. For StatusOK it is 2.05, the answer to RETRIEVE; the answer
// to NOTIFY is 2.04.
func (c ResponseStatusCode) CoAPCode() uint8 {
	coap := c.bindings().coap
	return uint8(coap/100<<5 | coap%100)
}
