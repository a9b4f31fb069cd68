package onem2m

import (
	"fmt"
	"strconv"
	"strings"
)

// CredentialType says what the value of a Credential-ID is (10.4, 12.3.2.1).
type CredentialType int

// The types of credentials that authenticate to a MEF, a MAF or an Entity B.
// The standard's others, for end-to-end security, are refused.
const (
	CredentialKpmID        CredentialType = 10 // KpmId at a MEF
	CredentialKmID         CredentialType = 11 // KmId at a MAF
	CredentialSAEFKeyID    CredentialType = 12 // KpsaId or KcId in an association
	CredentialRawPublicKey CredentialType = 30 // public key identifier (10.1.2)
	CredentialDeviceCert   CredentialType = 31 // hardware instance identifier
	CredentialCSECert      CredentialType = 32 // CSE-ID certificate
	CredentialAECert       CredentialType = 33 // AE-ID certificate
	CredentialNodeCert     CredentialType = 34 // Node-ID certificate
)

// String returns the type's number.
func (t CredentialType) String() string { return strconv.Itoa(int(t)) }

// CredentialID is a Credential-ID: "11-meter7@maf.example.com" (10.4). The zero
// value means none.
type CredentialID struct {
	Type CredentialType
	// Value is the credential's identifier, in the canonical form of its type:
	// the String of a KmID for CredentialKmID, and so on.
	Value string
}

// ParseCredentialID reads a Credential-ID. The value of a key (types 10 to 12)
// must be that key's identifier and comes out in its canonical letter case; a
// type 12 value with 32 hexadecimal digits before the @ is a KcId. Any other
// value is of 10.4's characters: letters, digits, '.', '_', '-' and '@'.
func ParseCredentialID(s string) (CredentialID, error) {
	number, value, ok := strings.Cut(s, "-")
	if !ok {
		return CredentialID{}, refuse("Credential-ID", s, "it has no '-' behind its type")
	}
	t, ok := parseCredentialType(number)
	if !ok {
		return CredentialID{}, refuse("Credential-ID", s, "its type is not one of 10, 11, 12 and 30 to 34")
	}
	value, why := credentialValue(t, value)
	if why != "" {
		return CredentialID{}, refuse("Credential-ID", s, why)
	}
	return CredentialID{t, value}, nil
}

func parseCredentialType(s string) (CredentialType, bool) {
	for _, t := range []CredentialType{
		CredentialKpmID, CredentialKmID, CredentialSAEFKeyID, CredentialRawPublicKey,
		CredentialDeviceCert, CredentialCSECert, CredentialAECert, CredentialNodeCert,
	} {
		if s == t.String() {
			return t, true
		}
	}
	return 0, false
}

// credentialValue returns the canonical form of a value, or why it is none.
func credentialValue(t CredentialType, value string) (canonical, why string) {
	switch t {
	case CredentialKmID:
		if id, err := ParseKmID(value); err == nil {
			return id.String(), ""
		}
		return "", "its value is not a KmId"
	case CredentialSAEFKeyID:
		if id, err := ParseKcID(value); err == nil {
			return id.String(), ""
		}
		if id, err := ParseKpsaID(value); err == nil {
			return id.String(), ""
		}
		return "", "its value is neither a KcId nor a KpsaId"
	case CredentialKpmID:
		// The standard gives a KpmId no clause of its own; its example
		// (table 12.2-1) has the form of a KpsaId.
		if id, err := ParseKpsaID(value); err == nil {
			return id.String(), ""
		}
		return "", "its value is not a KpmId"
	}
	return value, opaqueValueProblem(value)
}

func opaqueValueProblem(value string) string {
	switch {
	case value == "":
		return "it has no value"
	case len(value) > maxPart:
		return fmt.Sprintf("its value is longer than %d characters", maxPart)
	}
	for i := 0; i < len(value); i++ {
		if c := value[i]; !isAlnum(c) && c != '.' && c != '_' && c != '-' && c != '@' {
			return "only letters, digits, '.', '_', '-' and '@' may stand in its value"
		}
	}
	return ""
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
