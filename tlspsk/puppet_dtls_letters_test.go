package tlspsk

import (
	"bytes"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// dtlsRecords are the letters of a dtlsPuppet that are not handshake messages,
// or are messages in the wrong place.
var dtlsRecords = map[string]func(p *dtlsPuppet){
	"ChangeCipherSpec":           clears(wire.ChangeCipherSpec, 1),
	"ChangeCipherSpec of 2":      clears(wire.ChangeCipherSpec, 2),
	"protected ChangeCipherSpec": protects(wire.ChangeCipherSpec, 1),
	"data":                       protects(wire.ApplicationData, []byte("ping")...),
	"empty data":                 protects(wire.ApplicationData),
	"clear data":                 clears(wire.ApplicationData, []byte("ping")...),
	"warning":                    protects(wire.Alert, alertLevelWarning, uint8(AlertUserCanceled)),
	"fatal alert":                protects(wire.Alert, alertLevelFatal, uint8(AlertAccessDenied)),
	"close_notify":               protects(wire.Alert, alertLevelWarning, uint8(AlertCloseNotify)),
	"half an alert":              protects(wire.Alert, alertLevelFatal),
	"clear warning":              clears(wire.Alert, alertLevelWarning, uint8(AlertUserCanceled)),
	"clear fatal alert":          clears(wire.Alert, alertLevelFatal, uint8(AlertAccessDenied)),
	"clear close_notify":         clears(wire.Alert, alertLevelWarning, uint8(AlertCloseNotify)),
	"clear half an alert":        clears(wire.Alert, alertLevelFatal),
	"record of unknown type":     clears(24, 1, 0, 1, 'x'),
	"protected unknown type":     protects(24, 1, 0, 1, 'x'),
	"empty handshake record":     clears(wire.Handshake),
	"half a header":              clears(wire.Handshake, wire.TypeFinished, 0, 0, 12),
	"fragment beyond its end":    clears(wire.Handshake, wire.TypeFinished, 0, 0, 2, 0, 0, 0, 0, 1, 0, 0, 2, 'x', 'x'),
	"empty datagram":             sendsRaw(),
	"garbage":                    sendsRaw(bytes.Repeat([]byte{0xff}, 100)...),
	"half a record":              sendsRaw(22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9, 0, 20, 20, 0),
	"record of another version":  sendsRaw(21, 3, 3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, alertLevelFatal, 40),
	"record of epoch 2":          adds(dtlsRecord{typ: wire.Handshake, epoch: 2, content: make([]byte, 24), message: false}),
	"forged data":                adds(dtlsRecord{typ: wire.ApplicationData, epoch: 1, content: []byte("ping"), forged: true}),
	"forged alert":               adds(dtlsRecord{typ: wire.Alert, epoch: 1, content: []byte{2, 40}, forged: true}),
	"forged handshake":           adds(dtlsRecord{typ: wire.Handshake, epoch: 1, content: make([]byte, 24), forged: true}),
	"record of a strange ID": func(p *dtlsPuppet) {
		p.add(dtlsRecord{typ: wire.Alert, epoch: 1, content: []byte{2, 40}, strangeID: []byte("stranger")})
		p.flush() // a listener looks for the ID at the start of a datagram
	},
	"record without its ID": func(p *dtlsPuppet) {
		p.add(dtlsRecord{typ: wire.Alert, epoch: 1, content: []byte{2, 40}, withoutID: true, decoy: p.connectionID == nil})
	},
	"clear Finished": func(p *dtlsPuppet) { p.say("Finished", 0) },

	"protected ClientHello":       saysProtected("ClientHello"),
	"protected HelloRequest":      saysProtected("HelloRequest"),
	"protected ClientKeyExchange": saysProtected("ClientKeyExchange"),
	"protected ServerHelloDone":   saysProtected("ServerHelloDone"),
	"requests to renegotiate": func(p *dtlsPuppet) {
		request := "HelloRequest"
		if p.isClient {
			request = "ClientHello"
		}
		for range requestsRefused + 1 {
			saysProtected(request)(p)
		}
	},
	"replay": func(p *dtlsPuppet) {
		p.flush()
		if p.lastAuthentic != nil {
			p.transmit(bytes.Clone(p.lastAuthentic))
		}
	},
	"repeat": func(p *dtlsPuppet) {
		p.flush()
		if p.last != nil {
			p.add(dtlsRecord{typ: wire.Handshake, epoch: p.last.epoch, content: p.last.raw, message: true})
			p.flush()
		}
	},
	"message from the future": func(p *dtlsPuppet) {
		h := wire.FragmentHeader{Type: typeCertificate, Length: 1, MessageSeq: p.messageSeq + assembleAhead + 1, Octets: 1}
		p.add(dtlsRecord{typ: wire.Handshake, content: append(wire.AppendFragmentHeader(nil, h), 0)})
	},
	"stray fragment": func(p *dtlsPuppet) {
		h := wire.FragmentHeader{Type: typeCertificate, Length: 100, MessageSeq: p.messageSeq, Octets: 1}
		p.add(dtlsRecord{typ: wire.Handshake, content: append(wire.AppendFragmentHeader(nil, h), 0)})
	},
	"message too long": func(p *dtlsPuppet) {
		h := wire.FragmentHeader{Type: typeUnassigned, Length: maxMessage + 1, MessageSeq: p.messageSeq, Octets: 1}
		p.add(dtlsRecord{typ: wire.Handshake, content: append(wire.AppendFragmentHeader(nil, h), 0)})
	},
	"ClientHello without a cookie": func(p *dtlsPuppet) {
		p.strayHello(func(h *wire.ClientHello) { h.Cookie = nil })
	},
	"ClientHello of another client": func(p *dtlsPuppet) {
		p.strayHello(func(h *wire.ClientHello) { h.Random = bytes.Repeat([]byte{9}, wire.RandomLen) })
	},
}

func clears(typ wire.ContentType, content ...byte) func(*dtlsPuppet) {
	return adds(dtlsRecord{typ: typ, content: content})
}

func protects(typ wire.ContentType, content ...byte) func(*dtlsPuppet) {
	return adds(dtlsRecord{typ: typ, epoch: 1, content: content})
}

func adds(r dtlsRecord) func(*dtlsPuppet) { return func(p *dtlsPuppet) { p.add(r) } }

func sendsRaw(b ...byte) func(*dtlsPuppet) {
	return func(p *dtlsPuppet) {
		p.flush()
		p.transmit(bytes.Clone(b))
	}
}

// saysProtected sends an unprotected message's octets in epoch 1.
func saysProtected(name string) func(*dtlsPuppet) {
	return func(p *dtlsPuppet) {
		p.keys()
		p.add(dtlsRecord{typ: wire.Handshake, epoch: 1, content: p.message(name), message: true})
	}
}

// strayHello sends a ClientHello that is not in the puppet's books, and does
// not take a cookie from the answer unless it is the puppet's own.
func (p *dtlsPuppet) strayHello(change func(*wire.ClientHello)) {
	p.flush()
	h := p.clientHello()
	change(h)
	body := h.Marshal(true)
	own := bytes.Equal(h.Random, p.clientRandom[:])
	raw := wire.AppendFragmentHeader(nil, wire.FragmentHeader{Type: wire.TypeClientHello, Length: len(body), MessageSeq: p.messageSeq, Octets: len(body)})
	p.add(dtlsRecord{typ: wire.Handshake, content: append(raw, body...)})
	cookie, transcript := p.cookie, p.transcript
	p.flush()
	p.transcript = transcript
	if !own {
		p.cookie = cookie
	}
}
