package onem2m

import (
	"strconv"
	"strings"
)

// CredentialType says what the value of a Credential-ID is (10.4).
type CredentialType int

// The types of 10.4.
const (
	CredentialKpmID        CredentialType = 10 // KpmId at a MEF
	CredentialKmID         CredentialType = 11 // KmId at a MAF
	CredentialSAEFKeyID    CredentialType = 12 // KpsaId or KcId in an association
	CredentialRawPublicKey CredentialType = 30
	CredentialDeviceCert   CredentialType = 31
	CredentialCSECert      CredentialType = 32 // CSE-ID certificate
	CredentialAECert       CredentialType = 33 // AE-ID certificate
	CredentialNodeCert     CredentialType = 34 // Node-ID certificate
)

// String returns the type's number.
func (t CredentialType) String() string { return strconv.Itoa(int(t)) }

// CredentialID is a Credential-ID: "11-meter7@maf.example.com" (10.4). The zero
// value means none.
type CredentialID struct {
	Type  CredentialType
	Value string
}

// ParseCredentialID reads a Credential-ID.
func ParseCredentialID(s string) (CredentialID, error) {
	number, value, ok := strings.Cut(s, "-")
	if !ok {
		return CredentialID{}, refuse("Credential-ID", s, "it has no '-' behind its type")
	}
	_ = number
	_ = value
	return CredentialID{}, refuse("Credential-ID", s, "not yet")
}

// String returns the Credential-ID, or "" for the zero value.
func (id CredentialID) String() string {
	if id.IsZero() {
		return ""
	}
	return id.Type.String() + "-" + id.Value
}

// IsZero reports whether id is no identifier at all.
func (id CredentialID) IsZero() bool { return id == CredentialID{} }

// MarshalText implements [encoding.TextMarshaler].
func (id CredentialID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (id *CredentialID) UnmarshalText(text []byte) error {
	return unmarshal(id, text, ParseCredentialID)
}
