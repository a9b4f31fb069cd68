package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// A kind is what is known of a peer.
type kind int

const (
	kindNobody     kind = iota // there is no association
	kindStranger               // an identity that has no place at this CSE
	kindAE                     // the MAF knows its AE-ID
	kindCSE                    // the MAF, or the configuration, knows its CSE-ID
	kindCredential             // only its KmId is known
)

// A Peer is the other end of one association. It may be used concurrently.
type Peer struct {
	rules *Rules
	kind  kind
	name  string // for logs
	kmID  onem2m.KmID
	aeID  onem2m.AEID  // absolute; of kindAE
	own   originator   // the same; made once
	cseID onem2m.CSEID // absolute; of kindCSE
	allow []*allowance // of kindCredential
	why   string       // of kindStranger
}

// Peer returns the rules for the other end of one association, those for no
// association when a is zero. It is cheap: to be called for each connection.
func (r *Rules) Peer(a saef.Association) *Peer {
	p := &Peer{rules: r, kmID: a.KmID}
	if a == (saef.Association{}) {
		p.name = "nobody"
		return p
	}
	p.name = a.Peer()
	switch {
	case !a.AEID.IsZero():
		p.beAE(a.AEID.Absolute(r.cse))
	case !a.CSEID.IsZero():
		p.beCSE(a.CSEID.Absolute(r.cse.SP))
	case a.KmID.IsZero():
		p.beStranger("neither an identity nor a KmId")
	default:
		p.beCredential()
	}
	return p
}

func (p *Peer) beStranger(why string) { p.kind, p.why = kindStranger, why }

// beAE takes the AE-ID that the MAF knows. One that another CSE assigned, or
// another service provider, is another AE's than the one of that stem here.
func (p *Peer) beAE(id onem2m.AEID) {
	switch {
	case id.SP != p.rules.cse.SP, id.CSE != "" && id.CSE != p.rules.cse.ID:
		p.beStranger("the AE-ID is not one of this CSE's registrees")
	case p.rules.reserved[fold(id.Stem)]:
		p.beStranger("the AE-ID is reserved")
	default:
		p.kind, p.aeID, p.own = kindAE, id, p.as(id)
		p.rules.meet(id.String(), p.kmID)
	}
}

func (p *Peer) beCSE(id onem2m.CSEID) {
	if fold(id.String()) == fold(p.rules.cse.String()) {
		p.beStranger("the CSE-ID is that of the CSE behind the gateway")
		return
	}
	p.kind, p.cseID = kindCSE, id
	p.rules.meet(id.String(), p.kmID)
}

func (p *Peer) beCredential() {
	p.allow = p.rules.allowances(p.kmID)
	if len(p.allow) == 0 {
		p.beStranger("no allowance for this KmId")
		return
	}
	if cse := p.allow[0].cse; !cse.IsZero() {
		p.beCSE(cse)
		return
	}
	p.kind = kindCredential
}

// String returns the peer's identity for logs: its AE-ID, CSE-ID or
// Credential-ID.
func (p *Peer) String() string { return p.name }

// Check decides about one request.
func (p *Peer) Check(r *Request) Verdict {
	if refused := p.wellFormed(r); refused != nil {
		return refused.verdict()
	}
	o, refused := p.originator(r)
	if refused != nil {
		return refused.verdict()
	}
	if refused := p.checkContent(r, o); refused != nil {
		return refused.verdict()
	}
	return Verdict{Allowed: true, From: o.from, HasFrom: true, Learns: o.learns}
}

// wellFormed refuses what has no meaning, whoever sends it. What a CSE would do
// with it is unknown.
func (p *Peer) wellFormed(r *Request) *refusal {
	if r.Operation < Create || r.Operation > Notify {
		return malformed("no operation of the standard's")
	}
	if r.Operation == Create && r.Type <= 0 {
		return malformed("a CREATE without a resource type")
	}
	if r.To == "" || strings.ContainsFunc(r.To, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return malformed("a target that is empty or holds control characters or spaces")
	}
	if r.Content == nil && (r.Operation == Create || r.Operation == Update || r.Operation == Notify) {
		return malformed("no content")
	}
	if r.registersAE() && !p.rules.isAt(r.To, p.rules.cse) {
		// The rules vouch for registrations with this CSE only. Another's word
		// that it has registered somebody would be taken for this one's.
		return notAuthenticated("an AE registers with the CSE behind the gateway only")
	}
	if r.Operation == Create && (r.Type == typeCSEBase || r.Type == typeRequest) {
		return &refusal{onem2m.StatusOperationNotAllowed, "only the CSE itself makes such resources"}
	}
	return nil
}

