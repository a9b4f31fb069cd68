package saef

import (
	"sync"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// Association is what Entity B knows of the other end of a connection: the
// security context of 8.2.2.3.
type Association struct {
	KcID onem2m.KcID
	// Expires is when Kc ends, by this machine's clock. No handshake with it
	// succeeds from then on; connections that are open stay open.
	Expires time.Time
	// KmID is the device's master key at the MAF.
	KmID onem2m.KmID
	// AEID or CSEID is who the device is, absolute, when the MAF knows it. At
	// most one of the two is set.
	AEID  onem2m.AEID
	CSEID onem2m.CSEID
}

// CredentialID returns the Credential-ID made of KmID (10.4), by which Entity B
// finds out the CSE-ID or the allowed AE-IDs of a device whose identity the MAF
// does not know: "11-meter7@maf.example.com".
func (a Association) CredentialID() onem2m.CredentialID { return a.KmID.CredentialID() }

// Peer returns what the security context is associated with: the AE-ID or
// CSE-ID when the MAF gave one, else the Credential-ID.
func (a Association) Peer() string {
	switch {
	case !a.AEID.IsZero():
		return a.AEID.String()
	case !a.CSEID.IsZero():
		return a.CSEID.String()
	}
	return a.CredentialID().String()
}

// Conn is an accepted association: a connection whose handshake is complete. It
// is closed when its key is revoked.
type Conn struct {
	*tlspsk.Conn
	association Association
	b           *EntityB
	use         *use
	closed      sync.Once
}

// Close closes the connection.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.closed.Do(func() {
		c.b.keys.end(c.use)
		c.b.feeds.leave()
	})
	return err
}

// Revoked reports whether the connection was closed because its key was revoked,
// or because the MAF now says otherwise who the device is.
func (c *Conn) Revoked() bool { return c.use.revoked.Load() }

// Association tells who is at the other end.
func (c *Conn) Association() Association { return c.association }
