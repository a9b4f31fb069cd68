package tlspsk

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

const (
	// What a connection keeps of received datagrams is bounded; beyond that
	// they are dropped, as a full network would.
	maxInbox       = 16           // datagrams, during the handshake
	maxInboxOctets = 2 * maxHello // of all of them
	maxEarly       = 4            // records of the next epoch, before its keys are known
	maxEarlyOctets = 512          // of each: a Finished in any suite is shorter by far
	maxQueue       = 64           // records, until Read takes them

	// maxForged is how many records may fail authentication before the
	// handshake is given up. It is not one: a handshake should survive a
	// corrupted datagram. And it is not many: a client with a wrong key waits
	// for its retransmission timer each time.
	maxForged = 2
)

// errReplaced ends a session whose peer has opened a new one from the same
// address.
var errReplaced = errors.New("tlspsk: the peer has opened a new session")

// A datagram is the transport of DTLS: one peer, whose datagrams come in by
// deliver. The handshake reads them on its own goroutine; once it is done,
// deliver itself takes them apart, so that alerts and repeated flights are
// seen even while nobody reads.
type datagram struct {
	isClient          bool
	local             net.Addr
	remote            atomic.Pointer[net.Addr]
	retransmitTimeout time.Duration
	release           func() error // lets go of the network
	established       func()       // called when the handshake is done; may be nil
	// moved is called with the peer's new address; nil where that can't be.
	moved func(netip.AddrPort)

	arrived chan struct{} // signals the inbox, or in.err
	in      datagramReader
	readBy  deadline
	outMu   sync.Mutex // guards out; taken after in.mu
	out     datagramWriter
	writeBy deadline
}

// datagramReader is the receiving half of a datagram transport.
type datagramReader struct {
	mu   sync.Mutex // guards what follows
	err  error      // what ended the session, for good
	done bool       // the handshake is done

	// connectionID is what we want in protected records, and useID says that
	// the peer has agreed. noID says that we do not even offer.
	connectionID []byte
	useID, noID  bool

	inbox       [][]byte // datagrams for the handshake
	inboxOctets int
	// queue holds application data for Read; readable signals it, or err.
	queue    [][]byte
	readable chan struct{}

	// What follows belongs to the handshake's goroutine until done is set.
	assembler      assembler
	protection     suite.Protection // of epoch 1; nil before its keys are known
	early          []record         // of epoch 1, before its keys are known
	window         replayWindow     // of epoch 1
	limit          int              // longest plaintext that we take
	forged         int
	repeated       bool // the peer has repeated what we have
	renegotiations int
}

type record struct {
	wire.RecordHeader
	fragment []byte
}

func newDatagram(config *Config, isClient bool, send func([]byte) error) *datagram {
	d := &datagram{
		isClient:          isClient,
		retransmitTimeout: config.retransmitTimeout(),
		arrived:           make(chan struct{}, 1),
	}
	d.in.readable = make(chan struct{}, 1)
	d.in.noID = config.ConnectionID == PolicyDisable
	d.out.send = send
	d.out.mtu = config.mtu()
	d.setLimits(wire.MaxPlaintext, wire.MaxPlaintext)
	return d
}

func (d *datagram) version() uint16 { return VersionDTLS12 }
func (d *datagram) headerLen() int  { return wire.DTLSHeaderLen }

func (d *datagram) setLimits(write, read int) {
	d.outMu.Lock()
	d.out.limit = write
	d.outMu.Unlock()
	d.in.mu.Lock()
	d.in.limit = read
	d.in.mu.Unlock()
}

func (d *datagram) connectionID() ([]byte, bool) { return d.in.connectionID, !d.in.noID }

func (d *datagram) useConnectionIDs(peers []byte) {
	d.outMu.Lock()
	d.out.connectionID = slices.Clone(peers)
	d.outMu.Unlock()
	d.in.mu.Lock()
	d.in.useID = len(d.in.connectionID) > 0
	d.in.mu.Unlock()
}

// signal wakes a goroutine that waits on ch, now or next.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// deliver takes a datagram that may be the peer's. It may change b, and does
// not keep it.
func (d *datagram) deliver(b []byte, from netip.AddrPort) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	switch {
	case d.in.err != nil:
	case d.in.done:
		d.takeDatagram(b, from)
	case len(d.in.inbox) < maxInbox && d.in.inboxOctets+len(b) <= maxInboxOctets:
		d.in.inbox = append(d.in.inbox, slices.Clone(b))
		d.in.inboxOctets += len(b)
		signal(d.arrived)
	}
}

