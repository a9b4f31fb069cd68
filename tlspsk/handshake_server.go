package tlspsk

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// Signalling cipher suite values.
const (
	scsvRenegotiation uint16 = 0x00ff // RFC 5746 section 3.3
)

// server does the server's side of the handshake:
//
//	ClientHello        -->
//	                   <--  ServerHello, [ServerKeyExchange,] ServerHelloDone
//	ClientKeyExchange,
//	[ChangeCipherSpec],
//	Finished           -->
//	                        (VerifyConnection)
//	                   <--  [ChangeCipherSpec], Finished
func (h *handshaker) server() error {
	var hello wire.ClientHello
	_, body, err := h.read(true, wire.TypeClientHello)
	if err != nil {
		return err
	}
	if err := hello.Parse(body, h.dtls); err != nil {
		return malformed("ClientHello", err)
	}
	key, err := h.answerHello(&hello)
	if err != nil {
		return err
	}
	shared, err := h.readClientKeyExchange(key)
	if err != nil {
		return err
	}
	lookUpBegan := time.Now()
	unknown, err := h.lookUp(shared)
	if err != nil {
		return err
	}
	err = h.readFinished()
	if err == nil && unknown != nil {
		// Nobody can know a random key. But if he could, he would get in here.
		err = &AlertError{Alert: AlertBadRecordMAC}
	}
	if err != nil {
		h.delayRefusal(lookUpBegan)
		return unknownIdentity(unknown, err)
	}
	finished := h.finished()
	if err := h.verifyConnection(); err != nil {
		return err
	}
	h.writeFinished(finished)
	return h.t.flush()
}

// delayRefusal waits for a whole multiple of Config.RefusalDelay after the
// lookup of the key began. A lookup finds some identities in memory, looks for
// others on a disk, and for those that do not exist everywhere: an attacker near
// enough could list the clients by the time of the alert.
func (h *handshaker) delayRefusal(since time.Time) {
	delay := h.config.refusalDelay()
	if delay <= 0 {
		return
	}
	timer := time.NewTimer(delay - time.Since(since)%delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-h.ctx.Done():
	}
}

// unknownIdentity replaces the error of a Finished that could not be right,
// because the identity is unknown, by the reason why it is. The alert stays.
func unknownIdentity(unknown, err error) error {
	var ae *AlertError
	if !errors.As(err, &ae) || ae.Remote {
		return err
	}
	// The alert is not sent yet: what is done for the unknown is done for all.
	reason := ae.Err
	if unknown != nil {
		reason = unknown
	}
	return &AlertError{Alert: ae.Alert, Err: reason}
}

// answerHello chooses the parameters of the session and sends the server's
// first flight. It returns the ephemeral key of an ECDHE_PSK exchange.
func (h *handshaker) answerHello(hello *wire.ClientHello) (*ecdh.PrivateKey, error) {
	if err := h.checkHello(hello); err != nil {
		return nil, err
	}
	group := h.chooseGroup(hello)
	if err := h.chooseSuite(hello, group); err != nil {
		return nil, err
	}
	copy(h.clientRandom[:], hello.Random)
	if _, err := io.ReadFull(h.rand, h.serverRandom[:]); err != nil {
		return nil, callbackError("Config.Rand", err)
	}
	h.state.ServerName = hello.ServerName

	answer := wire.ServerHello{Version: h.version(), Random: h.serverRandom[:], CipherSuite: h.suite.ID}
	h.answerExtensions(hello, &answer.Extensions)
	if err := h.applyLimits(&hello.Extensions, &answer.Extensions); err != nil {
		return nil, err
	}
	h.transcript.start(h.suite)
	h.write(wire.TypeServerHello, answer.Marshal())
	key, err := h.writeServerKeyExchange(group)
	if err != nil {
		return nil, err
	}
	h.write(wire.TypeServerHelloDone, nil)
	return key, h.t.flush()
}

