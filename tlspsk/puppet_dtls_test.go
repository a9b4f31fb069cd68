package tlspsk

import (
	"bytes"
	"net/netip"
	"slices"
	"testing/synctest"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// How a dtlsPuppet cuts what it says into datagrams. Whole is each record in
// its own.
const (
	batched   delivery = iota + 10 // a flight in one datagram
	merged                         // the same, and its unprotected messages in one record
	fragments                      // messages in three overlapping pieces, the last one first
	doubled                        // each datagram twice
)

var datagramDeliveries = map[delivery]string{whole: "whole", batched: "batched", merged: "merged", fragments: "fragments", doubled: "doubled"}

// A dtlsPuppet is a puppet on a simulated network. It works in a synctest
// bubble, which tells it when the victim has said all that it has to say.
type dtlsPuppet struct {
	*puppet
	delivery delivery
	net      *simNet
	socket   *simSocket
	to       netip.AddrPort

	recordSeq  [3]uint64 // of the next record, by epoch
	messageSeq uint16    // of the next message
	heardSeq   uint16    // of the victim's next message

	pending        []dtlsRecord // of a batch
	last           *dtlsMessage // what "repeat" says again
	lastAuthentic  []byte       // what "replay" sends again
	verifyRequests int          // heard
}

// A dtlsRecord is a record before it is numbered and protected.
type dtlsRecord struct {
	typ     wire.ContentType
	epoch   uint16
	content []byte
	forged  bool // protected with a fault
	decoy   bool // protected with keys that nobody has
	message bool // whole handshake messages, which may be cut

	withoutID bool // although the victim wants one
	strangeID []byte
}

type dtlsMessage struct {
	epoch uint16
	raw   []byte
}

// puppetsServer is the server's address. That of simServer has a queue for
// thousands of clients.
const puppetsServer = "192.0.2.2:5684"

func newDTLSPuppet(n *simNet, isClient bool, v variant, d delivery) *dtlsPuppet {
	own, other := puppetsServer, simClient
	if isClient {
		own, other = other, own
	}
	return &dtlsPuppet{puppet: newPuppet(isClient, true, v), delivery: d, net: n, socket: n.socket(own), to: netip.MustParseAddrPort(other)}
}

func (p *dtlsPuppet) play(name string) {
	m, isMessage := puppetMessages[name]
	if !isMessage {
		dtlsRecords[name](p)
	} else {
		// A server looks for a ClientHello at the start of a datagram.
		if m.typ == wire.TypeClientHello {
			p.flush()
		}
		epoch := uint16(0)
		if m.typ == wire.TypeFinished {
			epoch = 1
		}
		p.say(name, epoch)
	}
	ends := []wire.MessageType{wire.TypeClientHello, wire.TypeHelloVerifyRequest, wire.TypeServerHelloDone, wire.TypeFinished}
	if p.delivery != batched && p.delivery != merged || p.finishedOK || isMessage && slices.Contains(ends, m.typ) {
		p.flush()
	}
}

// message makes a handshake message and takes it into the books.
func (p *dtlsPuppet) message(name string) []byte {
	m := puppetMessages[name]
	body := m.body(p.puppet)
	raw := wire.AppendFragmentHeader(nil, wire.FragmentHeader{Type: m.typ, Length: len(body), MessageSeq: p.messageSeq, Octets: len(body)})
	raw = append(raw, body...)
	p.messageSeq++
	p.said(m.typ, raw)
	return raw
}

// say sends a handshake message.
func (p *dtlsPuppet) say(name string, epoch uint16) {
	p.last = &dtlsMessage{epoch, p.message(name)}
	p.add(dtlsRecord{typ: wire.Handshake, epoch: epoch, content: p.last.raw, message: true})
}

// add takes a record for the next flush. Before the puppet has keys, all but
// messages gets those of nobody.
func (p *dtlsPuppet) add(r dtlsRecord) {
	if r.epoch == 1 && r.typ != wire.Handshake {
		p.flush() // before there are keys, a victim keeps nothing but messages
	}
	r.decoy = r.decoy || !p.keysFixed && !r.message
	p.pending = append(p.pending, r)
}

// flush sends what is pending, and hears the answer.
func (p *dtlsPuppet) flush() {
	var datagrams [][]byte
	for _, r := range p.cut(p.pending) {
		b := p.record(r)
		if (p.delivery == batched || p.delivery == merged) && len(datagrams) > 0 {
			datagrams[0] = append(datagrams[0], b...)
			continue
		}
		datagrams = append(datagrams, b)
	}
	p.pending = nil
	for _, b := range datagrams {
		p.transmit(b)
	}
}

// transmit sends a datagram, and hears the answer.
func (p *dtlsPuppet) transmit(b []byte) {
	p.net.deliver(p.socket.addr, p.to, b)
	if p.delivery == doubled {
		p.net.deliver(p.socket.addr, p.to, b)
	}
	p.hear()
}

// hear takes in all that the victim has to say.
func (p *dtlsPuppet) hear() {
	synctest.Wait()
	for {
		select {
		case d := <-p.socket.in:
			p.heardDatagram(d.b)
		default:
			return
		}
	}
}

// cut cuts and joins messages as the delivery has it.
func (p *dtlsPuppet) cut(list []dtlsRecord) (out []dtlsRecord) {
	for _, r := range list {
		switch {
		case p.delivery == fragments && r.message:
			out = append(out, pieces(r)...)
		case p.delivery == merged && r.message && r.epoch == 0 && len(out) > 0 && out[len(out)-1].message && out[len(out)-1].epoch == 0:
			before := &out[len(out)-1]
			before.content = slices.Concat(before.content, r.content)
		default:
			out = append(out, r)
		}
	}
	return out
}

// pieces cuts a message in three that overlap, the last one first. Those of a
// ClientHello come in order, since a server drops what it has seen no cookie
// for; the cookie is in the first.
func pieces(r dtlsRecord) (out []dtlsRecord) {
	h, body, _, _ := wire.NextFragment(r.content)
	if h.Length < 3 {
		return []dtlsRecord{r}
	}
	first, second := h.Length/3, 2*h.Length/3
	if h.Type == wire.TypeClientHello {
		first, second = h.Length-5, h.Length-2
	}
	for _, at := range [][2]int{{second, h.Length}, {max(0, first-2), min(second+2, h.Length)}, {0, first}} {
		h.Offset, h.Octets = at[0], at[1]-at[0]
		piece := r
		piece.content = append(wire.AppendFragmentHeader(nil, h), body[at[0]:at[1]]...)
		out = append(out, piece)
	}
	if h.Type == wire.TypeClientHello {
		slices.Reverse(out)
	}
	return out
}

// record numbers and protects a record.
func (p *dtlsPuppet) record(r dtlsRecord) []byte {
	h := wire.RecordHeader{Type: r.typ, Version: VersionDTLS12, Seq: uint64(r.epoch)<<wire.SeqBits | p.recordSeq[r.epoch]}
	p.recordSeq[r.epoch]++
	if id := slices.Concat(p.connectionID, r.strangeID); len(id) > 0 && r.epoch > 0 && !r.withoutID {
		h.Type, h.ConnectionID = wire.ConnectionID, id
		r.content = append(slices.Clone(r.content), r.typ, 0, 0) // and some padding
	}
	b := wire.AppendDTLSRecordHeader(nil, h)
	if r.epoch == 0 {
		b = append(b, r.content...)
	} else {
		p.keys()
		seal := p.seal
		if r.decoy {
			seal = p.decoy()
		}
		b = seal.Seal(b, protectionHeader(h), r.content)
	}
	wire.PutDTLSLength(b, len(h.ConnectionID))
	if r.forged {
		b[len(b)-1] ^= 1
	} else if r.epoch == 1 && p.keysFixed && !r.decoy {
		p.lastAuthentic = b
	}
	return b
}

// decoy is a protection with keys that nobody has.
func (p *dtlsPuppet) decoy() suite.Protection {
	seal, _, err := p.suite.Protections(p.suite.NewPRF([]byte("decoy")), p.clientRandom[:], p.serverRandom[:], p.variant.etm())
	if err != nil {
		panic(err)
	}
	return seal
}

func (p *dtlsPuppet) heardDatagram(b []byte) {
	idLen := 0
	if p.variant.connectionIDs && !p.isClient {
		idLen = len(puppetsID)
	}
	for len(b) > 0 {
		h, content, rest, ok := wire.NextRecord(b, idLen)
		if !ok {
			p.fault("datagram %x", b)
			return
		}
		b = rest
		if h.Epoch() == 1 {
			p.keys()
			var err error
			if content, err = p.open.Open(protectionHeader(h), content); err != nil {
				p.fault("record of type %d: %v", h.Type, err)
				continue
			}
			if idLen > 0 {
				if h.Type != wire.ConnectionID || string(h.ConnectionID) != puppetsID {
					p.fault("record of type %d with the ID %x", h.Type, h.ConnectionID)
				}
				h.Type, content = content[len(content)-1], content[:len(content)-1]
			}
		}
		switch h.Type {
		case wire.Handshake:
			p.heardFragments(content)
		case wire.Alert:
			p.heardAlert(content)
		case wire.ApplicationData:
			p.data = append(p.data, content...)
		case wire.ChangeCipherSpec:
		default:
			p.fault("record of type %d", h.Type)
		}
	}
}

// heardFragments takes the victim's messages, which come whole and in order.
func (p *dtlsPuppet) heardFragments(content []byte) {
	for len(content) > 0 {
		f, body, rest, ok := wire.NextFragment(content)
		if !ok || f.Octets != f.Length {
			p.fault("fragment %x", content)
			return
		}
		raw := content[:wire.DTLSHeaderLen+len(body)]
		content = rest
		switch {
		case f.Type == wire.TypeHelloVerifyRequest:
			p.verifyRequests++
		case f.Type == wire.TypeServerHello && !p.helloHeard:
			p.heardSeq = f.MessageSeq + 1 // a server goes on with the client's number
		case f.MessageSeq == p.heardSeq:
			p.heardSeq++
		case f.MessageSeq < p.heardSeq:
			continue // repeated
		default:
			p.fault("message_seq %d before %d", f.MessageSeq, p.heardSeq)
		}
		p.heard(f.Type, bytes.Clone(body), bytes.Clone(raw))
	}
}