// end ends the session for its readers. Only the first reason counts.
func (d *datagram) end(err error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	d.endLocked(err)
}

func (d *datagram) endLocked(err error) {
	if d.in.err == nil {
		d.in.err = err
	}
	signal(d.arrived)
	signal(d.in.readable)
}

// ended returns what has ended the session, if anything has.
func (d *datagram) ended() error {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	return d.in.err
}

// abort ends the session at once.
func (d *datagram) abort() { d.end(net.ErrClosed) }

func (d *datagram) writeMessage(typ wire.MessageType, body []byte) []byte {
	d.outMu.Lock()
	defer d.outMu.Unlock()
	h := wire.FragmentHeader{Type: typ, Length: len(body), MessageSeq: d.out.messageSeq, Octets: len(body)}
	d.out.messageSeq++
	d.out.add(flightItem{typ: wire.Handshake, msg: h, body: body})
	raw := wire.AppendFragmentHeader(make([]byte, 0, wire.DTLSHeaderLen+len(body)), h)
	return append(raw, body...)
}

func (d *datagram) changeWriteProtection(p suite.Protection) {
	d.outMu.Lock()
	defer d.outMu.Unlock()
	d.out.add(flightItem{typ: wire.ChangeCipherSpec, body: []byte{1}})
	d.out.protection, d.out.epoch = p, 1
}

// flush sends nothing any more once the session has ended: a server whose
// callback took too long must not let the client believe in a session.
func (d *datagram) flush() error {
	if err := d.ended(); err != nil {
		return err
	}
	d.outMu.Lock()
	defer d.outMu.Unlock()
	return d.out.start(d.retransmitTimeout)
}

func (d *datagram) finishHandshake() {
	if d.established != nil {
		d.established()
	}
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	d.in.done = true
	for _, b := range d.in.inbox {
		d.takeDatagram(b, netip.AddrPort{})
	}
	d.in.inbox = nil
	if d.isClient {
		// The server's Finished has shown that our flight arrived.
		d.outMu.Lock()
		d.out.flight = flight{}
		d.outMu.Unlock()
	}
}

// takeDatagram takes a datagram of an established session. Nothing in it that
// is not authenticated has any effect. in.mu is held.
func (d *datagram) takeDatagram(b []byte, from netip.AddrPort) {
	for d.in.err == nil {
		h, fragment, rest, ok := wire.NextRecord(b, len(d.in.connectionID))
		if !ok {
			return
		}
		b = rest
		if h.Epoch() != 1 {
			continue
		}
		next := d.in.window.next
		typ, content, err := d.in.open(record{h, fragment})
		if err != nil || len(content) == 0 {
			continue
		}
		if d.in.useID && d.moved != nil && from.IsValid() && d.in.window.next > next {
			// RFC 9146 section 6: the record is authentic, and newer than all
			// before it, so it is no replay from somewhere else.
			d.moved(from)
		}
		switch typ {
		case wire.ApplicationData:
			d.takeData(content)
		case wire.Alert:
			d.takeAlert(content)
		case wire.Handshake:
			d.takeLateHandshake(content)
		}
	}
}

// open decrypts a record of epoch 1 and returns its true type. It returns nil
// for a record that is to be dropped: a replay, or one without the connection
// ID that was agreed on.
func (in *datagramReader) open(r record) (wire.ContentType, []byte, error) {
	seq := r.Seq & (1<<wire.SeqBits - 1)
	if !in.window.fresh(seq) || (r.Type == wire.ConnectionID) != in.useID ||
		in.useID && !bytes.Equal(r.ConnectionID, in.connectionID) {
		return 0, nil, nil
	}
	content, err := in.protection.Open(protectionHeader(r.RecordHeader), r.fragment)
	if err != nil {
		return 0, nil, err
	}
	in.window.mark(seq)
	typ := r.Type
	if in.useID {
		// RFC 9146 section 4: content, type, and any number of zeros.
		content = bytes.TrimRight(content, "\x00")
		if len(content) == 0 {
			return 0, nil, nil
		}
		typ, content = content[len(content)-1], content[:len(content)-1]
	}
	if len(content) > in.limit {
		return 0, nil, nil
	}
	return typ, content, nil
}

func (d *datagram) takeData(content []byte) {
	if !d.isClient {
		// The client has our Finished, so it will not ask for it again.
		d.outMu.Lock()
		d.out.flight = flight{}
		d.outMu.Unlock()
	}
	d.in.push(slices.Clone(content))
}

// push gives a record's content to Read. in.mu is held.
func (in *datagramReader) push(content []byte) {
	if len(in.queue) < maxQueue {
		in.queue = append(in.queue, content)
		signal(in.readable)
	}
}

