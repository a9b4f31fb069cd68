package tlspsk

import (
	"bytes"
	"encoding/binary"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A puppetMessage is a handshake message that a puppet can make.
type puppetMessage struct {
	typ  wire.MessageType
	body func(p *puppet) []byte
}

// Message types that the engine has no names for.
const (
	typeNewSessionTicket   = 4
	typeCertificate        = 11
	typeCertificateRequest = 13
	typeCertificateVerify  = 15
	typeCertificateStatus  = 22
	typeUnassigned         = 99
)

// puppetMessages are all handshake messages, right ones and wrong ones, by the
// names that the tables give them.
var puppetMessages = map[string]puppetMessage{
	"HelloRequest":        {wire.TypeHelloRequest, nothing},
	"ClientHello":         {wire.TypeClientHello, helloBut(func(*puppet, *wire.ClientHello) {})},
	"HelloVerifyRequest":  {wire.TypeHelloVerifyRequest, func(*puppet) []byte { return []byte("\xfe\xff\x06cookie") }},
	"ServerHello":         {wire.TypeServerHello, serverHelloBut(func(*wire.ServerHello) {})},
	"ServerKeyExchange":   {wire.TypeServerKeyExchange, serverKeyExchangeBut(func(*wire.ServerKeyExchange) {})},
	"ServerHelloDone":     {wire.TypeServerHelloDone, nothing},
	"ClientKeyExchange":   {wire.TypeClientKeyExchange, clientKeyExchangeBut(func(*wire.ClientKeyExchange) {})},
	"Finished":            {wire.TypeFinished, func(p *puppet) []byte { return p.verifyData(p.isClient) }},
	"NewSessionTicket":    {typeNewSessionTicket, func(*puppet) []byte { return make([]byte, 6) }},
	"Certificate":         {typeCertificate, func(*puppet) []byte { return make([]byte, 3) }},
	"CertificateRequest":  {typeCertificateRequest, func(*puppet) []byte { return []byte{1, 64, 0, 2, 4, 3, 0, 0} }},
	"CertificateVerify":   {typeCertificateVerify, func(*puppet) []byte { return []byte{4, 3, 0, 0} }},
	"CertificateStatus":   {typeCertificateStatus, func(*puppet) []byte { return []byte{1, 0, 0, 0} }},
	"unassigned message":  {typeUnassigned, nothing},
	"empty ClientHello":   {wire.TypeClientHello, nothing},
	"empty Finished":      {wire.TypeFinished, nothing},
	"Finished of zeros":   {wire.TypeFinished, func(*puppet) []byte { return make([]byte, suite.VerifyDataLen) }},
	"the peer's Finished": {wire.TypeFinished, func(p *puppet) []byte { return p.verifyData(!p.isClient) }},
	"short Finished":      {wire.TypeFinished, func(p *puppet) []byte { return p.verifyData(p.isClient)[:11] }},
	"long Finished":       {wire.TypeFinished, func(p *puppet) []byte { return append(p.verifyData(p.isClient), 0) }},

	"ClientHello of 1.1":               {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.Version = older(h.Version) })},
	"ClientHello of 1.3 alone":         {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.SupportedVersions = []uint16{0x0304, 0xfefc} })},
	"ClientHello, no common suite":     {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.CipherSuites = []uint16{0x002f, 0x1301} })},
	"ClientHello, no suites":           {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.CipherSuites = nil })},
	"ClientHello, session ID too long": {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.SessionID = make([]byte, 33) })},
	"ClientHello, record_size_limit of 63": {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) {
		h.HasRecordSizeLimit, h.RecordSizeLimit = true, 63
	})},
	"ClientHello, max_fragment_length 5": {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.MaxFragmentLength = 5 })},
	"ClientHello, renegotiation_info":    {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.RenegotiationInfo = make([]byte, 12) })},
	"ClientHello, foreign group": {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) {
		h.SupportedGroups = []uint16{24, uint16(otherGroup(p.variant.curve))}
	})},
	"ClientHello, no extended master secret":  {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.ExtendedMasterSecret = false })},
	"ClientHello, no encrypt-then-MAC":        {wire.TypeClientHello, helloBut(func(p *puppet, h *wire.ClientHello) { h.EncryptThenMAC = false })},
	"ClientHello and an octet":                {wire.TypeClientHello, func(p *puppet) []byte { return append(p.hello(), 0) }},
	"ClientHello, no null compression":        {wire.TypeClientHello, bareHello(func(b []byte) []byte { b[len(b)-1] = 1; return b })},
	"ClientHello, no compression":             {wire.TypeClientHello, bareHello(func(b []byte) []byte { b[len(b)-2] = 0; return b[:len(b)-1] })},
	"ClientHello, extension repeated":         {wire.TypeClientHello, bareHello(extensions("\x00\x17\x00\x00\x00\x17\x00\x00"))},
	"ClientHello, compressed points alone":    {wire.TypeClientHello, bareHello(extensions("\x00\x0b\x00\x02\x01\x01"))},
	"ClientHello, empty server_name":          {wire.TypeClientHello, bareHello(extensions("\x00\x00\x00\x00"))},
	"ClientHello, NUL in server_name":         {wire.TypeClientHello, bareHello(extensions("\x00\x00\x00\x08\x00\x06\x00\x00\x03a\x00b"))},
	"ClientHello, extension beyond the block": {wire.TypeClientHello, bareHello(extensions("\x00\x17\x00\x09"))},

	"ServerHello of 1.1":               {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.Version = older(h.Version) })},
	"ServerHello of 1.3":               {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.Version = 0x0304 })},
	"ServerHello, other suite":         {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.CipherSuite = TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256 })},
	"ServerHello, no suite":            {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.CipherSuite = 0 })},
	"ServerHello, compression":         {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.Compression = 1 })},
	"ServerHello, session ID too long": {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.SessionID = make([]byte, 33) })},
	"ServerHello, max_fragment_length": {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.MaxFragmentLength = 1 })},
	"ServerHello, record_size_limit": {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) {
		h.HasRecordSizeLimit, h.RecordSizeLimit = true, 64
	})},
	"ServerHello, renegotiation_info":        {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.RenegotiationInfo = make([]byte, 24) })},
	"ServerHello, no extended master secret": {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.ExtendedMasterSecret = false })},
	"ServerHello, no encrypt-then-MAC":       {wire.TypeServerHello, serverHelloBut(func(h *wire.ServerHello) { h.EncryptThenMAC = false })},
	"ServerHello and an octet":               {wire.TypeServerHello, func(p *puppet) []byte { return append(p.serverHello().Marshal(), 0) }},
	"ServerHello, encrypt-then-MAC unasked":  {wire.TypeServerHello, bareServerHello(extensions("\x00\x16\x00\x00"))},
	"ServerHello, extension repeated":        {wire.TypeServerHello, bareServerHello(extensions("\x00\x17\x00\x00\x00\x17\x00\x00"))},
	"ServerHello, unknown extension":         {wire.TypeServerHello, bareServerHello(extensions("\x00\x23\x00\x00"))},
	"ServerHello, supported_versions":        {wire.TypeServerHello, bareServerHello(extensions("\x00\x2b\x00\x02\x03\x04"))},
	"ServerHello, something in an empty extension": {wire.TypeServerHello,
		bareServerHello(extensions("\x00\x17\x00\x01\x00"))},
	"ServerHello, compressed points alone": {wire.TypeServerHello, func(p *puppet) []byte {
		h := p.serverHello()
		h.PointFormats = true
		b := h.Marshal() // the list of formats comes last
		b[len(b)-1] = 1
		return b
	}},

	"ServerKeyExchange, foreign group": {wire.TypeServerKeyExchange, func(p *puppet) []byte {
		m, other := p.serverKeyExchange(), otherGroup(p.variant.curve)
		m.Group, m.PublicKey = uint16(other), puppetsKey(other).PublicKey().Bytes()
		return m.Marshal(p.suite.ECDHE)
	}},
	"ServerKeyExchange, no point":       {wire.TypeServerKeyExchange, serverKeyExchangeBut(func(m *wire.ServerKeyExchange) { m.PublicKey = nil })},
	"ServerKeyExchange, short point":    {wire.TypeServerKeyExchange, serverKeyExchangeBut(func(m *wire.ServerKeyExchange) { m.PublicKey = m.PublicKey[1:] })},
	"ServerKeyExchange, bad point":      {wire.TypeServerKeyExchange, serverKeyExchangeBut(func(m *wire.ServerKeyExchange) { m.PublicKey = badPoint(m.PublicKey) })},
	"ServerKeyExchange and an octet":    {wire.TypeServerKeyExchange, func(p *puppet) []byte { return append(p.serverKeyExchange().Marshal(p.suite.ECDHE), 0) }},
	"ServerKeyExchange, explicit curve": {wire.TypeServerKeyExchange, func(*puppet) []byte { return []byte{0, 0, 1, 0, 29, 1, 9} }},
	"ServerKeyExchange, hint cut":       {wire.TypeServerKeyExchange, func(*puppet) []byte { return []byte{0, 9, 'h'} }},
	"ServerHelloDone and an octet":      {wire.TypeServerHelloDone, func(*puppet) []byte { return []byte{0} }},
	"ClientKeyExchange, no point":       {wire.TypeClientKeyExchange, clientKeyExchangeBut(func(m *wire.ClientKeyExchange) { m.PublicKey = nil })},
	"ClientKeyExchange, short point":    {wire.TypeClientKeyExchange, clientKeyExchangeBut(func(m *wire.ClientKeyExchange) { m.PublicKey = m.PublicKey[1:] })},
	"ClientKeyExchange, bad point":      {wire.TypeClientKeyExchange, clientKeyExchangeBut(func(m *wire.ClientKeyExchange) { m.PublicKey = badPoint(m.PublicKey) })},
	"ClientKeyExchange and an octet":    {wire.TypeClientKeyExchange, func(p *puppet) []byte { return append(p.clientKeyExchange().Marshal(p.suite.ECDHE), 0) }},
	"ClientKeyExchange, identity cut":   {wire.TypeClientKeyExchange, func(*puppet) []byte { return []byte{0, 9, 'i'} }},
	"ClientKeyExchange, long identity":  {wire.TypeClientKeyExchange, clientKeyExchangeBut(func(m *wire.ClientKeyExchange) { m.Identity = make([]byte, maxIdentity+1) })},
	"empty ClientKeyExchange":           {wire.TypeClientKeyExchange, nothing},
	"empty ServerKeyExchange":           {wire.TypeServerKeyExchange, nothing},
	"empty ServerHello":                 {wire.TypeServerHello, nothing},
	"ClientHello, server_name cut":      {wire.TypeClientHello, bareHello(extensions("\x00\x00\x00\x02\x00\x09"))},
}

