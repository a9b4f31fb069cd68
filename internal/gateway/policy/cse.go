package policy

import (
	"strings"

	"github.com/onem2m-maf/maf/onem2m"
)

// originatorCSE is for a CSE. It forwards the requests of its own AEs and of
// the CSEs below it, whose identities nobody here can check (TS-0003 7.2.1
// trusts a registree with them); but it is not one of the others that are
// registered here.
func (p *Peer) originatorCSE(r *Request) (originator, *refusal) {
	if !r.HasFrom || r.From == "" {
		return originator{}, malformed("no From")
	}
	o, refused := p.transit(r.From)
	if refused != nil {
		return originator{}, refused
	}
	self := o.id == p.cseID.String()
	switch {
	case r.registersAE():
		// An AE registers over Mca, with an association of its own.
		return originator{}, notAuthenticated("a CSE's association registers no AE")
	case r.Operation == Create && r.Type == typeRemoteCSE && !self:
		return originator{}, notAuthenticated("a CSE registers under its own CSE-ID only")
	}
	return o, nil
}

// transit reads an identity that a CSE names as originator, and refuses those
// that are somebody else's.
func (p *Peer) transit(from string) (originator, *refusal) {
	o, under, refused := p.read(from)
	if refused != nil {
		return originator{}, refused
	}
	for _, id := range []string{o.id, under} {
		if id == "" || id == p.cseID.String() {
			continue
		}
		// A registree, the CSE behind the gateway, or one that a CSE which
		// ignores letter case would take for either, or for the peer.
		if _, taken := p.rules.owner(id); taken {
			return originator{}, notAuthenticated("From belongs to another registree")
		}
	}
	if i := strings.LastIndexByte(o.id, '/'); p.rules.reserved[fold(o.id[i+1:])] {
		return originator{}, notAuthenticated("From is reserved")
	}
	return o, nil
}

// read reads the identity of an AE or a CSE. under is the absolute CSE-ID in an
// AE-ID that its registrar assigned, else "".
//
// What the CSE gets of an identity of its own service provider is the
// SP-relative form, which says the same and which all CSEs read alike.
func (p *Peer) read(from string) (o originator, under string, refused *refusal) {
	sp := p.rules.cse.SP
	if cse, err := onem2m.ParseCSEID(from); err == nil { // or the AE-ID /Sxxx: both are the same text
		abs := cse.Absolute(sp)
		return originator{from: relative(abs.String(), sp), id: abs.String()}, "", nil
	}
	ae, err := onem2m.ParseAEID(from)
	if err != nil {
		return originator{}, "", malformed("From is no AE-ID and no CSE-ID")
	}
	abs := ae.Absolute(p.rules.cse) // a C-type stem is that of an AE of the hosting CSE's
	if abs.CSE != "" {
		under = onem2m.CSEID{SP: abs.SP, ID: abs.CSE}.String()
	}
	o = originator{from: relative(abs.String(), sp), id: abs.String()}
	if ae.IsStem() {
		o.from = ae.Stem
	}
	return o, under, nil
}

// relative returns an absolute identity in its SP-relative form when the
// service provider is sp.
func relative(id string, sp onem2m.FQDN) string {
	if rest, ok := strings.CutPrefix(id, "//"+string(sp)+"/"); ok {
		return "/" + rest
	}
	return id
}
