package tlspsk

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"fmt"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A puppet is a TLS or DTLS peer that sends any message at any time. It has no
// state machine: it only keeps the books that an honest peer would, a transcript
// of whatever was said in whatever order, and the keys that follow from it. A
// victim that lets a wrong order pass therefore ends up with a real session, and
// the test sees it.
//
// tlsPuppet and dtlsPuppet add the record layers.
type puppet struct {
	isClient, dtls bool
	variant        variant
	suite          *suite.Suite

	transcript                 []byte // what both have said so far, as it is hashed
	clientRandom, serverRandom [wire.RandomLen]byte
	cookie                     []byte // client: the server's
	helloHeard                 bool   // client: the server's
	private                    *ecdh.PrivateKey
	peerPoint                  []byte

	connectionID []byte // what the victim wants in records; nil for none

	master     *suite.PRF
	keysFixed  bool // the keys follow from a transcript with a ClientKeyExchange
	seal, open suite.Protection

	// What the victim has said.
	alerts     []spokenAlert
	data       []byte
	finishedOK bool
	faults     []string // what an honest peer would not have said
}

type spokenAlert struct {
	level uint8
	alert Alert
}

// A variant is a kind of handshake, which decides what is honest in it.
type variant struct {
	name          string
	suite         uint16
	curve         CurveID // ECDHE_PSK
	hint          string
	plain         bool // without extended master secret and encrypt-then-MAC
	requireStrong bool // the victim insists on both
	connectionIDs bool // DTLS
}

var variants = []variant{
	{name: "CCM_8", suite: TLS_PSK_WITH_AES_128_CCM_8},
	{name: "ECDHE-CBC, P-256", suite: TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256, curve: CurveP256, requireStrong: true},
	{name: "ECDHE-GCM", suite: TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256, curve: X25519},
	{name: "CBC", suite: TLS_PSK_WITH_AES_128_CBC_SHA256, hint: "hint", plain: true},
	{name: "GCM-384", suite: TLS_PSK_WITH_AES_256_GCM_SHA384, hint: "hint"},
	{name: "ChaCha20", suite: TLS_PSK_WITH_CHACHA20_POLY1305_SHA256, plain: true},
	{name: "CCM, connection IDs", suite: TLS_PSK_WITH_AES_128_CCM, connectionIDs: true},
}

func (v variant) ecdhe() bool { return v.curve != 0 }
func (v variant) ems() bool   { return !v.plain }
func (v variant) etm() bool   { return !v.plain && suite.ByID(v.suite).CBC() }

// config is the victim's configuration.
func (v variant) config(isClient bool) *Config {
	c := serverConfig()
	if isClient {
		c = clientConfig()
	}
	c.CipherSuites = []uint16{v.suite}
	if v.ecdhe() {
		c.CurvePreferences = []CurveID{v.curve}
	}
	c.IdentityHint = []byte(v.hint)
	if !v.connectionIDs {
		c.ConnectionID = PolicyDisable
	}
	if v.requireStrong {
		c.ExtendedMasterSecret, c.EncryptThenMAC = PolicyRequire, PolicyRequire
	}
	return c
}

func newPuppet(isClient, dtls bool, v variant) *puppet {
	p := &puppet{isClient: isClient, dtls: dtls, variant: v, suite: suite.ByID(v.suite)}
	own := &p.serverRandom
	if isClient {
		own = &p.clientRandom
	}
	*own = sha256.Sum256([]byte(v.name))
	if v.ecdhe() {
		p.private = puppetsKey(v.curve)
	}
	return p
}

func puppetsKey(id CurveID) *ecdh.PrivateKey {
	secret := sha256.Sum256([]byte("private key"))
	key, err := curve(id).NewPrivateKey(secret[:])
	if err != nil {
		panic(err)
	}
	return key
}