func nothing(*puppet) []byte { return nil }

// older is the version before TLS 1.2 or DTLS 1.2.
func older(version uint16) uint16 {
	if version == VersionDTLS12 {
		return wire.VersionDTLS10
	}
	return version - 1
}

func (p *puppet) version() uint16 {
	if p.dtls {
		return VersionDTLS12
	}
	return VersionTLS12
}

func (p *puppet) clientHello() *wire.ClientHello {
	h := &wire.ClientHello{Version: p.version(), Random: p.clientRandom[:], Cookie: p.cookie, CipherSuites: []uint16{p.variant.suite}}
	e := &h.Extensions
	e.HasServerName, e.ServerName = true, "maf.example.com"
	e.HasRenegotiationInfo = true
	e.ExtendedMasterSecret, e.EncryptThenMAC = p.variant.ems(), p.variant.etm()
	if p.private != nil {
		e.SupportedGroups, e.PointFormats = []uint16{uint16(p.variant.curve)}, true
	}
	e.HasConnectionID = p.variant.connectionIDs
	return h
}

func (p *puppet) hello() []byte { return p.clientHello().Marshal(p.dtls) }

func helloBut(change func(*puppet, *wire.ClientHello)) func(*puppet) []byte {
	return func(p *puppet) []byte {
		h := p.clientHello()
		change(p, h)
		return h.Marshal(p.dtls)
	}
}