// checkHello refuses hellos that no choice of ours can serve.
func (h *handshaker) checkHello(hello *wire.ClientHello) error {
	if !h.offersVersion(hello) {
		return fail(AlertProtocolVersion, "the client offers neither TLS 1.2 nor DTLS 1.2 (its version is 0x%04x)", hello.Version)
	}
	if !hello.NullCompression {
		return fail(AlertIllegalParameter, "the client does not offer the null compression method")
	}
	if hello.PointFormats && !hello.Uncompressed {
		return fail(AlertIllegalParameter, "the client does not offer uncompressed points") // RFC 8422 section 5.1.2
	}
	if len(hello.RenegotiationInfo) != 0 {
		return fail(AlertHandshakeFailure, "renegotiation_info is not empty in a first handshake") // RFC 5746 section 3.6
	}
	if h.config.ExtendedMasterSecret == PolicyRequire && !hello.ExtendedMasterSecret {
		return fail(AlertHandshakeFailure, "the client lacks the extended master secret, which is required here")
	}
	if h.dtls && h.config.ConnectionID == PolicyRequire && !hello.HasConnectionID {
		return fail(AlertHandshakeFailure, "the client lacks connection IDs, which are required here")
	}
	if hello.HasRecordSizeLimit && hello.RecordSizeLimit < minRecordSizeLimit {
		return fail(AlertIllegalParameter, "record_size_limit of less than 64") // RFC 8449 section 4
	}
	if hello.MaxFragmentLength > 4 {
		return fail(AlertIllegalParameter, "unknown max_fragment_length") // RFC 6066 section 4
	}
	return nil
}

// offersVersion reports whether the client can speak our version: it says so
// in supported_versions (RFC 8446 section 4.2.1), or else by its highest
// version. DTLS versions count downwards.
func (h *handshaker) offersVersion(hello *wire.ClientHello) bool {
	if hello.SupportedVersions != nil {
		return slices.Contains(hello.SupportedVersions, h.version())
	}
	if h.dtls {
		return hello.Version>>8 == VersionDTLS12>>8 && hello.Version <= VersionDTLS12
	}
	return hello.Version>>8 == VersionTLS12>>8 && hello.Version >= VersionTLS12
}

// chooseGroup returns the group for ECDHE_PSK, or 0 when there is none that
// both sides have. A client that lists none takes any (RFC 8422 section 4).
func (h *handshaker) chooseGroup(hello *wire.ClientHello) CurveID {
	for _, g := range h.config.curves() {
		if hello.SupportedGroups == nil || slices.Contains(hello.SupportedGroups, uint16(g)) {
			return g
		}
	}
	return 0
}

// chooseSuite takes the first suite of ours that the client offers and that
// can be used with it.
func (h *handshaker) chooseSuite(hello *wire.ClientHello, group CurveID) error {
	etm := hello.EncryptThenMAC && h.config.EncryptThenMAC != PolicyDisable
	for _, id := range h.config.cipherSuites() {
		if !slices.Contains(hello.CipherSuites, id) {
			continue
		}
		s := suite.ByID(id)
		if s.ECDHE && group == 0 || s.CBC() && !etm && h.config.EncryptThenMAC == PolicyRequire {
			continue
		}
		h.suite = s
		h.state.CipherSuite = id
		h.state.EncryptThenMAC = s.CBC() && etm
		h.state.ExtendedMasterSecret = hello.ExtendedMasterSecret && h.config.ExtendedMasterSecret != PolicyDisable
		if s.ECDHE {
			h.state.CurveID = group
		}
		return nil
	}
	return fail(AlertHandshakeFailure, "the client offers no cipher suite that is allowed here")
}

