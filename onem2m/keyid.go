package onem2m

import (
	"encoding/hex"
	"strings"
)

// KmID identifies a Master Credential (Km) at its MAF: "meter7@maf.example.com"
// (10.6). It is the psk_identity of a MAF Handshake. The zero value means none.
type KmID struct {
	// Relative is the MAF-relative part: 1 to 128 letters, digits, '.', '_'
	// and '-'. It is not case sensitive (10.6) and is kept in lower case.
	Relative string
	// FQDN is the MAF's.
	FQDN FQDN
}

// ParseKmID reads a KmId. Upper-case letters are folded.
func ParseKmID(s string) (KmID, error) {
	relative, fqdn, err := splitAt("KmId", s)
	if err != nil {
		return KmID{}, err
	}
	if why := relativeProblem(relative); why != "" {
		return KmID{}, refuse("KmId", s, why)
	}
	return KmID{foldASCII(relative), fqdn}, nil
}

// String returns the KmId, or "" for the zero value.
func (id KmID) String() string { return joinAt(id.Relative, id.FQDN) }

// IsZero reports whether id is no identifier at all.
func (id KmID) IsZero() bool { return id == KmID{} }

// CredentialID returns the Credential-ID made of the KmId (10.4), by which
// Entity B knows a peer whose AE-ID and CSE-ID the MAF does not know
// (8.2.2.3): "11-meter7@maf.example.com".
func (id KmID) CredentialID() CredentialID {
	return CredentialID{CredentialKmID, id.String()}
}

// MarshalText implements [encoding.TextMarshaler].
func (id KmID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *KmID) UnmarshalText(text []byte) error { return unmarshal(id, text, ParseKmID) }

// RelativeKeyID is a RelativeKcId or RelativeKeId: the first 16 of the 48
// octets that both sides export from a handshake (10.3.1).
type RelativeKeyID [16]byte

// ParseRelativeKeyID reads 32 hexadecimal digits of either case (XML Schema's
// hexBinary).
func ParseRelativeKeyID(s string) (RelativeKeyID, error) {
	id, why := parseRelativeKeyID(s)
	if why != "" {
		return RelativeKeyID{}, refuse("relative key identifier", s, why)
	}
	return id, nil
}

func parseRelativeKeyID(s string) (id RelativeKeyID, why string) {
	if len(s) != hex.EncodedLen(len(id)) {
		return id, "it is not 32 hexadecimal digits long"
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return RelativeKeyID{}, "it holds something other than hexadecimal digits"
	}
	return id, ""
}

// String returns 32 upper-case hexadecimal digits, hexBinary's canonical form.
func (id RelativeKeyID) String() string {
	return strings.ToUpper(hex.EncodeToString(id[:]))
}

// MarshalText implements [encoding.TextMarshaler].
func (id RelativeKeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. There is no "none" of
// this type (all zeros is as random as any other), so the empty text is refused.
func (id *RelativeKeyID) UnmarshalText(text []byte) error {
	v, err := ParseRelativeKeyID(string(text))
	if err != nil {
		return err
	}
	*id = v
	return nil
}

// KcID identifies an M2M Secure Connection Key (Kc), and says which MAF has it:
// "00112233445566778899AABBCCDDEEFF@maf.example.com" (10.3.5). It is the
// psk_identity of an association. The zero value means none.
type KcID struct {
	Relative RelativeKeyID
	FQDN     FQDN // the MAF's
}

// ParseKcID reads a KcId, with letters of either case.
func ParseKcID(s string) (KcID, error) {
	relative, fqdn, err := splitAt("KcId", s)
	if err != nil {
		return KcID{}, err
	}
	id, why := parseRelativeKeyID(relative)
	if why != "" {
		return KcID{}, refuse("KcId", s, "before the @: "+why)
	}
	return KcID{id, fqdn}, nil
}

// String returns the KcId, its hexadecimal digits in upper case, or "" for the
// zero value.
func (id KcID) String() string {
	if id.IsZero() {
		return ""
	}
	return joinAt(id.Relative.String(), id.FQDN)
}

// IsZero reports whether id is no identifier at all.
func (id KcID) IsZero() bool { return id == KcID{} }

// MarshalText implements [encoding.TextMarshaler].
func (id KcID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *KcID) UnmarshalText(text []byte) error { return unmarshal(id, text, ParseKcID) }

// KpsaID identifies a Provisioned Secure Connection Key (Kpsa), which two
// entities share without a MAF: "line4@issuer.example.com" (10.5). The zero
// value means none.
type KpsaID struct {
	// Relative is the issuer-relative part, of the characters of a KmId's. The
	// standard says of a KmId only that case does not matter, so here it does.
	Relative string
	FQDN     FQDN // the issuer's
}

// ParseKpsaID reads a KpsaId.
func ParseKpsaID(s string) (KpsaID, error) {
	relative, fqdn, err := splitAt("KpsaId", s)
	if err != nil {
		return KpsaID{}, err
	}
	if why := relativeProblem(relative); why != "" {
		return KpsaID{}, refuse("KpsaId", s, why)
	}
	return KpsaID{relative, fqdn}, nil
}

// String returns the KpsaId, or "" for the zero value.
func (id KpsaID) String() string { return joinAt(id.Relative, id.FQDN) }

// IsZero reports whether id is no identifier at all.
func (id KpsaID) IsZero() bool { return id == KpsaID{} }

// MarshalText implements [encoding.TextMarshaler].
func (id KpsaID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *KpsaID) UnmarshalText(text []byte) error { return unmarshal(id, text, ParseKpsaID) }

func joinAt(relative string, fqdn FQDN) string {
	if relative == "" && fqdn == "" {
		return ""
	}
	return relative + "@" + string(fqdn)
}
