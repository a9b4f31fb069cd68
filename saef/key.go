package saef

import (
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// Secret is a key that cannot be printed by accident: whatever formats it
// writes "[redacted]". Its Bytes method gives the key itself.
type Secret = secret.Key

// NewSecret returns a Secret with a copy of b.
func NewSecret(b []byte) Secret { return secret.New(b) }

// ParseSecret reads a key in hexadecimal or base64. Errors never quote it.
func ParseSecret(s string) (Secret, error) { return secret.Parse([]byte(s)) }

// Key is what a MAF Handshake establishes between a device and its MAF.
type Key struct {
	// KcID is the psk_identity of associations.
	KcID onem2m.KcID
	// Kc is their psk, 32 octets.
	Kc Secret
	// Established is when the MAF Handshake was done, by the device's clock.
	Established time.Time
}

// IsZero reports whether k is no key at all.
func (k Key) IsZero() bool { return k.KcID.IsZero() }
