// Package kdf holds the key derivations of TS-0003, one pure function each.
package kdf

import (
	"fmt"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// What both sides of a MAF Handshake export from its session with the RFC 5705
// exporter (10.3.1). There is no context value, which is not the same as an
// empty one (RFC 5705 4).
const (
	ConnectionLabel  = "EXPORTER-oneM2M-Connection"
	ConnectionLength = 48 // octets
)

const relativeLength = len(onem2m.RelativeKeyID{})

// Connection splits what was exported under ConnectionLabel (10.3.1): the 16
// most significant octets are RelativeKcId, the 32 least significant are Kc. The
// KcId is the first with the MAF's FQDN (10.3.5): onem2m.KcID.
//
// Kc is a copy; the caller still owns exported, and should clear it. An error
// means that exported isn't ConnectionLength octets long.
func Connection(exported []byte) (onem2m.RelativeKeyID, secret.Key, error) {
	if len(exported) != ConnectionLength {
		return onem2m.RelativeKeyID{}, secret.Key{}, fmt.Errorf(
			"kdf: exported %d octets of keying material, want %d", len(exported), ConnectionLength)
	}
	id := onem2m.RelativeKeyID(exported[:relativeLength])
	return id, secret.New(exported[relativeLength:]), nil
}
