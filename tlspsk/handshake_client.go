package tlspsk

import (
	"errors"
	"io"
	"slices"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// client does the client's side of the handshake; server shows the messages.
func (h *handshaker) client() error {
	hello, err := h.makeHello()
	if err != nil {
		return err
	}
	if err := h.exchangeHellos(hello); err != nil {
		return err
	}
	keyExchange, err := h.readServerFlight()
	if err != nil {
		return err
	}
	if err := h.writeClientKeyExchange(keyExchange); err != nil {
		return err
	}
	h.writeFinished(h.finished())
	if err := h.t.flush(); err != nil {
		return err
	}
	if err := h.readFinished(); err != nil {
		return err
	}
	return h.verifyConnection()
}

func (h *handshaker) makeHello() (*wire.ClientHello, error) {
	if _, err := io.ReadFull(h.rand, h.clientRandom[:]); err != nil {
		return nil, err
	}
	hello := &wire.ClientHello{Version: h.version(), Random: h.clientRandom[:]}
	var ecdhe, cbc bool
	for _, id := range h.config.cipherSuites() {
		s := suite.ByID(id)
		if s.ECDHE && len(h.config.curves()) == 0 {
			continue
		}
		ecdhe, cbc = ecdhe || s.ECDHE, cbc || s.CBC()
		hello.CipherSuites = append(hello.CipherSuites, id)
	}
	if len(hello.CipherSuites) == 0 {
		return nil, errors.New("tlspsk: Config.CipherSuites has ECDHE_PSK only, and Config.CurvePreferences no curve")
	}
	e := &hello.Extensions
	e.ServerName, e.HasServerName = h.config.ServerName, h.config.ServerName != ""
	e.HasRenegotiationInfo = true
	e.ExtendedMasterSecret = h.config.ExtendedMasterSecret != PolicyDisable
	e.EncryptThenMAC = cbc && h.config.EncryptThenMAC != PolicyDisable
	if ecdhe {
		for _, g := range h.config.curves() {
			e.SupportedGroups = append(e.SupportedGroups, uint16(g))
		}
		e.PointFormats = true
	}
	e.ConnectionID, e.HasConnectionID = h.t.connectionID()
	e.MaxFragmentLength = fragmentLengthCode(h.config.MaxFragmentLength)
	if h.config.RecordSizeLimit != 0 {
		e.HasRecordSizeLimit, e.RecordSizeLimit = true, uint16(h.config.RecordSizeLimit)
	}
	h.state.ServerName = h.config.ServerName
	h.state.Identity = slices.Clone(h.config.Identity)
	return hello, nil
}

// maxVerifyRequests is how often a server may ask for a cookie. A second time
// happens when the secret behind the first cookie has just been replaced.
const maxVerifyRequests = 2

// exchangeHellos sends the ClientHello, again with the cookie when a DTLS
// server asks for one, and takes the ServerHello.
func (h *handshaker) exchangeHellos(hello *wire.ClientHello) error {
	for requests := 0; ; requests++ {
		h.write(wire.TypeClientHello, hello.Marshal(h.dtls))
		if err := h.t.flush(); err != nil {
			return err
		}
		types := []wire.MessageType{wire.TypeServerHello}
		if h.dtls && requests < maxVerifyRequests {
			types = append(types, wire.TypeHelloVerifyRequest)
		}
		typ, body, err := h.read(true, types...)
		if err != nil {
			return err
		}
		if typ == wire.TypeServerHello {
			return h.takeServerHello(hello, body)
		}
		var verify wire.HelloVerifyRequest
		if err := verify.Parse(body); err != nil {
			return malformed("HelloVerifyRequest", err)
		}
		hello.Cookie = slices.Clone(verify.Cookie)
		h.transcript.reset()
	}
}

// takeServerHello checks that the server chose from what hello offers.
func (h *handshaker) takeServerHello(hello *wire.ClientHello, body []byte) error {
	var answer wire.ServerHello
	if err := answer.Parse(body); err != nil {
		return malformed("ServerHello", err)
	}
	if answer.Version != h.version() {
		return fail(AlertProtocolVersion, "the server chose version 0x%04x", answer.Version)
	}
	if answer.Compression != 0 || !slices.Contains(hello.CipherSuites, answer.CipherSuite) {
		return fail(AlertIllegalParameter, "the server chose what was not offered: suite 0x%04X, compression %d", answer.CipherSuite, answer.Compression)
	}
	copy(h.serverRandom[:], answer.Random)
	h.suite = suite.ByID(answer.CipherSuite)
	h.transcript.start(h.suite)
	h.state.CipherSuite = h.suite.ID
	return h.takeExtensions(hello, &answer.Extensions)
}

// takeExtensions checks the extensions of the ServerHello, which may only be
// answers to hello's (RFC 5246 section 7.4.1.4).
func (h *handshaker) takeExtensions(hello *wire.ClientHello, e *wire.Extensions) error {
	if e.Unknown || e.SupportedGroups != nil ||
		e.HasServerName && !hello.HasServerName ||
		e.ExtendedMasterSecret && !hello.ExtendedMasterSecret ||
		e.EncryptThenMAC && !hello.EncryptThenMAC ||
		e.PointFormats && !hello.PointFormats ||
		e.MaxFragmentLength != 0 && hello.MaxFragmentLength == 0 ||
		e.HasConnectionID && !hello.HasConnectionID ||
		e.HasRecordSizeLimit && !hello.HasRecordSizeLimit {
		return fail(AlertUnsupportedExtension, "the server sent an extension that was not asked for")
	}
	if e.MaxFragmentLength != 0 && e.MaxFragmentLength != hello.MaxFragmentLength || // RFC 6066 section 4
		e.MaxFragmentLength != 0 && e.HasRecordSizeLimit || // RFC 8449 section 5
		e.EncryptThenMAC && !h.suite.CBC() { // RFC 7366 section 3
		return fail(AlertIllegalParameter, "the server's extensions contradict ours or its suite")
	}
	if e.PointFormats && !e.Uncompressed {
		return fail(AlertIllegalParameter, "the server does not take uncompressed points") // RFC 8422 section 5.2
	}
	if len(e.RenegotiationInfo) != 0 {
		return fail(AlertHandshakeFailure, "renegotiation_info is not empty in a first handshake") // RFC 5746 section 3.4
	}
	if h.config.ExtendedMasterSecret == PolicyRequire && !e.ExtendedMasterSecret {
		return fail(AlertHandshakeFailure, "the server lacks the extended master secret, which is required here")
	}
	if h.suite.CBC() && h.config.EncryptThenMAC == PolicyRequire && !e.EncryptThenMAC {
		return fail(AlertHandshakeFailure, "the server lacks encrypt-then-MAC, which is required here")
	}
	if h.dtls && h.config.ConnectionID == PolicyRequire && len(e.ConnectionID) == 0 {
		return fail(AlertHandshakeFailure, "the server lacks connection IDs, which are required here")
	}
	if e.HasConnectionID {
		h.useConnectionIDs(hello.ConnectionID, e.ConnectionID)
	}
	h.state.ExtendedMasterSecret = e.ExtendedMasterSecret
	h.state.EncryptThenMAC = e.EncryptThenMAC
	return h.applyLimits(&hello.Extensions, e)
}

// readServerFlight reads up to ServerHelloDone and returns the
// ServerKeyExchange, which plain PSK may do without.
func (h *handshaker) readServerFlight() (m wire.ServerKeyExchange, err error) {
	types := []wire.MessageType{wire.TypeServerKeyExchange}
	if !h.suite.ECDHE {
		types = append(types, wire.TypeServerHelloDone)
	}
	typ, body, err := h.read(true, types...)
	if err != nil {
		return m, err
	}
	if typ == wire.TypeServerKeyExchange {
		if err := m.Parse(body, h.suite.ECDHE); err != nil {
			return m, malformed("ServerKeyExchange", err)
		}
		m.Hint, m.PublicKey = slices.Clone(m.Hint), slices.Clone(m.PublicKey)
		h.state.IdentityHint = m.Hint
		if _, body, err = h.read(true, wire.TypeServerHelloDone); err != nil {
			return m, err
		}
	}
	if len(body) != 0 {
		return m, fail(AlertDecodeError, "ServerHelloDone is not empty")
	}
	return m, nil
}

// writeClientKeyExchange adds the ClientKeyExchange to the flight and derives
// the session's keys.
func (h *handshaker) writeClientKeyExchange(server wire.ServerKeyExchange) error {
	m := wire.ClientKeyExchange{Identity: h.config.Identity}
	var shared []byte
	if h.suite.ECDHE {
		group := CurveID(server.Group)
		if !slices.Contains(h.config.curves(), group) {
			return fail(AlertIllegalParameter, "the server chose %v, which was not offered", group)
		}
		key, err := h.ephemeralKey(group)
		if err != nil {
			return callbackError("ephemeral key", err)
		}
		if shared, err = sharedSecret(key, server.PublicKey); err != nil {
			return err
		}
		m.PublicKey = key.PublicKey().Bytes()
		h.state.CurveID = group
	}
	defer clear(shared)
	h.write(wire.TypeClientKeyExchange, m.Marshal(h.suite.ECDHE))
	return h.deriveKeys(h.config.Key, shared)
}
