package tlspsk

import (
	"io"
	"net"
	"slices"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A delivery is how a tlsPuppet cuts what it says into records and reads.
type delivery int

const (
	whole  delivery = iota // each message in a record
	split                  // the first octet of each message in a record of its own
	joined                 // messages that follow each other in one record
	octets                 // whole, but each read gives one octet
)

var deliveries = map[delivery]string{whole: "whole", split: "split", joined: "joined", octets: "octets"}

// A tlsPuppet is a puppet on the other end of a TLS victim's connection. It
// needs no goroutine: the victim's Read plays the script's next letter, after
// all that the victim wrote before.
type tlsPuppet struct {
	*puppet
	delivery delivery
	script   []string
	sending  []byte // not yet read by the victim
	cutAfter int    // octets after which the connection is cut; 0: none
	given    int    // octets that the victim has read

	protected   bool // what the puppet writes
	seq         uint64
	victimsTurn bool // within a joined record, a flight of the puppet's is over

	received     []byte // not yet a record
	handshake    []byte // not yet a message
	victimSealed bool   // the victim has changed to its keys
	victimSeq    uint64
}

func newTLSPuppet(isClient bool, v variant, d delivery, script []string) *tlsPuppet {
	return &tlsPuppet{puppet: newPuppet(isClient, false, v), delivery: d, script: script}
}

// Read gives the victim what comes next.
func (p *tlsPuppet) Read(b []byte) (int, error) {
	for len(p.sending) == 0 {
		if len(p.script) == 0 {
			return 0, io.EOF
		}
		p.next()
	}
	if p.delivery == octets {
		b = b[:1]
	}
	if p.cutAfter > 0 {
		b = b[:min(len(b), p.cutAfter-p.given)]
	}
	if len(b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.sending)
	p.sending = p.sending[n:]
	p.given += n
	return n, nil
}

// next plays one letter of the script, or the run of messages that goes into
// one record.
func (p *tlsPuppet) next() {
	if p.delivery != joined {
		p.play(p.script[0])
		p.script = p.script[1:]
		return
	}
	run := joinable(p.isClient, p.script)
	if run < 2 {
		p.play(p.script[0])
		p.script = p.script[1:]
		return
	}
	var content []byte
	for _, name := range p.script[:run] {
		books := p.transcript
		content = append(content, p.message(name)...)
		if p.victimsTurn {
			p.transcript = books // it is not known what the victim says before
		}
		typ := puppetMessages[name].typ
		p.victimsTurn = p.victimsTurn || typ == wire.TypeServerHelloDone || typ == wire.TypeFinished
	}
	p.victimsTurn = false
	p.send(p.record(wire.Handshake, content))
	p.script = p.script[run:]
}

// mostJoined keeps a record of the longest messages within a record's limit.
const mostJoined = 8

// joinable is how many of the next letters go into one record. A client's hello
// ends it: a server may take a ClientKeyExchange from the same record, and the
// puppet can't have the books right for that.
func joinable(isClient bool, script []string) (n int) {
	for _, name := range script {
		m, ok := puppetMessages[name]
		if !ok || n == mostJoined {
			break
		}
		n++
		if isClient && m.typ == wire.TypeClientHello {
			break
		}
	}
	return n
}

func (p *tlsPuppet) play(name string) {
	if _, ok := puppetMessages[name]; ok {
		p.say(name)
		return
	}
	tlsRecords[name](p)
}

// say sends a handshake message.
func (p *tlsPuppet) say(name string) {
	raw := p.message(name)
	if p.delivery == split {
		p.send(p.record(wire.Handshake, raw[:1]))
		raw = raw[1:]
	}
	p.send(p.record(wire.Handshake, raw))
}

// message makes a handshake message and takes it into the books.
func (p *tlsPuppet) message(name string) []byte {
	m := puppetMessages[name]
	body := m.body(p.puppet)
	raw := append(wire.AppendHeader(nil, m.typ, len(body)), body...)
	p.said(m.typ, raw)
	return raw
}

func (p *tlsPuppet) send(b []byte) { p.sending = append(p.sending, b...) }

// record makes a record, protected when the puppet has changed to its keys.
func (p *tlsPuppet) record(typ wire.ContentType, content []byte) []byte {
	b := make([]byte, wire.RecordHeaderLen)
	if p.protected {
		b = p.seal.Seal(b, suite.Header{Seq: p.seq, Type: typ, Version: VersionTLS12}, content)
		p.seq++
	} else {
		b = append(b, content...)
	}
	wire.PutRecordHeader(b, wire.RecordHeader{Type: typ, Version: VersionTLS12, Length: len(b) - wire.RecordHeaderLen})
	return b
}

// clear makes an unprotected record.
func clearRecord(typ wire.ContentType, content ...byte) []byte {
	return append([]byte{typ, 3, 3, byte(len(content) >> 8), byte(len(content))}, content...)
}

// tlsRecords are the letters that are not handshake messages.
var tlsRecords = map[string]func(p *tlsPuppet){
	"ChangeCipherSpec": func(p *tlsPuppet) {
		p.send(p.record(wire.ChangeCipherSpec, []byte{1}))
		p.keys()
		p.protected, p.seq = true, 0
	},
	"empty ChangeCipherSpec": sends(wire.ChangeCipherSpec),
	"long ChangeCipherSpec":  sends(wire.ChangeCipherSpec, 1, 1),
	"ChangeCipherSpec of 2":  sends(wire.ChangeCipherSpec, 2),
	"data":                   sends(wire.ApplicationData, []byte("ping")...),
	"empty data":             sends(wire.ApplicationData),
	"empty data, 17 times": func(p *tlsPuppet) {
		for range warningsTaken + 1 {
			p.send(p.record(wire.ApplicationData, nil))
		}
	},
	"record of unknown type": sends(24, 1, 0, 1, 'x'), // a heartbeat
	"empty handshake record": sends(wire.Handshake),
	"half a message":         sends(wire.Handshake, wire.TypeClientKeyExchange, 0, 0),
	"message too long":       sends(wire.Handshake, typeUnassigned, 1, 0, 0),
	"warning":                sends(wire.Alert, alertLevelWarning, uint8(AlertUserCanceled)),
	"17 warnings": func(p *tlsPuppet) {
		for range warningsTaken + 1 {
			p.send(p.record(wire.Alert, []byte{alertLevelWarning, uint8(AlertNoRenegotiation)}))
		}
	},
	"fatal alert":         sends(wire.Alert, alertLevelFatal, uint8(AlertAccessDenied)),
	"close_notify":        sends(wire.Alert, alertLevelWarning, uint8(AlertCloseNotify)),
	"empty alert":         sends(wire.Alert),
	"half an alert":       sends(wire.Alert, alertLevelWarning),
	"two alerts at once":  sends(wire.Alert, alertLevelWarning, uint8(AlertUserCanceled), alertLevelWarning, uint8(AlertUserCanceled)),
	"alert of no level":   sends(wire.Alert, 3, uint8(AlertUserCanceled)),
	"record too long":     sends(wire.Handshake, make([]byte, wire.MaxPlaintext+1)...),
	"header beyond all":   raw(22, 3, 3, 0x48, 0x01),
	"record of 1.1":       raw(21, 3, 2, 0, 2, alertLevelWarning, uint8(AlertUserCanceled)),
	"record of version 4": raw(21, 4, 2, 0, 2, alertLevelWarning, uint8(AlertUserCanceled)),
	"clear data":          raw(clearRecord(wire.ApplicationData, 'x')...),
	"clear alert":         raw(clearRecord(wire.Alert, alertLevelFatal, uint8(AlertAccessDenied))...),
	"clear close_notify":  raw(clearRecord(wire.Alert, alertLevelWarning, uint8(AlertCloseNotify))...),
	"clear ChangeCipherSpec": func(p *tlsPuppet) {
		p.send(clearRecord(wire.ChangeCipherSpec, 1))
	},
	"clear Finished": func(p *tlsPuppet) { p.send(clearRecord(wire.Handshake, p.message("Finished")...)) },
	"forged data": func(p *tlsPuppet) {
		b := p.record(wire.ApplicationData, []byte("ping"))
		b[len(b)-1] ^= 1
		p.send(b)
	},
	"forged Finished": func(p *tlsPuppet) {
		b := p.record(wire.Handshake, p.message("Finished"))
		b[len(b)-1] ^= 1
		p.send(b)
	},
	"requests to renegotiate": func(p *tlsPuppet) {
		request := "HelloRequest"
		if p.isClient {
			request = "ClientHello"
		}
		for range requestsRefused + 1 {
			p.say(request)
		}
	},
}

func sends(typ wire.ContentType, content ...byte) func(*tlsPuppet) {
	return func(p *tlsPuppet) { p.send(p.record(typ, content)) }
}

func raw(b ...byte) func(*tlsPuppet) { return func(p *tlsPuppet) { p.send(slices.Clone(b)) } }

// Write hears what the victim says.
func (p *tlsPuppet) Write(b []byte) (int, error) {
	p.received = append(p.received, b...)
	for len(p.received) >= wire.RecordHeaderLen {
		h := wire.ParseRecordHeader(p.received)
		if len(p.received) < wire.RecordHeaderLen+h.Length {
			break
		}
		fragment := p.received[wire.RecordHeaderLen : wire.RecordHeaderLen+h.Length]
		p.received = p.received[wire.RecordHeaderLen+h.Length:]
		p.heardRecord(h, fragment)
	}
	return len(b), nil
}

func (p *tlsPuppet) heardRecord(h wire.RecordHeader, content []byte) {
	if h.Version != VersionTLS12 {
		p.fault("record of version %04x", h.Version)
	}
	if p.victimSealed {
		var err error
		content, err = p.open.Open(suite.Header{Seq: p.victimSeq, Type: h.Type, Version: h.Version}, content)
		if err != nil {
			p.fault("record of type %d: %v", h.Type, err)
			return
		}
		p.victimSeq++
	}
	switch h.Type {
	case wire.Handshake:
		p.handshake = append(p.handshake, content...)
		p.heardHandshake()
	case wire.ChangeCipherSpec:
		p.keys()
		p.victimSealed = true
	case wire.Alert:
		p.heardAlert(content)
	case wire.ApplicationData:
		p.data = append(p.data, content...)
	default:
		p.fault("record of type %d", h.Type)
	}
}

func (p *tlsPuppet) heardHandshake() {
	for len(p.handshake) >= wire.HeaderLen {
		typ, n := wire.ParseHeader(p.handshake)
		n += wire.HeaderLen
		if len(p.handshake) < n {
			return
		}
		p.heard(typ, p.handshake[wire.HeaderLen:n], p.handshake[:n])
		p.handshake = p.handshake[n:]
	}
}

func (p *tlsPuppet) Close() error                     { return nil }
func (p *tlsPuppet) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (p *tlsPuppet) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (p *tlsPuppet) SetDeadline(time.Time) error      { return nil }
func (p *tlsPuppet) SetReadDeadline(time.Time) error  { return nil }
func (p *tlsPuppet) SetWriteDeadline(time.Time) error { return nil }
