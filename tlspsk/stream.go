package tlspsk

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/suite"
	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// closeTimeout bounds how long Close waits for close_notify to be taken by the
// network.
const closeTimeout = 5 * time.Second

// maxSeq is the number of records after which a direction must end, since
// renegotiation is not to be had (RFC 5246 section 6.1).
const maxSeq = 1<<64 - 1

// A stream is the transport of TLS.
type stream struct {
	conn     net.Conn
	isClient bool

	in  streamReader
	out streamWriter
}

// streamReader is the receiving half of a stream.
type streamReader struct {
	mu         sync.Mutex // guards what follows
	buffer     recordBuffer
	protection suite.Protection // nil before ChangeCipherSpec
	seq        uint64
	limit      int // longest plaintext that we take
	sawRecord  bool
	sawHello   bool // the first handshake message is complete

	handshake []byte // of messages not yet returned; a record may hold part of one, or several
	returned  int    // octets of handshake that readMessage has returned
	plaintext []byte // of application data not yet returned; within buffer

	warnings       int // in a row
	renegotiations int
	err            error // what ended reading, for good
}

// streamWriter is the sending half of a stream.
type streamWriter struct {
	mu         sync.Mutex // guards what follows
	protection suite.Protection
	seq        uint64
	limit      int    // longest plaintext that the peer takes
	flight     []byte // handshake records not yet sent
	closed     bool   // close_notify or a fatal alert has been sent
	err        error  // what ended writing, for good
}

func newStream(conn net.Conn, isClient bool) *stream {
	s := &stream{conn: conn, isClient: isClient}
	s.setLimits(wire.MaxPlaintext, wire.MaxPlaintext)
	return s
}

func (s *stream) version() uint16 { return VersionTLS12 }
func (s *stream) headerLen() int  { return wire.HeaderLen }

// A stream needs no connection IDs.
func (s *stream) connectionID() ([]byte, bool) { return nil, false }
func (s *stream) useConnectionIDs([]byte)      {}

func (s *stream) setLimits(write, read int) {
	s.out.mu.Lock()
	s.out.limit = write
	s.out.mu.Unlock()
	s.in.mu.Lock()
	s.in.limit = read
	s.in.mu.Unlock()
}

// nextRecord reads the next record and returns its plaintext, which is valid
// until the next call. in.mu is held.
func (s *stream) nextRecord() (wire.ContentType, []byte, error) {
	in := &s.in
	b, err := in.buffer.peek(s.conn, wire.RecordHeaderLen)
	if err != nil {
		return 0, nil, err
	}
	h := wire.ParseRecordHeader(b)
	if err := s.checkHeader(h); err != nil {
		return 0, nil, err
	}
	n := wire.RecordHeaderLen + h.Length
	if b, err = in.buffer.peek(s.conn, n); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	in.buffer.consume(n)
	content := b[wire.RecordHeaderLen:]
	if in.protection != nil {
		if in.seq == maxSeq {
			return 0, nil, fail(AlertInternalError, "the session's sequence numbers are used up")
		}
		content, err = in.protection.Open(suite.Header{Seq: in.seq, Type: h.Type, Version: h.Version}, content)
		if err != nil {
			return 0, nil, fail(AlertBadRecordMAC, "%w", err)
		}
		in.seq++
	}
	// Unprotected records need not keep to a record_size_limit (RFC 8449 section 4).
	if in.protection != nil && len(content) > in.limit {
		return 0, nil, fail(AlertRecordOverflow, "record of %d octets, more than %d", len(content), in.limit)
	}
	in.sawRecord = true
	return h.Type, content, nil
}

func (s *stream) checkHeader(h wire.RecordHeader) error {
	if !s.in.sawRecord {
		// The first record tells a peer of another protocol.
		if h.Version>>8 != wire.VersionTLS12>>8 {
			return fail(AlertProtocolVersion, "the first octets are no TLS record")
		}
		if h.Type != wire.Handshake && h.Type != wire.Alert {
			return fail(AlertUnexpectedMessage, "the first record is of type %d", h.Type)
		}
	}
	// A ClientHello's records, of which there may be several, may be of an older
	// version (RFC 5246 appendix E.1).
	if h.Version != wire.VersionTLS12 && (s.in.sawHello || h.Version>>8 != wire.VersionTLS12>>8) {
		return fail(AlertProtocolVersion, "record of version 0x%04x", h.Version)
	}
	limit := wire.MaxPlaintext
	if s.in.protection != nil {
		limit = wire.MaxCiphertext
	}
	if h.Length > limit {
		return fail(AlertRecordOverflow, "record of %d octets, more than %d", h.Length, limit)
	}
	return nil
}

