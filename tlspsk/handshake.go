package tlspsk

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A handshaker does one handshake (RFC 5246 section 7.3, with the key
// exchanges of RFC 4279 section 2 and RFC 5489). It belongs to one goroutine.
type handshaker struct {
	ctx      context.Context
	config   *Config
	t        transport
	isClient bool
	dtls     bool
	rand     io.Reader

	state        ConnectionState
	suite        *suite.Suite
	transcript   transcript
	clientRandom [wire.RandomLen]byte
	serverRandom [wire.RandomLen]byte
	master       *suite.PRF

	clientProtection, serverProtection suite.Protection
}

func newHandshaker(ctx context.Context, c *Conn) *handshaker {
	h := &handshaker{ctx: ctx, config: c.config, t: c.t, isClient: c.isClient, rand: c.config.Rand}
	if h.rand == nil {
		h.rand = rand.Reader
	}
	h.dtls = h.version() == VersionDTLS12
	h.state.Version = h.version()
	h.state.LocalAddr, h.state.RemoteAddr = c.t.LocalAddr(), c.t.RemoteAddr()
	return h
}

func (h *handshaker) version() uint16 { return h.t.version() }

// read returns the body of the next message, which must be of one of the given
// types. add says that it goes into the transcript.
func (h *handshaker) read(add bool, types ...wire.MessageType) (typ wire.MessageType, body []byte, err error) {
	raw, err := h.t.readMessage()
	if err != nil {
		return 0, nil, err
	}
	typ = raw[0]
	if !slices.Contains(types, typ) {
		return 0, nil, fail(AlertUnexpectedMessage, "handshake message of type %d instead of %d", typ, types)
	}
	if add {
		h.transcript.add(raw)
	}
	return typ, raw[h.t.headerLen():], nil
}

// write adds a message to the flight and to the transcript.
func (h *handshaker) write(typ wire.MessageType, body []byte) {
	h.transcript.add(h.t.writeMessage(typ, body))
}

// malformed is the error for a message that did not parse.
func malformed(what string, err error) error {
	if errors.Is(err, wire.ErrDuplicateExtension) {
		return fail(AlertIllegalParameter, "%s: %w", what, err)
	}
	return fail(AlertDecodeError, "%s: %w", what, err)
}

// deriveKeys computes all keys of the session from the pre-shared key and, for
// ECDHE_PSK, the ECDH secret. The transcript ends with ClientKeyExchange.
func (h *handshaker) deriveKeys(psk, shared []byte) error {
	premaster := suite.PremasterSecret(psk, shared)
	defer clear(premaster)
	var sessionHash []byte
	if h.state.ExtendedMasterSecret {
		sessionHash = h.transcript.sum()
	}
	master := h.suite.MasterSecret(premaster, sessionHash, h.clientRandom[:], h.serverRandom[:])
	defer clear(master)
	h.master = h.suite.NewPRF(master)
	var err error
	h.clientProtection, h.serverProtection, err = h.suite.Protections(h.master, h.clientRandom[:], h.serverRandom[:], h.state.EncryptThenMAC)
	return err
}

// readFinished checks the peer's Finished.
func (h *handshaker) readFinished() error {
	protection := h.clientProtection
	if h.isClient {
		protection = h.serverProtection
	}
	if err := h.t.changeReadProtection(protection); err != nil {
		return err
	}
	want := suite.VerifyData(h.master, !h.isClient, h.transcript.sum())
	raw, err := h.t.readMessage()
	if err != nil {
		return err
	}
	if raw[0] != wire.TypeFinished {
		return fail(AlertUnexpectedMessage, "handshake message of type %d instead of Finished", raw[0])
	}
	got := raw[h.t.headerLen():]
	if len(got) != len(want) {
		return fail(AlertDecodeError, "Finished of %d octets", len(got))
	}
	if suite.Equal(got, want) != 1 {
		return fail(AlertDecryptError, "Finished does not verify")
	}
	h.transcript.add(raw)
	return nil
}

// finished is what our Finished says, if the transcript ends here.
func (h *handshaker) finished() []byte {
	return suite.VerifyData(h.master, h.isClient, h.transcript.sum())
}

// writeFinished adds ChangeCipherSpec and Finished to the flight.
func (h *handshaker) writeFinished(verifyData []byte) {
	protection := h.serverProtection
	if h.isClient {
		protection = h.clientProtection
	}
	h.t.changeWriteProtection(protection)
	h.write(wire.TypeFinished, verifyData)
}

// verifyConnection makes the exporter available and runs the callback. From here
// on h.master is the exporter's: the callback may have left a goroutine behind
// that goes on exporting.
func (h *handshaker) verifyConnection() error {
	h.state.exporter = &exporter{prf: h.master, clientRandom: h.clientRandom, serverRandom: h.serverRandom}
	if h.config.VerifyConnection == nil {
		return nil
	}
	if err := h.config.VerifyConnection(h.ctx, &h.state); err != nil {
		return callbackError("VerifyConnection", err)
	}
	return nil
}

// callbackError gives the peer the alert that the callback's error wraps, or
// internal_error.
func callbackError(name string, err error) error {
	alert := AlertInternalError
	errors.As(err, &alert)
	return &AlertError{Alert: alert, Err: fmt.Errorf("%s: %w", name, err)}
}

// applyLimits sets the record sizes that the hellos agreed on.
func (h *handshaker) applyLimits(client, server *wire.Extensions) error {
	write, read := wire.MaxPlaintext, wire.MaxPlaintext
	switch {
	case client.HasRecordSizeLimit && server.HasRecordSizeLimit:
		// RFC 8449 section 4: each side says what it takes.
		write, read = int(client.RecordSizeLimit), int(server.RecordSizeLimit)
		if h.isClient {
			write, read = read, write
		}
		if min(write, read) < minRecordSizeLimit {
			return fail(AlertIllegalParameter, "record_size_limit of less than 64")
		}
		// TLS 1.2's maximum holds all the same.
		write, read = min(write, wire.MaxPlaintext), min(read, wire.MaxPlaintext)
	case server.MaxFragmentLength != 0:
		write = fragmentLength(server.MaxFragmentLength)
		read = write
	}
	h.t.setLimits(write, read)
	return nil
}

// useConnectionIDs notes that both sides have sent the extension.
func (h *handshaker) useConnectionIDs(client, server []byte) {
	peers := client
	if h.isClient {
		peers = server
	}
	h.t.useConnectionIDs(peers)
	h.state.ConnectionID = len(server) > 0
}

// curve returns the group of RFC 8422 with this number, or nil.
func curve(id CurveID) ecdh.Curve {
	switch id {
	case X25519:
		return ecdh.X25519()
	case CurveP256:
		return ecdh.P256()
	}
	return nil
}

// ephemeralKey makes a key from h.rand. crypto/ecdh's own GenerateKey does not
// promise to read from the source that it is given.
func (h *handshaker) ephemeralKey(id CurveID) (*ecdh.PrivateKey, error) {
	var b [32]byte // the size of a private key in both groups
	defer clear(b[:])
	for {
		if _, err := io.ReadFull(h.rand, b[:]); err != nil {
			return nil, fmt.Errorf("tlspsk: Config.Rand: %w", err)
		}
		// A number beyond P-256's order, one in 2^32, is drawn again.
		if key, err := curve(id).NewPrivateKey(b[:]); err == nil {
			return key, nil
		}
	}
}

// sharedSecret checks the peer's public key, as RFC 8422 section 5.11 demands,
// and does the key agreement.
func sharedSecret(key *ecdh.PrivateKey, peer []byte) ([]byte, error) {
	pub, err := key.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, fail(AlertIllegalParameter, "public key: %w", err)
	}
	secret, err := key.ECDH(pub)
	if err != nil {
		return nil, fail(AlertIllegalParameter, "key agreement: %w", err)
	}
	return secret, nil
}

// A transcript is the hash of the handshake messages so far. Until the suite,
// and so the hash, is known, it keeps the messages themselves.
type transcript struct {
	hash hash.Hash
	kept []byte
}

func (t *transcript) add(raw []byte) {
	if t.hash == nil {
		t.kept = append(t.kept, raw...)
		return
	}
	t.hash.Write(raw)
}

// start sets the hash.
func (t *transcript) start(s *suite.Suite) {
	t.hash = s.NewHash()
	t.hash.Write(t.kept)
	t.kept = nil
}

// reset forgets everything: RFC 6347 section 4.2.1 leaves the first
// ClientHello and the HelloVerifyRequest out.
func (t *transcript) reset() { t.kept = nil }

func (t *transcript) sum() []byte { return t.hash.Sum(nil) }
