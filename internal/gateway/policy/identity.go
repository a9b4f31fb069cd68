package policy

import "github.com/onem2m-maf/maf/onem2m"

// AEIDs returns the AE-IDs, absolute, under which the peer may send any request
// now. There are none while it has to register first, and none for a CSE.
func (p *Peer) AEIDs() []onem2m.AEID {
	switch p.kind {
	case kindAE:
		return []onem2m.AEID{p.aeID}
	case kindCredential:
		return p.all()
	}
	return nil
}

// CSEID returns the peer's CSE-ID, absolute; zero unless it is a CSE.
func (p *Peer) CSEID() onem2m.CSEID {
	if p.kind == kindCSE {
		return p.cseID
	}
	return onem2m.CSEID{}
}
