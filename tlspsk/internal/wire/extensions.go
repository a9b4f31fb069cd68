package wire

import "golang.org/x/crypto/cryptobyte"

// The extensions that we know.
const (
	extServerName           uint16 = 0      // RFC 6066 section 3
	extMaxFragmentLength    uint16 = 1      // RFC 6066 section 4
	extSupportedGroups      uint16 = 10     // RFC 8422 section 5.1.1
	extECPointFormats       uint16 = 11     // RFC 8422 section 5.1.2
	extEncryptThenMAC       uint16 = 22     // RFC 7366
	extExtendedMasterSecret uint16 = 23     // RFC 7627
	extRecordSizeLimit      uint16 = 28     // RFC 8449
	extSupportedVersions    uint16 = 43     // RFC 8446 section 4.2.1
	extConnectionID         uint16 = 54     // RFC 9146 section 3
	extRenegotiationInfo    uint16 = 0xff01 // RFC 5746

	pointFormatUncompressed = 0
	serverNameHost          = 0
)

// Extensions holds what a hello's extensions say. The zero value is a hello
// without any.
type Extensions struct {
	// ServerName is the host name of a ClientHello; HasServerName says that
	// the extension is there, which in a ServerHello is all it says.
	ServerName    string
	HasServerName bool
	// MaxFragmentLength is the code 1 to 4 of RFC 6066, or 0 for none. What a
	// peer sends is kept as it is.
	MaxFragmentLength uint8
	// RecordSizeLimit is the limit of RFC 8449, or 0 for none.
	RecordSizeLimit    uint16
	HasRecordSizeLimit bool

	SupportedGroups []uint16
	// PointFormats says that ec_point_formats is there; Uncompressed that it
	// lists the only format in use.
	PointFormats, Uncompressed bool

	EncryptThenMAC       bool
	ExtendedMasterSecret bool

	// HasConnectionID says that the extension is there; ConnectionID is what
	// its sender wants in the records that it gets, and may be empty.
	HasConnectionID bool
	ConnectionID    []byte

	// SupportedVersions is nil without the extension.
	SupportedVersions []uint16

	// HasRenegotiationInfo says that the extension is there, and
	// RenegotiationInfo is what it holds.
	HasRenegotiationInfo bool
	RenegotiationInfo    []byte

	// Unknown is set when an extension was there that we do not know, which
	// in a ServerHello is one that nobody asked for.
	Unknown bool
}

// parse reads the extension block of a hello. ServerHellos carry some
// extensions in another form than ClientHellos.
func (e *Extensions) parse(block cryptobyte.String, fromClient bool) error {
	var seen extensionSet
	for !block.Empty() {
		var typ uint16
		var data cryptobyte.String
		if !block.ReadUint16(&typ) || !block.ReadUint16LengthPrefixed(&data) {
			return ErrMalformed
		}
		if !seen.add(typ) {
			return ErrDuplicateExtension
		}
		if !e.parseOne(typ, data, fromClient) {
			return ErrMalformed
		}
	}
	return nil
}

// extensionSet remembers the extension types of one hello without allocating
// for the usual number of them. It is linear, but so is the hello: at most
// 2,048 of them fit in the 8 kB that a message may have.
type extensionSet struct {
	types [24]uint16
	n     int
	more  map[uint16]bool
}

func (s *extensionSet) add(typ uint16) bool {
	for _, t := range s.types[:s.n] {
		if t == typ {
			return false
		}
	}
	if s.n < len(s.types) {
		s.types[s.n] = typ
		s.n++
		return true
	}
	if s.more[typ] {
		return false
	}
	if s.more == nil {
		s.more = make(map[uint16]bool)
	}
	s.more[typ] = true
	return true
}

