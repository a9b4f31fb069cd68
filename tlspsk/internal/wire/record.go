package wire

import "encoding/binary"

// SeqBits is the width of the sequence number in a DTLS record header; above
// it stands the epoch.
const SeqBits = 48

// A RecordHeader is the header of a TLS or DTLS record.
type RecordHeader struct {
	Type    ContentType
	Version uint16
	Seq     uint64 // DTLS: epoch<<SeqBits | sequence number
	// ConnectionID is that of a DTLS record of type ConnectionID.
	ConnectionID []byte
	Length       int
}

// Epoch returns the epoch of a DTLS record.
func (h RecordHeader) Epoch() uint16 { return uint16(h.Seq >> SeqBits) }

// ParseRecordHeader reads the header of a TLS record. b has RecordHeaderLen
// octets or more.
func ParseRecordHeader(b []byte) RecordHeader {
	return RecordHeader{
		Type:    b[0],
		Version: binary.BigEndian.Uint16(b[1:]),
		Length:  int(binary.BigEndian.Uint16(b[3:])),
	}
}

// PutRecordHeader writes the header of a TLS record into b.
func PutRecordHeader(b []byte, h RecordHeader) {
	b[0] = h.Type
	binary.BigEndian.PutUint16(b[1:], h.Version)
	binary.BigEndian.PutUint16(b[3:], uint16(h.Length))
}

// NextRecord splits the first DTLS record off a datagram. Records of type
// ConnectionID carry a connection ID of idLen octets; with an idLen of 0 there
// are none. It returns false when there is no whole record, or one of a version
// that is not ours: such octets are dropped without an answer (RFC 6347 section
// 4.1.2.7).
func NextRecord(datagram []byte, idLen int) (h RecordHeader, fragment, rest []byte, ok bool) {
	if len(datagram) < DTLSRecordHeaderLen {
		return h, nil, nil, false
	}
	h = RecordHeader{
		Type:    datagram[0],
		Version: binary.BigEndian.Uint16(datagram[1:]),
		Seq:     binary.BigEndian.Uint64(datagram[3:]),
	}
	rest = datagram[dtlsLengthAt:]
	if h.Type == ConnectionID {
		if idLen == 0 || len(rest) < idLen+2 {
			return h, nil, nil, false
		}
		h.ConnectionID, rest = rest[:idLen:idLen], rest[idLen:]
	}
	h.Length, rest = int(binary.BigEndian.Uint16(rest)), rest[2:]
	if h.Version != VersionDTLS12 && h.Version != VersionDTLS10 || h.Length > len(rest) || h.Length > MaxCiphertext {
		return h, nil, nil, false
	}
	return h, rest[:h.Length:h.Length], rest[h.Length:], true
}

// dtlsLengthAt is where in a DTLS record header the connection ID is, if any,
// and then the length.
const dtlsLengthAt = DTLSRecordHeaderLen - 2

// AppendDTLSRecordHeader appends the header of a DTLS record. When its length
// is not known yet, PutDTLSLength sets it later.
func AppendDTLSRecordHeader(dst []byte, h RecordHeader) []byte {
	dst = append(dst, h.Type)
	dst = binary.BigEndian.AppendUint16(dst, h.Version)
	dst = binary.BigEndian.AppendUint64(dst, h.Seq)
	dst = append(dst, h.ConnectionID...)
	return binary.BigEndian.AppendUint16(dst, uint16(h.Length))
}

// PutDTLSLength sets the length in the header at the beginning of record from
// the record's own, given the length of its connection ID.
func PutDTLSLength(record []byte, idLen int) {
	at := dtlsLengthAt + idLen
	binary.BigEndian.PutUint16(record[at:], uint16(len(record)-at-2))
}

// A FragmentHeader is the header of a DTLS handshake message, or of one
// fragment of it (RFC 6347 section 4.2.2).
type FragmentHeader struct {
	Type           MessageType
	Length         int // of the whole message
	MessageSeq     uint16
	Offset, Octets int // where this fragment lies, and how long it is
}

// NextFragment splits the first handshake fragment off a record's content.
func NextFragment(content []byte) (h FragmentHeader, body, rest []byte, ok bool) {
	if len(content) < DTLSHeaderLen {
		return h, nil, nil, false
	}
	h = FragmentHeader{
		Type:       content[0],
		Length:     getUint24(content[1:]),
		MessageSeq: binary.BigEndian.Uint16(content[4:]),
		Offset:     getUint24(content[6:]),
		Octets:     getUint24(content[9:]),
	}
	rest = content[DTLSHeaderLen:]
	if h.Octets > len(rest) || h.Offset+h.Octets > h.Length {
		return h, nil, nil, false
	}
	return h, rest[:h.Octets:h.Octets], rest[h.Octets:], true
}

// AppendFragmentHeader appends the header of a handshake fragment.
func AppendFragmentHeader(dst []byte, h FragmentHeader) []byte {
	dst = append(dst, h.Type)
	dst = appendUint24(dst, h.Length)
	dst = binary.BigEndian.AppendUint16(dst, h.MessageSeq)
	dst = appendUint24(dst, h.Offset)
	return appendUint24(dst, h.Octets)
}

// AppendHeader appends the header of a TLS handshake message.
func AppendHeader(dst []byte, typ MessageType, length int) []byte {
	return appendUint24(append(dst, typ), length)
}

// ParseHeader reads the header of a TLS handshake message. b has HeaderLen
// octets or more.
func ParseHeader(b []byte) (typ MessageType, length int) {
	return b[0], getUint24(b[1:])
}

func getUint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }

func appendUint24(dst []byte, v int) []byte {
	return append(dst, byte(v>>16), byte(v>>8), byte(v))
}
