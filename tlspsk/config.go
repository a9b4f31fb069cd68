package tlspsk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// The versions that ConnectionState reports.
const (
	VersionTLS12  = wire.VersionTLS12
	VersionDTLS12 = wire.VersionDTLS12
)

// The cipher suites, by their identifiers in the IANA registry.
const (
	TLS_PSK_WITH_AES_128_GCM_SHA256             = suite.PSK_AES_128_GCM_SHA256
	TLS_PSK_WITH_AES_256_GCM_SHA384             = suite.PSK_AES_256_GCM_SHA384
	TLS_PSK_WITH_AES_128_CBC_SHA256             = suite.PSK_AES_128_CBC_SHA256
	TLS_PSK_WITH_AES_128_CCM                    = suite.PSK_AES_128_CCM
	TLS_PSK_WITH_AES_128_CCM_8                  = suite.PSK_AES_128_CCM_8
	TLS_PSK_WITH_CHACHA20_POLY1305_SHA256       = suite.PSK_CHACHA20_POLY1305
	TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256       = suite.ECDHE_PSK_AES_128_CBC_SHA256
	TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256       = suite.ECDHE_PSK_AES_128_GCM_SHA256
	TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256       = suite.ECDHE_PSK_AES_128_CCM_SHA256
	TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 = suite.ECDHE_PSK_CHACHA20_POLY1305
)

// A CipherSuite is the identifier and the registered name of a suite.
type CipherSuite struct {
	ID   uint16
	Name string
	// ForwardSecret suites exchange ephemeral keys, so that a pre-shared key
	// that is stolen later does not open recorded sessions.
	ForwardSecret bool
}

// CipherSuites lists the suites that this package has, in the order in which
// it prefers them when Config.CipherSuites is nil.
func CipherSuites() []CipherSuite {
	var list []CipherSuite
	for _, id := range suite.Preferred() {
		s := suite.ByID(id)
		list = append(list, CipherSuite{s.ID, s.Name, s.ECDHE})
	}
	return list
}

// CipherSuiteName returns a suite's registered name, or its identifier in
// hexadecimal when this package does not have it.
func CipherSuiteName(id uint16) string {
	if s := suite.ByID(id); s != nil {
		return s.Name
	}
	return fmt.Sprintf("0x%04X", id)
}

// A CurveID names a group for ECDHE_PSK, as in RFC 8422.
type CurveID uint16

// The groups that this package has.
const (
	CurveP256 CurveID = 23
	X25519    CurveID = 29
)

// String returns the group's usual name.
func (c CurveID) String() string {
	switch c {
	case CurveP256:
		return "P-256"
	case X25519:
		return "X25519"
	}
	return fmt.Sprintf("CurveID(%d)", uint16(c))
}

// A Policy says how a connection treats a protection that the peer may lack.
type Policy int

const (
	// PolicyPrefer uses it when the peer has it. This is the default.
	PolicyPrefer Policy = iota
	// PolicyRequire refuses peers without it.
	PolicyRequire
	// PolicyDisable goes without, which is for tests.
	PolicyDisable
)

// A PSKRequest is what a server knows of a client when it needs its key.
type PSKRequest struct {
	// Identity is the psk_identity as it came: up to 1024 octets, of any
	// value. It is not authenticated yet.
	Identity []byte
	// ServerName is the server_name (SNI) that the client sent, or "".
	ServerName            string
	LocalAddr, RemoteAddr net.Addr
	Version, CipherSuite  uint16
	ExtendedMasterSecret  bool
}

// A PSK is the answer to a PSKRequest.
type PSK struct {
	// Key is the pre-shared key. It is read before the handshake goes on and
	// not kept.
	Key []byte
	// Data is not looked at; ConnectionState.PSKData hands it on, so that
	// VerifyConnection need not look up again what GetPSK found.
	Data any
}

// A Config says how to be a client or a server. It may be shared by many
// connections and must not be modified once one uses it.
type Config struct {
	// Identity and Key are the client's psk_identity (at most 1024 octets;
	// peers need not take more than 128, RFC 4279 section 5.3) and key.
	Identity []byte
	Key      []byte
	// ServerName is the server_name that the client sends; none when empty.
	ServerName string

	// GetPSK finds the key of a client, and is required on servers. It may be
	// slow: it runs on the goroutine of the handshake, and its context ends
	// with the handshake. When there is no such client it returns an error
	// that wraps ErrUnknownIdentity. Any other error ends the handshake with
	// internal_error, or with the Alert that the error wraps.
	GetPSK func(ctx context.Context, req *PSKRequest) (*PSK, error)

	// IdentityHint is the server's psk_identity_hint, of at most 1024 octets;
	// none when empty.
	IdentityHint []byte

	// VerifyConnection, when not nil, runs once the peer's Finished is
	// verified; on a server that is before its own Finished is sent, so that
	// whatever VerifyConnection has done is done before the client considers
	// the handshake complete. It may be slow, and may export keying material.
	// An error ends the handshake with internal_error, or with the Alert that
	// it wraps.
	VerifyConnection func(ctx context.Context, cs *ConnectionState) error

	// CipherSuites lists the suites to use, in order of preference; the
	// server's order counts. Nil means those of CipherSuites().
	CipherSuites []uint16
	// CurvePreferences lists the groups for ECDHE_PSK, in order of preference.
	// Nil means X25519, then P-256.
	CurvePreferences []CurveID

	// ExtendedMasterSecret (RFC 7627) binds the keys to the whole handshake.
	ExtendedMasterSecret Policy
	// EncryptThenMAC (RFC 7366) applies to the CBC suites.
	EncryptThenMAC Policy

	// ConnectionID (RFC 9146) lets a DTLS session outlive a change of the
	// client's address, as when a NAT forgets it: the client's records then
	// carry a number that the server chose. It has no meaning for TLS.
	ConnectionID Policy

	// MaxFragmentLength, when not 0, is the longest record that the client
	// asks for: 512, 1024, 2048 or 4096 octets (RFC 6066 section 4). It binds
	// both directions.
	MaxFragmentLength int
	// RecordSizeLimit, when not 0, is the longest record that this side takes:
	// 64 to 16384 octets of plaintext (RFC 8449). A client that sets it should
	// not set MaxFragmentLength. Servers with 0 take what they must.
	RecordSizeLimit int

	// HandshakeTimeout bounds a handshake, callbacks included. 0 means 30 s.
	HandshakeTimeout time.Duration

	// RefusalDelay hides from the peer how long a server's GetPSK takes, which
	// may be longer for an identity that does not exist: when the Finished fails,
	// the alert leaves a whole multiple of this time after GetPSK was called.
	// Handshakes that succeed never wait. 0 means 20 ms; negative means none.
	RefusalDelay time.Duration

	// MTU is the size of the largest datagram that DTLS sends during the
	// handshake, in octets of UDP payload. 0 means 1232, which fits every IPv6
	// path. It shrinks when datagrams get no answer.
	MTU int
	// RetransmitTimeout is how long DTLS first waits before it repeats a
	// flight; then it doubles. 0 means 1 s (RFC 6347 section 4.2.4.1).
	RetransmitTimeout time.Duration

	// Rand is the source of randoms and ephemeral keys. Nil means crypto/rand,
	// which is the only right choice outside tests. It is read by as many
	// goroutines as there are handshakes.
	Rand io.Reader
}

