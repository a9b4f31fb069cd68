package authority

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
)

// The boxes in the store are bound to everything that stands beside them, by way
// of the associated data. A change to what these functions write makes every box
// in every store unopenable; a new layout needs a new first field, and the old
// one to be tried as well.

// kmBinding is what a box with Km is bound to: who the client is and all that
// was configured for it.
func kmBinding(c *store.Client) []byte {
	b := make([]byte, 0, 192)
	b = appendFields(b, "maf Km 1",
		c.KmID.Relative, string(c.KmID.FQDN),
		string(c.IdB.SP), c.IdB.ID,
		string(c.AEID.SP), c.AEID.CSE, c.AEID.Stem,
		string(c.CSEID.SP), c.CSEID.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(c.UID))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Lifetime/time.Second))
	if c.Disabled {
		return append(b, 1)
	}
	return append(b, 0)
}

// kcBinding is what a box with Kc is bound to: the whole row.
func kcBinding(k *store.Key) []byte {
	b := make([]byte, 0, 192)
	b = appendFields(b, "maf Kc 1",
		string(k.ID.Relative[:]), string(k.ID.FQDN),
		k.KmID.Relative, string(k.KmID.FQDN),
		string(k.IdB.SP), k.IdB.ID)
	b = binary.BigEndian.AppendUint64(b, uint64(k.UID))
	return binary.BigEndian.AppendUint64(b, uint64(k.Expires.Unix()))
}

// appendFields writes each field with its length in front, so that no two lists
// of fields look the same.
func appendFields(b []byte, fields ...string) []byte {
	for _, f := range fields {
		b = binary.AppendUvarint(b, uint64(len(f)))
		b = append(b, f...)
	}
	return b
}

func (a *Authority) openKm(c *store.Client) (secret.Key, error) {
	km, err := a.sealer.Open(c.SealedKm, kmBinding(c))
	if err != nil {
		return secret.Key{}, fmt.Errorf("authority: the row of client %v was tampered with, or sealed with another keyset: %w", c.KmID, err)
	}
	return secret.Own(km), nil
}

func (a *Authority) openKc(k *store.Key) (secret.Key, error) {
	kc, err := a.sealer.Open(k.SealedKc, kcBinding(k))
	if err != nil {
		return secret.Key{}, fmt.Errorf("authority: the row of key %v was tampered with, or sealed with another keyset: %w", k.ID, err)
	}
	return secret.Own(kc), nil
}

// makeDecoy prepares openDecoy.
func (a *Authority) makeDecoy() error {
	km := make([]byte, NewKm)
	if _, err := io.ReadFull(a.rand, km); err != nil {
		return fmt.Errorf("authority: %w", err)
	}
	box, err := a.sealer.Seal(km, kmBinding(&store.Client{}))
	if err == nil {
		a.decoy.Store(&box)
	}
	return err
}

// openDecoy does for an unknown client the work that openKm does for a known
// one, so that the time of an answer says less about which it was. What is left
// is the store's: it may have a known client in memory, and looks for an unknown
// one on the disk, which may take some microseconds longer.
func (a *Authority) openDecoy() {
	if _, err := a.sealer.Open(*a.decoy.Load(), kmBinding(&store.Client{})); err != nil {
		a.makeDecoy() // its key was retired; if this fails, the next one tries again
	}
}