// isAt reports whether a target is at a CSE, which is the hosting one of targets
// without a CSE-ID.
func (r *Rules) isAt(to string, cse onem2m.CSEID) bool {
	if !strings.HasPrefix(to, "/") {
		return true
	}
	for _, form := range []string{cse.String(), relative(cse.String(), r.cse.SP)} {
		if to == form || strings.HasPrefix(to, form+"/") {
			return true
		}
	}
	return false
}

// An originator is who a request is from.
type originator struct {
	from   string // what the CSE gets
	id     string // absolute; "" when the CSE will assign it
	learns bool
}

func (p *Peer) originator(r *Request) (originator, *refusal) {
	switch p.kind {
	case kindAE:
		return p.originatorAE(r)
	case kindCSE:
		return p.originatorCSE(r)
	case kindCredential:
		return p.originatorCredential(r)
	case kindStranger:
		return originator{}, notAuthenticated(p.why)
	}
	// The standard says this of a CSE-ID in From, and leaves the rest to the
	// CSE; a gateway whose listeners all make associations needs no exception.
	return originator{}, &refusal{onem2m.StatusSecurityAssociationRequired, "no association"}
}

// as returns the originator that is the given AE, as its stem: the one form that
// a registrar takes from its AEs (TS-0004 7.3.2.1).
func (p *Peer) as(id onem2m.AEID) originator {
	return originator{from: id.Stem, id: id.Absolute(p.rules.cse).String()}
}

// originatorAE is for an AE whose AE-ID the MAF knows. Its registration goes on
// under that AE-ID, however it asks: the identity is not the CSE's to assign.
func (p *Peer) originatorAE(r *Request) (originator, *refusal) {
	letter, stem, refused := readStem(r)
	switch {
	case refused != nil:
		return originator{}, refused
	case stem != "" && stem != p.aeID.Stem:
		return originator{}, notAuthenticated("From is not the AE-ID of the association")
	case stem == "" && letter != "" && letter != p.aeID.Stem[:1]:
		return originator{}, notAuthenticated("the AE-ID of the association is of the other type, C or S")
	}
	return p.own, nil
}

// readStem reads the From of an AE: its stem, or the letter of the type that a
// registering AE asks for, or neither when that one gives no From. An AE's From
// is a stem and nothing else: the other forms of its AE-ID are refused, since a
// CSE may take them for somebody else.
func readStem(r *Request) (letter, stem string, refused *refusal) {
	if !r.HasFrom || r.From == "" {
		if !r.registersAE() {
			return "", "", malformed("no From")
		}
		return "", "", nil
	}
	if r.registersAE() && (r.From == "C" || r.From == "S") {
		return r.From, "", nil
	}
	id, err := onem2m.ParseAEID(r.From)
	if err != nil || !id.IsStem() {
		return "", "", malformed("From is not an AE-ID-Stem")
	}
	return "", id.Stem, nil
}

// originatorCredential is for a peer of whom only the KmId is known.
func (p *Peer) originatorCredential(r *Request) (originator, *refusal) {
	letter, stem, refused := readStem(r)
	if refused != nil {
		return originator{}, refused
	}
	if stem == "" {
		return p.unnamed(letter)
	}
	id := onem2m.AEID{Stem: stem}.Absolute(p.rules.cse)
	if p.holds(id) {
		return p.as(id), nil
	}
	if !r.registersAE() {
		return originator{}, notAuthenticated("From is not an AE-ID that this KmId has registered")
	}
	if refused := p.mayClaim(id); refused != nil {
		return originator{}, refused
	}
	o := p.as(id)
	o.learns = true
	return o, nil
}

// unnamed is for a registration that leaves the AE-ID, or all of it but the
// letter, to the CSE.
func (p *Peer) unnamed(letter string) (originator, *refusal) {
	letters := []string{letter}
	if letter == "" {
		letters = []string{"C", "S"} // the CSE assigns a C-type unless asked otherwise
	}
	for _, letter := range letters {
		if p.room() && p.admitsAny(letter) {
			return originator{from: letter, learns: true}, nil
		}
	}
	// No new one: then the one it has, when there is no doubt which.
	var own []onem2m.AEID
	for _, id := range p.all() {
		if strings.HasPrefix(id.Stem, letter) {
			own = append(own, id)
		}
	}
	if len(own) != 1 {
		return originator{}, notAuthenticated("no AE-ID that the CSE may assign to this KmId: it has to name one")
	}
	return p.as(own[0]), nil
}

