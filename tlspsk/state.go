package tlspsk

import (
	"errors"
	"net"
	"sync"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
)

// ConnectionState is what a connection knows of its session.
type ConnectionState struct {
	Version           uint16 // VersionTLS12 or VersionDTLS12
	CipherSuite       uint16
	HandshakeComplete bool
	// ServerName is the server_name that the client sent, or "".
	ServerName string
	// Identity is the client's psk_identity. On servers it is authenticated
	// once HandshakeComplete is set, and already in VerifyConnection.
	Identity []byte
	// IdentityHint is the psk_identity_hint that the client got.
	IdentityHint []byte
	// PSKData is the Data of the PSK that GetPSK returned.
	PSKData              any
	ExtendedMasterSecret bool
	EncryptThenMAC       bool
	// ConnectionID says that the client's records carry a connection ID, so
	// that the session outlives a change of its address.
	ConnectionID bool
	// CurveID is the group of an ECDHE_PSK key exchange, or 0.
	CurveID               CurveID
	LocalAddr, RemoteAddr net.Addr

	exporter *exporter
}

// ExportKeyingMaterial returns length octets derived from the session by the
// exporter of RFC 5705. A nil context is no context, which differs from an
// empty one. It works in VerifyConnection and, until the connection is closed,
// on every state of a completed handshake.
//
// Without the extended master secret, keying material can be equal in two
// sessions that an active attacker has synchronised (RFC 7627 section 1);
// require it where that matters.
func (cs *ConnectionState) ExportKeyingMaterial(label string, context []byte, length int) ([]byte, error) {
	switch {
	case cs.exporter == nil:
		return nil, errors.New("tlspsk: nothing to export before the handshake is complete")
	case reservedLabel(label):
		return nil, errors.New("tlspsk: label is one of TLS's own (RFC 5705 section 4): " + label)
	case len(context) > 1<<16-1:
		return nil, errors.New("tlspsk: context longer than 65535 octets")
	case length < 0:
		return nil, errors.New("tlspsk: negative length")
	}
	return cs.exporter.export(label, context, length)
}

// reservedLabel reports the labels under which TLS derives its own secrets:
// exporting with one of them would reveal those.
func reservedLabel(label string) bool {
	switch label {
	case "client finished", "server finished", "master secret", "extended master secret", "key expansion":
		return true
	}
	return false
}

// An exporter holds the master secret of a session, keyed into its PRF.
type exporter struct {
	mu           sync.Mutex
	prf          *suite.PRF // guarded by mu; nil once closed
	clientRandom [suite.RandomLen]byte
	serverRandom [suite.RandomLen]byte
}

func (e *exporter) export(label string, context []byte, length int) ([]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.prf == nil {
		return nil, errors.New("tlspsk: nothing to export from a closed connection")
	}
	out := make([]byte, length)
	suite.Export(e.prf, out, label, context, e.clientRandom[:], e.serverRandom[:])
	return out, nil
}

// close forgets the master secret. There is none in a nil exporter.
func (e *exporter) close() {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.prf = nil
}