func (d *datagram) takeAlert(content []byte) {
	level, a, err := parseAlert(content)
	switch {
	case err != nil:
	case a == AlertCloseNotify:
		d.endLocked(io.EOF)
	case level == alertLevelFatal:
		d.endLocked(&AlertError{Alert: a, Remote: true})
	}
}

// takeLateHandshake takes a handshake message after the handshake: a client's
// repeated Finished, which says that our last flight got lost (RFC 6347
// section 4.2.4), or a request to renegotiate. in.mu is held.
func (d *datagram) takeLateHandshake(content []byte) {
	h, _, _, ok := wire.NextFragment(content)
	if !ok {
		return
	}
	d.outMu.Lock()
	defer d.outMu.Unlock()
	switch {
	case !d.isClient && h.Type == wire.TypeFinished:
		d.out.peerRepeats()
	case renegotiationRequest(d.isClient, h.Type):
		d.in.renegotiations++
		if d.in.renegotiations > maxRenegotiations {
			d.sendAlertLocked(alertLevelFatal, AlertHandshakeFailure)
			d.endLocked(fail(AlertHandshakeFailure, "peer goes on asking for renegotiation"))
			return
		}
		d.sendAlertLocked(alertLevelWarning, AlertNoRenegotiation)
	}
}

func (d *datagram) sendAlert(level uint8, a Alert) {
	d.outMu.Lock()
	defer d.outMu.Unlock()
	d.sendAlertLocked(level, a)
}

func (d *datagram) sendAlertLocked(level uint8, a Alert) {
	if d.out.closed {
		return
	}
	if level == alertLevelFatal || a == AlertCloseNotify {
		d.out.closed = true
	}
	d.out.send(d.out.appendRecord(nil, wire.Alert, d.out.epoch, []byte{level, uint8(a)}))
}

func (d *datagram) read(p []byte) (int, error) {
	for {
		if isClosed(d.readBy.wait()) {
			return 0, os.ErrDeadlineExceeded
		}
		n, ok, err := d.in.pop(p)
		if ok || err != nil {
			return n, err
		}
		select {
		case <-d.in.readable:
		case <-d.readBy.wait():
		}
	}
}

// pop copies the next record's content to p. ok is false when there is none
// yet.
func (in *datagramReader) pop(p []byte) (n int, ok bool, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) == 0 {
		if in.err != nil {
			signal(in.readable) // for the next reader
		}
		return 0, false, in.err
	}
	content := in.queue[0]
	in.queue = slices.Delete(in.queue, 0, 1)
	if len(in.queue) > 0 || in.err != nil {
		signal(in.readable)
	}
	if n = copy(p, content); n < len(content) {
		return n, true, io.ErrShortBuffer
	}
	return n, true, nil
}

func (d *datagram) write(p []byte) (int, error) {
	if isClosed(d.writeBy.wait()) {
		return 0, os.ErrDeadlineExceeded
	}
	// Over a network that loses datagrams, nothing but this tells who only writes
	// that nobody listens any more. After a close_notify somebody may.
	if err := d.ended(); err != nil && err != io.EOF {
		return 0, err
	}
	d.outMu.Lock()
	defer d.outMu.Unlock()
	switch {
	case d.out.closed:
		return 0, errShutdown
	case len(p) > d.out.limit:
		return 0, ErrTooLarge
	case d.out.seq[1] > lastRecord:
		return 0, errors.New("tlspsk: the session's sequence numbers are used up")
	}
	large := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(large)
	if err := d.out.send(d.out.appendRecord(large[:0], wire.ApplicationData, d.out.epoch, p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (d *datagram) closeWrite() error {
	d.sendAlert(alertLevelWarning, AlertCloseNotify)
	return nil
}

func (d *datagram) close() error {
	d.sendAlert(alertLevelWarning, AlertCloseNotify)
	d.in.mu.Lock()
	d.in.queue = nil
	d.in.err = net.ErrClosed
	d.endLocked(net.ErrClosed)
	d.in.mu.Unlock()
	return d.release()
}

func (d *datagram) setReadDeadline(t time.Time) error {
	d.readBy.set(t)
	signal(d.in.readable) // a reader may wait for the deadline before
	return nil
}

func (d *datagram) setWriteDeadline(t time.Time) error {
	d.writeBy.set(t)
	return nil
}

func (d *datagram) setRemote(a net.Addr) { d.remote.Store(&a) }
func (d *datagram) LocalAddr() net.Addr  { return d.local }
func (d *datagram) RemoteAddr() net.Addr { return *d.remote.Load() }