// bareHello changes a ClientHello without extensions.
func bareHello(change func([]byte) []byte) func(*puppet) []byte {
	return func(p *puppet) []byte {
		h := p.clientHello()
		h.Extensions = wire.Extensions{}
		return change(h.Marshal(p.dtls))
	}
}

// extensions appends a block of extensions.
func extensions(block string) func([]byte) []byte {
	return func(b []byte) []byte {
		b = binary.BigEndian.AppendUint16(b, uint16(len(block)))
		return append(b, block...)
	}
}

func (p *puppet) serverHello() *wire.ServerHello {
	h := &wire.ServerHello{Version: p.version(), Random: p.serverRandom[:], SessionID: []byte("session"), CipherSuite: p.variant.suite}
	e := &h.Extensions
	e.HasRenegotiationInfo = true
	e.ExtendedMasterSecret, e.EncryptThenMAC = p.variant.ems(), p.variant.etm()
	if p.variant.connectionIDs {
		e.HasConnectionID, e.ConnectionID = true, []byte(puppetsID)
	}
	return h
}

// puppetsID is what a server that is a puppet wants in records.
const puppetsID = "puppet"

func serverHelloBut(change func(*wire.ServerHello)) func(*puppet) []byte {
	return func(p *puppet) []byte {
		h := p.serverHello()
		change(h)
		return h.Marshal()
	}
}

