package coapgw

import (
	"strconv"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

// Codes that only this binding answers with.
const (
	statusReleaseVersionNotSupported onem2m.ResponseStatusCode = 4001
	statusUnsupportedMediaType       onem2m.ResponseStatusCode = 4015
	statusNotAcceptable              onem2m.ResponseStatusCode = 5207
)

// codeOf returns the response code that carries a status (TS-0008 table 6.2.4-1).
func codeOf(status onem2m.ResponseStatusCode, operation policy.Operation) coap.Code {
	switch status {
	case onem2m.StatusOK:
		if operation == policy.Notify {
			return coap.Changed
		}
		return coap.Content
	case 1001, 1002, onem2m.StatusCreated:
		return coap.Created
	case onem2m.StatusDeleted:
		return coap.Deleted
	case onem2m.StatusUpdated:
		return coap.Changed
	case onem2m.StatusBadRequest, onem2m.StatusContentsUnacceptable, 4104, 4110, 4123, 4124, 4143, 5106, 5219, 5220,
		6010, 6022, 6023, 6024, 6028, 6029:
		return coap.BadRequest
	case 4120, 4122:
		return coap.BadOption
	case 4101, onem2m.StatusOriginatorHasNoPrivilege, 4105, onem2m.StatusOriginatorNotAuthenticated,
		onem2m.StatusSecurityAssociationRequired, 4108, 4109, 4111, 4112, 4113, 4114, 4115, 4116, 4117,
		onem2m.StatusAppRuleValidationFailed, 4127, 5105, 5203, 5205, 5208, 5214, 5215, 5218, 5222:
		return coap.Forbidden
	case onem2m.StatusNotFound, 4118, 4119, 4121, onem2m.StatusTargetNotReachable, 5107, 6003, 6005:
		return coap.NotFound
	case onem2m.StatusOperationNotAllowed:
		return coap.MethodNotAllowed
	case statusNotAcceptable:
		return coap.NotAcceptable
	case statusUnsupportedMediaType:
		return coap.UnsupportedContentFormat
	case statusReleaseVersionNotSupported, onem2m.StatusNotImplemented, 4125, 5206:
		return coap.NotImplemented
	case onem2m.StatusRequestTimeout, 6030, 6031:
		return coap.GatewayTimeout
	}
	return coap.InternalServerError
}

// statusOf returns the status that an answer carries in its option, or else the one that
// its code stands for; 0 when that is none.
func statusOf(m *coap.Message, d Dialect, operation policy.Operation) onem2m.ResponseStatusCode {
	if value, ok := m.Options.Get(d.number(statusCode)); ok {
		n, _ := m.Options.Uint(d.number(statusCode))
		if len(value) == 4 {
			// One known CSE writes the number as text.
			text, err := strconv.ParseUint(string(value), 10, 16)
			if err != nil {
				return 0
			}
			n = uint32(text)
		}
		if n < 1000 || n > 9999 {
			return 0
		}
		return onem2m.ResponseStatusCode(n)
	}
	switch m.Code {
	case coap.Created:
		return onem2m.StatusCreated
	case coap.Deleted:
		return onem2m.StatusDeleted
	case coap.Changed:
		if operation == policy.Notify {
			return onem2m.StatusOK
		}
		return onem2m.StatusUpdated
	case coap.Content:
		return onem2m.StatusOK
	case coap.BadRequest, coap.BadOption, coap.RequestEntityIncomplete, coap.RequestEntityTooLarge:
		return onem2m.StatusBadRequest
	case coap.Forbidden:
		return onem2m.StatusOriginatorHasNoPrivilege
	case coap.NotFound:
		return onem2m.StatusNotFound
	case coap.MethodNotAllowed:
		return onem2m.StatusOperationNotAllowed
	case coap.NotAcceptable:
		return statusNotAcceptable
	case coap.UnsupportedContentFormat:
		return statusUnsupportedMediaType
	case coap.NotImplemented:
		return onem2m.StatusNotImplemented
	case coap.GatewayTimeout:
		return onem2m.StatusRequestTimeout
	case coap.ServiceUnavailable, coap.BadGateway:
		return onem2m.StatusTargetNotReachable
	}
	return onem2m.StatusInternalServerError
}