// handleAlert returns what a received alert means for the reader, nil for one
// to be ignored. in.mu is held.
func (s *stream) handleAlert(content []byte) error {
	level, a, err := parseAlert(content)
	if err != nil {
		return err
	}
	if a == AlertCloseNotify {
		return io.EOF
	}
	if level == alertLevelFatal {
		return &AlertError{Alert: a, Remote: true}
	}
	return s.warn("warning alerts")
}

// warn counts a record that gives us nothing.
func (s *stream) warn(what string) error {
	s.in.warnings++
	if s.in.warnings > maxWarnings {
		return fail(AlertUnexpectedMessage, "too many %s in a row", what)
	}
	return nil
}

func (s *stream) readMessage() ([]byte, error) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	in := &s.in
	in.handshake = append(in.handshake[:0], in.handshake[in.returned:]...)
	in.returned = 0
	for {
		if len(in.handshake) >= wire.HeaderLen {
			typ, n := wire.ParseHeader(in.handshake)
			if err := checkMessageLength(typ, n); err != nil {
				return nil, err
			}
			if n += wire.HeaderLen; len(in.handshake) >= n {
				in.returned, in.sawHello = n, true
				return in.handshake[:n:n], nil
			}
		}
		typ, content, err := s.nextRecord()
		if err != nil {
			return nil, err
		}
		switch typ {
		case wire.Handshake:
			if len(content) == 0 {
				return nil, fail(AlertUnexpectedMessage, "empty handshake record")
			}
			in.handshake = append(in.handshake, content...)
		case wire.Alert:
			if err := s.handleAlert(content); err == io.EOF {
				return nil, &AlertError{Alert: AlertCloseNotify, Remote: true}
			} else if err != nil {
				return nil, err
			}
		default:
			return nil, fail(AlertUnexpectedMessage, "record of type %d within the handshake", typ)
		}
	}
}

func (s *stream) changeReadProtection(p suite.Protection) error {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	in := &s.in
	// A message that straddles the change of keys would be half
	// unauthenticated.
	if in.returned != len(in.handshake) {
		return fail(AlertUnexpectedMessage, "handshake message before ChangeCipherSpec")
	}
	for {
		typ, content, err := s.nextRecord()
		if err != nil {
			return err
		}
		switch {
		case typ == wire.Alert:
			if err := s.handleAlert(content); err == io.EOF {
				return &AlertError{Alert: AlertCloseNotify, Remote: true}
			} else if err != nil {
				return err
			}
			continue
		case typ != wire.ChangeCipherSpec:
			return fail(AlertUnexpectedMessage, "record of type %d instead of ChangeCipherSpec", typ)
		case len(content) != 1 || content[0] != 1:
			return fail(AlertDecodeError, "malformed ChangeCipherSpec")
		}
		in.protection, in.seq = p, 0
		return nil
	}
}

func (s *stream) finishHandshake() {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	// What came with the last message stays for the reader to refuse.
	if s.in.returned == len(s.in.handshake) {
		s.in.handshake, s.in.returned = nil, 0
	}
	s.in.warnings = 0
	s.in.buffer.trusting = true
}

// appendRecords appends the records that carry content. out.mu is held.
func (out *streamWriter) appendRecords(dst []byte, typ wire.ContentType, content []byte) []byte {
	for {
		n := min(len(content), out.limit)
		start := len(dst)
		dst = append(dst, make([]byte, wire.RecordHeaderLen)...)
		if out.protection == nil {
			dst = append(dst, content[:n]...)
		} else {
			dst = out.protection.Seal(dst, suite.Header{Seq: out.seq, Type: typ, Version: wire.VersionTLS12}, content[:n])
			out.seq++
		}
		wire.PutRecordHeader(dst[start:], wire.RecordHeader{
			Type: typ, Version: wire.VersionTLS12, Length: len(dst) - start - wire.RecordHeaderLen})
		if content = content[n:]; len(content) == 0 {
			return dst
		}
	}
}

func (s *stream) writeMessage(typ wire.MessageType, body []byte) []byte {
	raw := append(wire.AppendHeader(make([]byte, 0, wire.HeaderLen+len(body)), typ, len(body)), body...)
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.out.flight = s.out.appendRecords(s.out.flight, wire.Handshake, raw)
	return raw
}

func (s *stream) changeWriteProtection(p suite.Protection) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.out.flight = s.out.appendRecords(s.out.flight, wire.ChangeCipherSpec, []byte{1})
	s.out.protection, s.out.seq = p, 0
}