func bareServerHello(change func([]byte) []byte) func(*puppet) []byte {
	return func(p *puppet) []byte {
		h := p.serverHello()
		h.Extensions = wire.Extensions{}
		return change(h.Marshal())
	}
}

func (p *puppet) serverKeyExchange() *wire.ServerKeyExchange {
	return &wire.ServerKeyExchange{Hint: []byte(p.variant.hint), Group: uint16(p.variant.curve), PublicKey: p.ownPoint()}
}

func serverKeyExchangeBut(change func(*wire.ServerKeyExchange)) func(*puppet) []byte {
	return func(p *puppet) []byte {
		m := p.serverKeyExchange()
		change(m)
		return m.Marshal(p.suite.ECDHE)
	}
}

func (p *puppet) clientKeyExchange() *wire.ClientKeyExchange {
	return &wire.ClientKeyExchange{Identity: testIdentity, PublicKey: p.ownPoint()}
}

func clientKeyExchangeBut(change func(*wire.ClientKeyExchange)) func(*puppet) []byte {
	return func(p *puppet) []byte {
		m := p.clientKeyExchange()
		change(m)
		return m.Marshal(p.suite.ECDHE)
	}
}

// otherGroup is the group that the victim knows and does not want.
func otherGroup(id CurveID) CurveID {
	if id == X25519 {
		return CurveP256
	}
	return X25519
}

// badPoint is a public key of the right length that a peer must refuse: the
// point of X25519 that makes every secret zero, or one beside P-256's curve.
func badPoint(good []byte) []byte {
	if len(good) == 32 {
		return make([]byte, 32)
	}
	bad := bytes.Clone(good)
	bad[len(bad)-1] ^= 1
	return bad
}

// verifyData is the content of a Finished at this point.
func (p *puppet) verifyData(ofClient bool) []byte {
	p.keys()
	return suite.VerifyData(p.master, ofClient, p.hash())
}
