package tlspsk

import (
	"io"
	"net"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A transport carries a session over a stream (TLS) or over datagrams (DTLS).
// The methods down to finishHandshake are called by the one goroutine that
// does the handshake; the others by any.
type transport interface {
	// readMessage returns the next handshake message with its header, as it
	// goes into the transcript. It is valid until the next call.
	readMessage() ([]byte, error)
	// writeMessage adds a handshake message to the flight that flush sends,
	// and returns it with its header, as it goes into the transcript.
	writeMessage(typ wire.MessageType, body []byte) []byte
	// changeWriteProtection adds a ChangeCipherSpec to the flight. What is
	// written after it is protected with p.
	changeWriteProtection(p suite.Protection)
	// changeReadProtection takes the peer's ChangeCipherSpec. What is read
	// after it is protected with p.
	changeReadProtection(p suite.Protection) error
	flush() error
	// version is VersionTLS12 or VersionDTLS12.
	version() uint16
	// headerLen is the length of the header of readMessage's messages.
	headerLen() int
	// setLimits sets the longest plaintext of a record that the peer takes,
	// and that we take. It applies from the next record on.
	setLimits(write, read int)
	// connectionID is what we want in the records that we get (RFC 9146),
	// which may be empty; false means that there is nothing to negotiate.
	// useConnectionIDs says that the peer agreed, and what it wants.
	connectionID() ([]byte, bool)
	useConnectionIDs(peers []byte)
	finishHandshake()

	// sendAlert sends an alert, as far as that is possible at once.
	sendAlert(level uint8, a Alert)
	// abort makes all calls, present and future, fail at once.
	abort()

	read(p []byte) (int, error)
	write(p []byte) (int, error)
	// closeWrite sends close_notify; close does too, then lets go of the
	// network.
	closeWrite() error
	close() error

	setReadDeadline(t time.Time) error
	setWriteDeadline(t time.Time) error
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

const (
	// A ClientHello may be long for its lists of what the client can do; the
	// other messages of a PSK handshake are short.
	maxHello   = 8 << 10
	maxMessage = 2 << 10

	// maxWarnings is how many warning alerts, empty records, renegotiation
	// requests and the like a peer may send in a row before it is dropped:
	// each costs us work and gives us nothing.
	maxWarnings = 16
	// maxRenegotiations is how many requests to renegotiate are answered.
	maxRenegotiations = 3
)

// isHello tells the messages that may be as long as maxHello.
func isHello(typ wire.MessageType) bool {
	return typ == wire.TypeClientHello || typ == wire.TypeServerHello
}

// checkMessageLength refuses a handshake message that is too long, before it
// is buffered.
func checkMessageLength(typ wire.MessageType, n int) error {
	limit := maxMessage
	if isHello(typ) {
		limit = maxHello
	}
	if n > limit {
		return fail(AlertIllegalParameter, "handshake message of type %d with %d octets, more than %d", typ, n, limit)
	}
	return nil
}

// parseAlert reads the content of an alert record. Exactly one alert may be in
// it: fragmented or coalesced ones serve nobody but attackers.
func parseAlert(b []byte) (level uint8, a Alert, err error) {
	if len(b) != 2 || b[0] != alertLevelWarning && b[0] != alertLevelFatal {
		return 0, 0, fail(AlertDecodeError, "malformed alert")
	}
	return b[0], Alert(b[1]), nil
}

// renegotiationRequest reports whether the peer of an endpoint asks for a
// renegotiation by sending a handshake message of this type.
func renegotiationRequest(isClient bool, typ wire.MessageType) bool {
	if isClient {
		return typ == wire.TypeHelloRequest
	}
	return typ == wire.TypeClientHello
}

// errShutdown is what Write returns once close_notify is sent.
var errShutdown = io.ErrClosedPipe
