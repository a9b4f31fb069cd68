package onem2m

import "strconv"

// ResponseStatusCode is a oneM2M response status code (TS-0004 6.6). It travels
// as a number.
type ResponseStatusCode int

// The codes that this project answers with or has to understand.
const (
	StatusAccepted                    ResponseStatusCode = 1000
	StatusOK                          ResponseStatusCode = 2000
	StatusCreated                     ResponseStatusCode = 2001
	StatusDeleted                     ResponseStatusCode = 2002
	StatusUpdated                     ResponseStatusCode = 2004
	StatusBadRequest                  ResponseStatusCode = 4000
	StatusNotFound                    ResponseStatusCode = 4004
	StatusOperationNotAllowed         ResponseStatusCode = 4005
	StatusOriginatorHasNoPrivilege    ResponseStatusCode = 4103
	StatusOriginatorNotAuthenticated  ResponseStatusCode = 4106
	StatusSecurityAssociationRequired ResponseStatusCode = 4107
	StatusInternalServerError         ResponseStatusCode = 5000
	StatusNotImplemented              ResponseStatusCode = 5001
)

// String returns the number.
func (c ResponseStatusCode) String() string { return strconv.Itoa(int(c)) }