func (s *stream) flush() error {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	_, err := s.conn.Write(s.out.flight)
	s.out.flight = nil
	return err
}

func (s *stream) sendAlert(level uint8, a Alert) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.sendAlertLocked(level, a)
}

func (s *stream) sendAlertLocked(level uint8, a Alert) {
	if s.out.closed || s.out.err != nil {
		return
	}
	if level == alertLevelFatal || a == AlertCloseNotify {
		s.out.closed = true
	}
	var record [96]byte
	b := s.out.appendRecords(record[:0], wire.Alert, []byte{level, uint8(a)})
	if _, err := s.conn.Write(b); err != nil {
		s.out.err = err
	}
}

func (s *stream) abort() { s.conn.Close() }

func (s *stream) read(p []byte) (int, error) {
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	in := &s.in
	for len(in.plaintext) == 0 {
		if in.err != nil {
			return 0, in.err
		}
		if err := s.readApplicationData(); err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				return 0, err // the caller may set another deadline and go on
			}
			in.err = err
			if a, ok := alertFor(err); ok {
				s.sendAlert(alertLevelFatal, a)
			}
		}
	}
	n := copy(p, in.plaintext)
	in.plaintext = in.plaintext[n:]
	return n, nil
}

// readApplicationData reads one record. in.mu is held.
func (s *stream) readApplicationData() error {
	if len(s.in.handshake) > 0 {
		return fail(AlertUnexpectedMessage, "handshake message after Finished")
	}
	typ, content, err := s.nextRecord()
	if err == io.EOF {
		// Without close_notify the end may be an attacker's: a cut is no end
		// (RFC 5246 section 7.2.1).
		return io.ErrUnexpectedEOF
	}
	if err != nil {
		return err
	}
	switch typ {
	case wire.ApplicationData:
		if len(content) == 0 {
			return s.warn("empty records")
		}
		s.in.warnings = 0
		s.in.plaintext = content
		return nil
	case wire.Alert:
		return s.handleAlert(content)
	case wire.Handshake:
		return s.refuseRenegotiation(content)
	}
	return fail(AlertUnexpectedMessage, "record of type %d after the handshake", typ)
}

// refuseRenegotiation answers a request to renegotiate with the warning that
// RFC 5246 section 7.2.2 has for it. The message is not even parsed, and a
// peer that goes on asking is dropped. in.mu is held.
func (s *stream) refuseRenegotiation(content []byte) error {
	if len(content) == 0 || !renegotiationRequest(s.isClient, content[0]) {
		return fail(AlertUnexpectedMessage, "handshake message after the handshake")
	}
	s.in.renegotiations++
	if s.in.renegotiations > maxRenegotiations {
		return fail(AlertHandshakeFailure, "peer goes on asking for renegotiation")
	}
	s.sendAlert(alertLevelWarning, AlertNoRenegotiation)
	return nil
}

func (s *stream) write(p []byte) (int, error) {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	out := &s.out
	if out.err != nil {
		return 0, out.err
	}
	if out.closed {
		return 0, errShutdown
	}
	large := largeBuffers.Get().(*[largeBuffer]byte)
	defer largeBuffers.Put(large)
	written := 0
	for len(p) > 0 {
		if out.seq == maxSeq {
			out.err = errors.New("tlspsk: the session's sequence numbers are used up")
			return written, out.err
		}
		n := min(len(p), out.limit)
		b := out.appendRecords(large[:0], wire.ApplicationData, p[:n])
		if _, err := s.conn.Write(b); err != nil {
			// Part of the record may be on its way: nothing can follow it.
			out.err = err
			return written, err
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

func (s *stream) closeWrite() error {
	s.out.mu.Lock()
	defer s.out.mu.Unlock()
	s.sendAlertLocked(alertLevelWarning, AlertCloseNotify)
	return s.out.err
}

func (s *stream) close() error {
	// A Write that is blocked on a peer that does not read must not block
	// Close: then the connection is cut without close_notify.
	if s.out.mu.TryLock() {
		s.conn.SetWriteDeadline(time.Now().Add(closeTimeout))
		s.sendAlertLocked(alertLevelWarning, AlertCloseNotify)
		s.out.err = net.ErrClosed
		s.out.mu.Unlock()
	}
	return s.conn.Close()
}

func (s *stream) setReadDeadline(t time.Time) error  { return s.conn.SetReadDeadline(t) }
func (s *stream) setWriteDeadline(t time.Time) error { return s.conn.SetWriteDeadline(t) }
func (s *stream) LocalAddr() net.Addr                { return s.conn.LocalAddr() }
func (s *stream) RemoteAddr() net.Addr               { return s.conn.RemoteAddr() }