// answerExtensions fills in the extensions of the ServerHello: answers to what
// the client has sent, and nothing else.
//
// The empty server_name that RFC 6066 section 3 has a server send back is left
// out, as crypto/tls does: no client looks at it, and pion/dtls, behind which
// are many Go devices, fails to parse it.
func (h *handshaker) answerExtensions(hello *wire.ClientHello, e *wire.Extensions) {
	e.HasRenegotiationInfo = hello.HasRenegotiationInfo || slices.Contains(hello.CipherSuites, scsvRenegotiation)
	e.ExtendedMasterSecret = h.state.ExtendedMasterSecret
	e.EncryptThenMAC = h.state.EncryptThenMAC
	e.PointFormats = hello.PointFormats && h.suite.ECDHE
	if id, ok := h.t.connectionID(); ok && hello.HasConnectionID {
		e.HasConnectionID, e.ConnectionID = true, id
		h.useConnectionIDs(hello.ConnectionID, id)
	}
	if hello.HasRecordSizeLimit {
		// It takes the place of max_fragment_length (RFC 8449 section 5).
		e.HasRecordSizeLimit = true
		e.RecordSizeLimit = wire.MaxPlaintext
		if h.config.RecordSizeLimit != 0 {
			e.RecordSizeLimit = uint16(h.config.RecordSizeLimit)
		}
		return
	}
	e.MaxFragmentLength = hello.MaxFragmentLength
}

// writeServerKeyExchange adds the ServerKeyExchange to the flight when there
// is something to say: for plain PSK, a hint (RFC 4279 section 2).
func (h *handshaker) writeServerKeyExchange(group CurveID) (key *ecdh.PrivateKey, err error) {
	m := wire.ServerKeyExchange{Hint: h.config.IdentityHint}
	if !h.suite.ECDHE {
		if len(m.Hint) > 0 {
			h.write(wire.TypeServerKeyExchange, m.Marshal(false))
		}
		return nil, nil
	}
	if key, err = h.ephemeralKey(group); err != nil {
		return nil, callbackError("ephemeral key", err)
	}
	m.Group, m.PublicKey = uint16(group), key.PublicKey().Bytes()
	h.write(wire.TypeServerKeyExchange, m.Marshal(true))
	return key, nil
}

// readClientKeyExchange reads the identity, and does the key agreement of an
// ECDHE_PSK exchange.
func (h *handshaker) readClientKeyExchange(key *ecdh.PrivateKey) (shared []byte, err error) {
	_, body, err := h.read(true, wire.TypeClientKeyExchange)
	if err != nil {
		return nil, err
	}
	var m wire.ClientKeyExchange
	if err := m.Parse(body, h.suite.ECDHE); err != nil {
		return nil, malformed("ClientKeyExchange", err)
	}
	if len(m.Identity) > maxIdentity {
		return nil, fail(AlertIllegalParameter, "identity of %d octets, more than %d", len(m.Identity), maxIdentity)
	}
	h.state.Identity = slices.Clone(m.Identity) // body is valid until the next read only
	if key == nil {
		return nil, nil
	}
	return sharedSecret(key, m.PublicKey)
}

// lookUp asks GetPSK for the key and derives the session's keys. For an
// identity that it does not know it takes a random key instead, and returns
// the reason: from here on everything, the work and the alert at its end, is
// as with a wrong key, so that nobody can find out which identities exist.
// That is stricter than RFC 4279 section 2 asks for.
func (h *handshaker) lookUp(shared []byte) (unknown, err error) {
	defer clear(shared)
	decoy := make([]byte, 32) // made in either case, for the same time
	rand.Read(decoy)
	psk, err := h.config.GetPSK(h.ctx, &PSKRequest{
		Identity:             h.state.Identity,
		ServerName:           h.state.ServerName,
		LocalAddr:            h.state.LocalAddr,
		RemoteAddr:           h.state.RemoteAddr,
		Version:              h.state.Version,
		CipherSuite:          h.state.CipherSuite,
		ExtendedMasterSecret: h.state.ExtendedMasterSecret,
	})
	switch {
	case errors.Is(err, ErrUnknownIdentity):
		return err, h.deriveDecoyKeys(decoy, shared)
	case err != nil:
		return nil, callbackError("GetPSK", err)
	case psk == nil || len(psk.Key) == 0 || len(psk.Key) > maxKey:
		return nil, callbackError("GetPSK", errors.New("no key, or one that is empty or longer than 65535 octets"))
	}
	h.state.PSKData = psk.Data
	return nil, h.deriveKeys(psk.Key, shared)
}
