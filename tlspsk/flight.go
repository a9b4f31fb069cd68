package tlspsk

import (
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A flight is the messages that one side sends in one go, kept until the other
// side's answer shows that they have arrived (RFC 6347 section 4.2.4).
type flight struct {
	items  []flightItem
	sent   bool
	sentAt time.Time
	rto    time.Duration // until it is repeated
	repeat time.Time     // when it is to be repeated unless answered
	losses int           // timeouts in a row
}

// A flightItem is a handshake message or a ChangeCipherSpec.
type flightItem struct {
	typ   wire.ContentType
	epoch uint16
	msg   wire.FragmentHeader
	body  []byte
}

// datagramWriter is the sending half of a datagram transport. Its methods need
// its owner's out.mu.
type datagramWriter struct {
	send       func([]byte) error // sends one datagram
	mtu        int
	limit      int // longest plaintext of a record that the peer takes
	epoch      uint16
	seq        [2]uint64 // of the next record, by epoch
	messageSeq uint16    // of the next handshake message
	protection suite.Protection
	// connectionID is what the peer wants in protected records; empty for
	// none. inner is scratch for what such records hold.
	connectionID, inner []byte
	flight              flight
	closed              bool // close_notify or a fatal alert has been sent
}

// lastRecord is the last sequence number that Write may use. The numbers above it
// are for alerts and repeated flights: if one wrapped, it would run into the
// epoch, and a nonce would come again.
const lastRecord = 1<<wire.SeqBits - 1<<20

// add starts a new flight when the last has been sent, and adds to it.
func (w *datagramWriter) add(item flightItem) {
	if w.flight.sent {
		w.flight = flight{}
	}
	item.epoch = w.epoch
	w.flight.items = append(w.flight.items, item)
}

// appendRecord appends a record of the given epoch.
func (w *datagramWriter) appendRecord(dst []byte, typ wire.ContentType, epoch uint16, content []byte) []byte {
	h := wire.RecordHeader{Type: typ, Version: wire.VersionDTLS12, Seq: uint64(epoch)<<wire.SeqBits | w.seq[epoch]}
	w.seq[epoch]++
	if epoch > 0 && len(w.connectionID) > 0 {
		// RFC 9146 section 4: the true type goes under cover.
		h.Type, h.ConnectionID = wire.ConnectionID, w.connectionID
		w.inner = append(append(w.inner[:0], content...), typ)
		content = w.inner
	}
	start := len(dst)
	dst = wire.AppendDTLSRecordHeader(dst, h)
	if epoch == 0 {
		dst = append(dst, content...)
	} else {
		dst = w.protection.Seal(dst, protectionHeader(h), content)
	}
	wire.PutDTLSLength(dst[start:], len(h.ConnectionID))
	return dst
}

// protectionHeader is what protection authenticates of a record's header.
func protectionHeader(h wire.RecordHeader) suite.Header {
	return suite.Header{Seq: h.Seq, Type: h.Type, Version: h.Version, ConnectionID: h.ConnectionID}
}

// overhead is what a record of an epoch has beside its content, at most.
func (w *datagramWriter) overhead(epoch uint16) int {
	if epoch == 0 {
		return wire.DTLSRecordHeaderLen
	}
	return wire.DTLSRecordHeaderLen + w.protection.Overhead() + len(w.connectionID) + 1
}

// sendFlight sends the flight in as few datagrams as the MTU allows.
func (w *datagramWriter) sendFlight() error {
	large := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(large)
	datagram := large[:0]
	flushed := func(size int) error {
		if len(datagram) == 0 || len(datagram)+size <= w.mtu {
			return nil
		}
		err := w.send(datagram)
		datagram = datagram[:0]
		return err
	}
	for _, item := range w.flight.items {
		if item.typ != wire.Handshake {
			if err := flushed(w.overhead(item.epoch) + len(item.body)); err != nil {
				return err
			}
			datagram = w.appendRecord(datagram, item.typ, item.epoch, item.body)
			continue
		}
		overhead := w.overhead(item.epoch) + wire.DTLSHeaderLen
		// A peer's connection ID of 255 octets leaves no room in a small MTU.
		most := min(max(w.mtu-overhead, minFragment), w.limit-wire.DTLSHeaderLen)
		for h := item.msg; ; h.Offset += h.Octets {
			h.Octets = min(h.Length-h.Offset, most)
			if err := flushed(overhead + h.Octets); err != nil {
				return err
			}
			fragment := wire.AppendFragmentHeader(make([]byte, 0, wire.DTLSHeaderLen+h.Octets), h)
			fragment = append(fragment, item.body[h.Offset:h.Offset+h.Octets]...)
			datagram = w.appendRecord(datagram, item.typ, item.epoch, fragment)
			if h.Offset+h.Octets == h.Length {
				break
			}
		}
	}
	return w.send(datagram)
}

// start sends a new flight and sets its timer.
func (w *datagramWriter) start(rto time.Duration) error {
	now := time.Now()
	w.flight.sent, w.flight.sentAt = true, now
	w.flight.rto, w.flight.repeat = rto, now.Add(rto)
	return w.sendFlight()
}

// timeout repeats the flight because no answer came. After the second time it
// sends smaller datagrams: the large ones may be what gets lost (RFC 6347
// section 4.1.1.1).
func (w *datagramWriter) timeout() {
	f := &w.flight
	f.losses++
	if f.losses >= 2 {
		w.mtu = max(w.mtu/2, minMTU)
	}
	now := time.Now()
	f.rto = min(2*f.rto, maxRetransmitTimeout)
	f.sentAt, f.repeat = now, now.Add(f.rto)
	w.sendFlight() // if it fails, the timer comes again
}

// peerRepeats repeats the flight because the peer has repeated its own, and so
// may have missed ours. It does so at most once in half the timeout: anybody
// can repeat a datagram, and must not make us send two for one.
func (w *datagramWriter) peerRepeats() {
	f := &w.flight
	if now := time.Now(); f.sent && now.Sub(f.sentAt) >= f.rto/2 {
		f.sentAt, f.repeat = now, now.Add(f.rto)
		w.sendFlight()
	}
}