// all returns the AE-IDs that are the peer's now.
func (p *Peer) all() []onem2m.AEID {
	var all []onem2m.AEID
	for _, a := range p.allow {
		for _, stem := range a.stems {
			all = append(all, onem2m.AEID{Stem: stem}.Absolute(p.rules.cse))
		}
	}
	for _, id := range p.rules.held(p.kmID) {
		if !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return slices.DeleteFunc(all, func(id onem2m.AEID) bool { return !p.holds(id) })
}

// holds reports whether an AE-ID is the peer's: named in an allowance, or
// learned and still admitted by one. The MAF's word for another key overrules
// what was learned, not what the gateway's operator wrote.
func (p *Peer) holds(id onem2m.AEID) bool {
	for _, a := range p.allow {
		if slices.Contains(a.stems, id.Stem) {
			return true
		}
	}
	owner, _ := p.rules.owner(id.String())
	return slices.Contains(p.rules.held(p.kmID), id) && owner.kmID == p.kmID && p.admits(id)
}

// admits reports whether some allowance has a wildcard for an AE-ID.
func (p *Peer) admits(id onem2m.AEID) bool {
	if p.rules.reserved[fold(id.Stem)] || id.SP != p.rules.cse.SP || id.CSE != "" && id.CSE != p.rules.cse.ID {
		return false
	}
	for _, a := range p.allow {
		if slices.ContainsFunc(a.globs, func(glob string) bool { return matches(glob, id.Stem) }) {
			return true
		}
	}
	return false
}

// admitsAny reports whether an allowance admits every AE-ID of a type, as the
// CSE's choice may be any.
func (p *Peer) admitsAny(letter string) bool {
	for _, a := range p.allow {
		if slices.Contains(a.globs, letter+"*") || slices.Contains(a.globs, "*") {
			return true
		}
	}
	return false
}

// room reports whether the peer may get another AE-ID by a wildcard.
func (p *Peer) room() bool { return len(p.rules.held(p.kmID)) < p.most() }

// most is how many AE-IDs the peer may get by wildcards.
func (p *Peer) most() int {
	most := 0
	for _, a := range p.allow {
		if len(a.globs) > 0 {
			most = max(most, a.most)
		}
	}
	return most
}

// mayClaim refuses an AE-ID that the peer may not get.
func (p *Peer) mayClaim(id onem2m.AEID) *refusal {
	if !p.admits(id) {
		return notAuthenticated("no allowance admits this AE-ID for this KmId")
	}
	if _, taken := p.rules.owner(id.String()); taken {
		return notAuthenticated("the AE-ID is another's")
	}
	if !p.room() {
		return notAuthenticated("this KmId has as many AE-IDs as it may have")
	}
	return nil
}

// Learn takes note of the CSE's answer to a request that Check allowed: the
// AE-ID that it assigned to a registering AE. It may be called for every
// request. After an error the peer must not be told that it is registered: what
// it was told would not hold, or not for longer than until the gateway restarts.
func (p *Peer) Learn(r *Request, status onem2m.ResponseStatusCode, content *primitive.Value) error {
	if !r.registersAE() || status != onem2m.StatusCreated {
		return nil
	}
	id, err := p.assigned(r, content)
	if err != nil {
		return err
	}
	switch {
	case p.kind == kindAE && id != p.aeID:
		return fmt.Errorf("policy: the CSE assigned %s to %s", id, p)
	case p.kind != kindCredential || p.holds(id):
		return nil
	}
	if refused := p.mayClaim(id); refused != nil {
		return fmt.Errorf("policy: the CSE assigned %s to %s: %s", id, p, refused.reason)
	}
	if err := p.rules.claim(Claim{p.kmID, id}, p.most()); err != nil {
		return fmt.Errorf("policy: keeping %s of %s: %w", id, p, err)
	}
	return nil
}

// assigned returns the absolute AE-ID that the CSE's answer names, or else that
// the request named.
func (p *Peer) assigned(r *Request, content *primitive.Value) (onem2m.AEID, error) {
	_, stem, refused := readStem(r)
	if text, ok := content.Get("m2m:ae").Get("aei").Str(); ok {
		id, err := onem2m.ParseAEID(text)
		if err != nil {
			return onem2m.AEID{}, fmt.Errorf("policy: the AE-ID that the CSE assigned to %s: %w", p, err)
		}
		return id.Absolute(p.rules.cse), nil
	}
	if p.kind == kindAE {
		return p.aeID, nil
	}
	if refused != nil || stem == "" {
		return onem2m.AEID{}, errors.New("policy: the CSE's answer does not hold the AE-ID that it assigned to " + p.String())
	}
	return onem2m.AEID{Stem: stem}.Absolute(p.rules.cse), nil
}