func (e *Extensions) parseOne(typ uint16, data cryptobyte.String, fromClient bool) bool {
	switch typ {
	case extServerName:
		e.HasServerName = true
		if fromClient {
			return e.parseServerName(&data)
		}
	case extMaxFragmentLength:
		if !data.ReadUint8(&e.MaxFragmentLength) {
			return false
		}
	case extRecordSizeLimit:
		e.HasRecordSizeLimit = true
		if !data.ReadUint16(&e.RecordSizeLimit) {
			return false
		}
	case extSupportedGroups:
		var list cryptobyte.String
		if !data.ReadUint16LengthPrefixed(&list) || list.Empty() || !readUint16s(list, &e.SupportedGroups) {
			return false
		}
	case extECPointFormats:
		var formats []byte
		if !readUint8Prefixed(&data, &formats) || len(formats) == 0 {
			return false
		}
		e.PointFormats = true
		for _, f := range formats {
			e.Uncompressed = e.Uncompressed || f == pointFormatUncompressed
		}
	case extEncryptThenMAC:
		e.EncryptThenMAC = true
	case extExtendedMasterSecret:
		e.ExtendedMasterSecret = true
	case extRenegotiationInfo:
		e.HasRenegotiationInfo = true
		if !readUint8Prefixed(&data, &e.RenegotiationInfo) {
			return false
		}
	case extConnectionID:
		e.HasConnectionID = true
		if !readUint8Prefixed(&data, &e.ConnectionID) {
			return false
		}
	case extSupportedVersions:
		if !fromClient {
			e.Unknown = true // a TLS 1.3 server's; we offer 1.2 alone
			return true
		}
		var list cryptobyte.String
		if !data.ReadUint8LengthPrefixed(&list) || list.Empty() || !readUint16s(list, &e.SupportedVersions) {
			return false
		}
	default:
		e.Unknown = true
		return true
	}
	return data.Empty()
}

// parseServerName reads the list of names of RFC 6066 section 3, of which at
// most one may be a host name. That name must be fit to be compared and
// logged: not empty, and without NUL.
func (e *Extensions) parseServerName(data *cryptobyte.String) bool {
	var list cryptobyte.String
	if !data.ReadUint16LengthPrefixed(&list) || list.Empty() {
		return false
	}
	for !list.Empty() {
		var typ uint8
		var name []byte
		if !list.ReadUint8(&typ) || !readUint16Prefixed(&list, &name) || len(name) == 0 {
			return false
		}
		if typ != serverNameHost {
			continue
		}
		if e.ServerName != "" {
			return false
		}
		for _, c := range name {
			if c == 0 {
				return false
			}
		}
		e.ServerName = string(name)
	}
	return true
}

func readUint16s(s cryptobyte.String, out *[]uint16) bool {
	if len(s)%2 != 0 {
		return false
	}
	list := make([]uint16, len(s)/2)
	for i := range list {
		s.ReadUint16(&list[i])
	}
	*out = list
	return true
}

// append writes the extension block, or nothing when there are no extensions.
func (e *Extensions) append(b *cryptobyte.Builder, fromClient bool) {
	var block cryptobyte.Builder
	ext := func(typ uint16, body func(b *cryptobyte.Builder)) {
		block.AddUint16(typ)
		block.AddUint16LengthPrefixed(body)
	}
	empty := func(*cryptobyte.Builder) {}
	if e.HasServerName {
		ext(extServerName, func(b *cryptobyte.Builder) {
			if !fromClient {
				return
			}
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				b.AddUint8(serverNameHost)
				b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(e.ServerName)) })
			})
		})
	}
	if e.HasRenegotiationInfo {
		ext(extRenegotiationInfo, func(b *cryptobyte.Builder) {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(e.RenegotiationInfo) })
		})
	}
	if e.ExtendedMasterSecret {
		ext(extExtendedMasterSecret, empty)
	}
	if e.EncryptThenMAC {
		ext(extEncryptThenMAC, empty)
	}
	if e.MaxFragmentLength != 0 {
		ext(extMaxFragmentLength, func(b *cryptobyte.Builder) { b.AddUint8(e.MaxFragmentLength) })
	}
	if e.HasRecordSizeLimit {
		ext(extRecordSizeLimit, func(b *cryptobyte.Builder) { b.AddUint16(e.RecordSizeLimit) })
	}
	if e.HasConnectionID {
		ext(extConnectionID, func(b *cryptobyte.Builder) { addUint8Prefixed(b, e.ConnectionID) })
	}
	if len(e.SupportedGroups) > 0 {
		ext(extSupportedGroups, func(b *cryptobyte.Builder) {
			b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, g := range e.SupportedGroups {
					b.AddUint16(g)
				}
			})
		})
	}
	if e.PointFormats {
		ext(extECPointFormats, func(b *cryptobyte.Builder) {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddUint8(pointFormatUncompressed) })
		})
	}
	if fromClient && len(e.SupportedVersions) > 0 {
		ext(extSupportedVersions, func(b *cryptobyte.Builder) {
			b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) {
				for _, v := range e.SupportedVersions {
					b.AddUint16(v)
				}
			})
		})
	}
	if body := block.BytesOrPanic(); len(body) > 0 {
		b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(body) })
	}
}