// keys brings the keys up to date with what has been said.
func (p *puppet) keys() {
	if p.keysFixed {
		return
	}
	var shared []byte
	if p.private != nil {
		shared = make([]byte, 32) // when the victim has no share in it
		if pub, err := p.private.Curve().NewPublicKey(p.peerPoint); err == nil {
			if s, err := p.private.ECDH(pub); err == nil {
				shared = s
			}
		}
	}
	var sessionHash []byte
	if p.variant.ems() {
		sessionHash = p.hash()
	}
	master := p.suite.MasterSecret(suite.PremasterSecret(testKey, shared), sessionHash, p.clientRandom[:], p.serverRandom[:])
	p.master = p.suite.NewPRF(master)
	client, server, err := p.suite.Protections(p.master, p.clientRandom[:], p.serverRandom[:], p.variant.etm())
	if err != nil {
		panic(err)
	}
	p.seal, p.open = server, client
	if p.isClient {
		p.seal, p.open = client, server
	}
}

func (p *puppet) hash() []byte {
	h := p.suite.NewHash()
	h.Write(p.transcript)
	return h.Sum(nil)
}

// fixKeys says that ClientKeyExchange has been said.
func (p *puppet) fixKeys() {
	p.keys()
	p.keysFixed = true
}

// said takes a message of the puppet's own into the books.
func (p *puppet) said(typ wire.MessageType, raw []byte) {
	switch {
	case typ == wire.TypeHelloRequest:
		return // RFC 5246 section 7.4.1.1: not hashed
	case typ == wire.TypeHelloVerifyRequest && !p.isClient:
		p.transcript = nil // RFC 6347 section 4.2.1: nor the hello that it answers
		return
	case typ == wire.TypeClientHello && p.dtls && !p.helloHeard:
		p.transcript = nil
	}
	p.transcript = append(p.transcript, raw...)
	if typ == wire.TypeClientKeyExchange && p.isClient && p.helloHeard {
		p.fixKeys()
	}
}

// heard takes a message of the victim's into the books.
func (p *puppet) heard(typ wire.MessageType, body, raw []byte) {
	if typ == wire.TypeFinished {
		p.keys()
		p.finishedOK = bytes.Equal(body, suite.VerifyData(p.master, !p.isClient, p.hash()))
	}
	p.transcript = append(p.transcript, raw...)
	var err error
	switch typ {
	case wire.TypeClientHello:
		var m wire.ClientHello
		if err = m.Parse(body, p.dtls); err == nil {
			copy(p.clientRandom[:], m.Random)
		}
	case wire.TypeServerHello:
		var m wire.ServerHello
		if err = m.Parse(body); err == nil {
			p.connectionID = bytes.Clone(m.ConnectionID)
			copy(p.serverRandom[:], m.Random)
			p.helloHeard = true
		}
	case wire.TypeHelloVerifyRequest:
		var m wire.HelloVerifyRequest
		if err = m.Parse(body); err == nil {
			p.cookie = bytes.Clone(m.Cookie)
		}
	case wire.TypeServerKeyExchange:
		var m wire.ServerKeyExchange
		if err = m.Parse(body, p.suite.ECDHE); err == nil {
			p.peerPoint = bytes.Clone(m.PublicKey)
		}
	case wire.TypeClientKeyExchange:
		var m wire.ClientKeyExchange
		if err = m.Parse(body, p.suite.ECDHE); err == nil {
			p.peerPoint = bytes.Clone(m.PublicKey)
			p.fixKeys()
		}
	}
	if err != nil {
		p.fault("message of type %d: %v", typ, err)
	}
}

// heardAlert takes the content of an alert.
func (p *puppet) heardAlert(content []byte) {
	level, a, err := parseAlert(content)
	if err != nil {
		p.fault("alert %x", content)
	}
	p.alerts = append(p.alerts, spokenAlert{level, a})
}

func (p *puppet) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// export is what the puppet would export.
func (p *puppet) export() []byte {
	out := make([]byte, 48)
	suite.Export(p.master, out, exportLabel, nil, p.clientRandom[:], p.serverRandom[:])
	return out
}

// count says how often the victim has sent an alert.
func (p *puppet) count(level uint8, a Alert) (n int) {
	for _, s := range p.alerts {
		if s == (spokenAlert{level, a}) {
			n++
		}
	}
	return n
}

// ownPoint is the puppet's ephemeral key, if it has one.
func (p *puppet) ownPoint() []byte {
	if p.private == nil {
		return nil
	}
	return p.private.PublicKey().Bytes()
}
