package tlspsk

import (
	"errors"
	"fmt"
)

// An Alert is the description of a TLS alert (RFC 5246 section 7.2, with the
// additions of RFC 4279, 5746, 6066, 7507). It is an error, so that a callback
// can choose the alert that the peer gets by returning it, or an error that
// wraps it.
type Alert uint8

// The alerts that this package sends or that its peers may send.
const (
	AlertCloseNotify           Alert = 0
	AlertUnexpectedMessage     Alert = 10
	AlertBadRecordMAC          Alert = 20
	AlertRecordOverflow        Alert = 22
	AlertDecompressionFailure  Alert = 30
	AlertHandshakeFailure      Alert = 40
	AlertIllegalParameter      Alert = 47
	AlertAccessDenied          Alert = 49
	AlertDecodeError           Alert = 50
	AlertDecryptError          Alert = 51
	AlertProtocolVersion       Alert = 70
	AlertInsufficientSecurity  Alert = 71
	AlertInternalError         Alert = 80
	AlertInappropriateFallback Alert = 86
	AlertUserCanceled          Alert = 90
	AlertNoRenegotiation       Alert = 100
	AlertUnsupportedExtension  Alert = 110
	AlertUnrecognizedName      Alert = 112
	AlertUnknownPSKIdentity    Alert = 115
	alertLevelWarning          uint8 = 1
	alertLevelFatal            uint8 = 2
)

// String returns the alert's name in the standard, such as "bad_record_mac".
func (a Alert) String() string {
	switch a {
	case AlertCloseNotify:
		return "close_notify"
	case AlertUnexpectedMessage:
		return "unexpected_message"
	case AlertBadRecordMAC:
		return "bad_record_mac"
	case AlertRecordOverflow:
		return "record_overflow"
	case AlertDecompressionFailure:
		return "decompression_failure"
	case AlertHandshakeFailure:
		return "handshake_failure"
	case AlertIllegalParameter:
		return "illegal_parameter"
	case AlertAccessDenied:
		return "access_denied"
	case AlertDecodeError:
		return "decode_error"
	case AlertDecryptError:
		return "decrypt_error"
	case AlertProtocolVersion:
		return "protocol_version"
	case AlertInsufficientSecurity:
		return "insufficient_security"
	case AlertInternalError:
		return "internal_error"
	case AlertInappropriateFallback:
		return "inappropriate_fallback"
	case AlertUserCanceled:
		return "user_canceled"
	case AlertNoRenegotiation:
		return "no_renegotiation"
	case AlertUnsupportedExtension:
		return "unsupported_extension"
	case AlertUnrecognizedName:
		return "unrecognized_name"
	case AlertUnknownPSKIdentity:
		return "unknown_psk_identity"
	}
	return fmt.Sprintf("alert(%d)", uint8(a))
}

// Error returns the alert's name.
func (a Alert) Error() string { return "tls: " + a.String() }

// An AlertError says that a session ended, or never came to be, with an alert.
type AlertError struct {
	Alert Alert
	// Remote says that the peer sent the alert. Otherwise we found the fault,
	// and sent it.
	Remote bool
	// Err says what was wrong when we found the fault. It may hold what the
	// peer must not learn, such as that an identity is unknown: it is for logs
	// on this side. It is nil when Remote is set.
	Err error
}

// Error says which side failed, with which alert, and why.
func (e *AlertError) Error() string {
	if e.Remote {
		return "tlspsk: the peer refused: " + e.Alert.String()
	}
	if e.Err == nil {
		return "tlspsk: " + e.Alert.String()
	}
	return fmt.Sprintf("tlspsk: %v (sent %s)", e.Err, e.Alert)
}

// Unwrap returns Err and the alert, so that errors.Is(err, AlertDecodeError)
// works as well.
func (e *AlertError) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Alert}
	}
	return []error{e.Err, e.Alert}
}

// ErrUnknownIdentity is what a server's GetPSK returns, or wraps, when there
// is no key for the identity. The peer can't tell it from a wrong key: the
// handshake goes on with a random key until the peer's Finished fails.
var ErrUnknownIdentity = errors.New("unknown PSK identity")

// ErrTooLarge is returned when more is written to a DTLS connection at once
// than fits in one record.
var ErrTooLarge = errors.New("tlspsk: more than one DTLS record can carry")

// fail returns the error of a fault that we found in what the peer sent.
func fail(a Alert, format string, args ...any) error {
	return &AlertError{Alert: a, Err: fmt.Errorf(format, args...)}
}

// alertFor returns the alert to send for an error of our side, and false when
// there is none to send: the peer told us, or the transport is gone.
func alertFor(err error) (Alert, bool) {
	var ae *AlertError
	if errors.As(err, &ae) {
		return ae.Alert, !ae.Remote
	}
	return 0, false
}