const (
	defaultHandshakeTimeout  = 30 * time.Second
	defaultRefusalDelay      = 20 * time.Millisecond
	defaultMTU               = 1232 // 1280 of IPv6, less its header and UDP's
	minMTU                   = 228  // headers, cookie and some room
	minFragment              = 32   // of a handshake message, if the MTU is kept or not
	defaultRetransmitTimeout = time.Second
	maxRetransmitTimeout     = 60 * time.Second // RFC 6347 section 4.2.4.1

	maxIdentity   = 1024
	maxKey        = 1<<16 - 1 // RFC 4279 section 2 writes its length in two octets
	maxServerName = 255
)

func (c *Config) handshakeTimeout() time.Duration {
	if c.HandshakeTimeout > 0 {
		return c.HandshakeTimeout
	}
	return defaultHandshakeTimeout
}

func (c *Config) refusalDelay() time.Duration {
	if c.RefusalDelay == 0 {
		return defaultRefusalDelay
	}
	return c.RefusalDelay
}

func (c *Config) mtu() int {
	if c.MTU > 0 {
		return max(c.MTU, minMTU)
	}
	return defaultMTU
}

func (c *Config) retransmitTimeout() time.Duration {
	if c.RetransmitTimeout > 0 {
		return c.RetransmitTimeout
	}
	return defaultRetransmitTimeout
}

func (c *Config) cipherSuites() []uint16 {
	if c.CipherSuites != nil {
		return c.CipherSuites
	}
	return suite.Preferred()
}

func (c *Config) curves() []CurveID {
	if c.CurvePreferences != nil {
		return c.CurvePreferences
	}
	return []CurveID{X25519, CurveP256}
}

// check refuses configurations that can't work, before any octet is sent.
func (c *Config) check(isClient bool) error {
	for _, id := range c.CipherSuites {
		if suite.ByID(id) == nil {
			return fmt.Errorf("tlspsk: Config.CipherSuites has 0x%04X, which is none of CipherSuites()", id)
		}
	}
	for _, g := range c.CurvePreferences {
		if curve(g) == nil {
			return fmt.Errorf("tlspsk: Config.CurvePreferences has %v, which is neither X25519 nor P-256", g)
		}
	}
	if c.RecordSizeLimit != 0 && (c.RecordSizeLimit < minRecordSizeLimit || c.RecordSizeLimit > wire.MaxPlaintext) {
		return errors.New("tlspsk: Config.RecordSizeLimit is not within 64 to 16384")
	}
	if c.CipherSuites != nil && len(c.CipherSuites) == 0 {
		return errors.New("tlspsk: Config.CipherSuites is empty, but not nil")
	}
	if !isClient {
		switch {
		case c.GetPSK == nil:
			return errors.New("tlspsk: a server needs Config.GetPSK")
		case len(c.IdentityHint) > maxIdentity:
			return errors.New("tlspsk: Config.IdentityHint is longer than 1024 octets")
		}
		return nil
	}
	switch {
	case len(c.Key) == 0:
		return errors.New("tlspsk: a client needs Config.Key")
	case len(c.Key) > maxKey:
		return errors.New("tlspsk: Config.Key is longer than 65535 octets")
	case len(c.Identity) > maxIdentity:
		return errors.New("tlspsk: Config.Identity is longer than 1024 octets")
	case len(c.ServerName) > maxServerName:
		return errors.New("tlspsk: Config.ServerName is longer than 255 octets")
	case c.MaxFragmentLength != 0 && fragmentLengthCode(c.MaxFragmentLength) == 0:
		return errors.New("tlspsk: Config.MaxFragmentLength is none of 512, 1024, 2048 and 4096")
	}
	return nil
}

const minRecordSizeLimit = 64 // RFC 8449 section 4

// fragmentLengthCode returns the code of RFC 6066 section 4 for a length, or
// 0 when it has none.
func fragmentLengthCode(n int) uint8 {
	for code := uint8(1); code <= 4; code++ {
		if fragmentLength(code) == n {
			return code
		}
	}
	return 0
}

// fragmentLength is the length behind a code of RFC 6066 section 4.
func fragmentLength(code uint8) int { return 256 << code }
