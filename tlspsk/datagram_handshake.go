package tlspsk

import (
	"os"
	"slices"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// How a datagram transport receives during the handshake. All methods here run
// on the handshake's goroutine, which owns what they change of in.

func (d *datagram) readMessage() ([]byte, error) {
	for {
		if raw := d.in.assembler.pop(); raw != nil {
			if raw[0] == wire.TypeClientKeyExchange {
				d.forgetFlight()
			}
			return raw, nil
		}
		if err := d.receive(); err != nil {
			return nil, err
		}
	}
}

// forgetFlight ends the repeating of a server's flight that the client has begun
// to answer. It is not needed any more, since the client has all of it; and it
// would be sent when GetPSK is done, so that whoever asks for it, by repeating the
// ClientHello, would learn how long GetPSK took, which delayRefusal hides.
func (d *datagram) forgetFlight() {
	d.outMu.Lock()
	defer d.outMu.Unlock()
	d.out.flight = flight{}
}

// receive takes in one datagram. Until one comes it repeats the flight.
func (d *datagram) receive() error {
	for {
		if isClosed(d.readBy.wait()) {
			return os.ErrDeadlineExceeded
		}
		b, err := d.nextDatagram()
		if err != nil {
			return err
		}
		if b != nil {
			return d.takeHandshakeDatagram(b)
		}
		if d.waitForDatagram() {
			d.outMu.Lock()
			d.out.timeout()
			d.outMu.Unlock()
		}
	}
}

// waitForDatagram returns when there may be a datagram, or the read deadline is
// over, or, with true, when the flight is to be repeated. A server that waits for
// the first ClientHello, or for the Finished, has no flight.
func (d *datagram) waitForDatagram() (timeout bool) {
	d.outMu.Lock()
	f := d.out.flight
	d.outMu.Unlock()
	if !f.sent {
		select {
		case <-d.arrived:
		case <-d.readBy.wait():
		}
		return false
	}
	timer := time.NewTimer(time.Until(f.repeat))
	defer timer.Stop()
	select {
	case <-d.arrived:
		return false
	case <-d.readBy.wait():
		return false
	case <-timer.C:
		return true
	}
}

// nextDatagram returns the next datagram of the inbox, or nil.
func (d *datagram) nextDatagram() ([]byte, error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	if d.in.err != nil {
		return nil, d.in.err
	}
	if len(d.in.inbox) == 0 {
		return nil, nil
	}
	b := d.in.inbox[0]
	d.in.inbox = slices.Delete(d.in.inbox, 0, 1)
	d.in.inboxOctets -= len(b)
	return b, nil
}

func (d *datagram) takeHandshakeDatagram(b []byte) error {
	for {
		h, fragment, rest, ok := wire.NextRecord(b, len(d.in.connectionID))
		if !ok {
			break
		}
		if err := d.takeHandshakeRecord(record{h, fragment}); err != nil {
			return err
		}
		b = rest
	}
	if d.in.repeated {
		d.in.repeated = false
		d.outMu.Lock()
		d.out.peerRepeats()
		d.outMu.Unlock()
	}
	return nil
}

func (d *datagram) takeHandshakeRecord(r record) error {
	switch r.Epoch() {
	case 0:
		return d.takeContent(r.Type, 0, r.fragment)
	case 1:
		if d.in.protection == nil {
			d.keepEarly(r)
			return nil
		}
		typ, content, err := d.open(r)
		if err != nil {
			return err
		}
		return d.takeContent(typ, 1, content)
	}
	return nil
}

// keepEarly keeps what may be a Finished that has overtaken what comes before
// it. It keeps a copy, not the datagram in which it came.
func (d *datagram) keepEarly(r record) {
	if len(d.in.early) == maxEarly || len(r.fragment) > maxEarlyOctets ||
		r.Type != wire.Handshake && r.Type != wire.ConnectionID {
		return
	}
	r.fragment = slices.Clone(r.fragment)
	r.ConnectionID = slices.Clone(r.ConnectionID)
	d.in.early = append(d.in.early, r)
}

// open decrypts a record of epoch 1 during the handshake. It returns nil for
// one that is to be dropped.
func (d *datagram) open(r record) (wire.ContentType, []byte, error) {
	typ, content, err := d.in.open(r)
	if err != nil && (r.Type == wire.Handshake || r.Type == wire.ConnectionID) {
		if d.in.forged++; d.in.forged >= maxForged {
			return 0, nil, fail(AlertBadRecordMAC, "%w", err)
		}
	}
	return typ, content, nil
}

// takeContent takes the content of a record during the handshake.
func (d *datagram) takeContent(typ wire.ContentType, epoch uint16, content []byte) error {
	switch typ {
	case wire.Handshake:
		d.takeFragments(content, epoch == 0 && d.in.protection != nil)
	case wire.Alert:
		// Before its Finished a server can refuse us only without protection,
		// and a wrong key is worth knowing at once. Anybody can send such an
		// alert, and so delay a handshake; never end a session.
		level, a, err := parseAlert(content)
		if err != nil {
			return nil
		}
		if level == alertLevelFatal || a == AlertCloseNotify {
			return &AlertError{Alert: a, Remote: true}
		}
	case wire.ApplicationData:
		// The server's first data may overtake its Finished. It is
		// authenticated; Read gets it when the handshake is complete.
		if d.isClient && epoch == 1 && len(content) > 0 {
			d.in.mu.Lock()
			d.in.push(slices.Clone(content))
			d.in.mu.Unlock()
		}
	}
	// A ChangeCipherSpec says nothing that the epoch does not say.
	return nil
}

// takeFragments takes the handshake fragments of a record. Stale says that the
// record is of an epoch that is over, so that it can only be a repetition.
func (d *datagram) takeFragments(content []byte, stale bool) {
	for len(content) > 0 {
		h, body, rest, ok := wire.NextFragment(content)
		if !ok {
			return
		}
		raw := content[:wire.DTLSHeaderLen+len(body)]
		if stale {
			d.in.repeated = d.in.repeated || int16(h.MessageSeq-d.in.assembler.next) < 0
		} else if d.in.assembler.add(h, raw) {
			d.in.repeated = true
		}
		content = rest
	}
}

// changeReadProtection needs no ChangeCipherSpec: records of the new epoch
// carry its number.
func (d *datagram) changeReadProtection(p suite.Protection) error {
	d.in.protection = p
	d.in.assembler.drop() // it was not authenticated
	early := d.in.early
	d.in.early = nil
	for _, r := range early {
		if err := d.takeHandshakeRecord(r); err != nil {
			return err
		}
	}
	return nil
}
