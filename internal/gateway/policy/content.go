package policy

import (
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// checkContent refuses a body that names somebody else as the one who speaks,
// registers or creates. docs/gateway-rules.md lists the ways.
func (p *Peer) checkContent(r *Request, o originator) *refusal {
	if r.Content == nil {
		return nil
	}
	if refused := p.checkPrimitives(r.Content, o); refused != nil {
		return refused
	}
	if refused := checkContacts(r.Content); refused != nil {
		return refused
	}
	if r.Operation == Notify {
		return p.checkNotification(r.Content, o)
	}
	if r.Operation != Create && r.Operation != Update {
		return nil
	}
	root, attributes, refused := resource(r.Content)
	if refused != nil {
		return refused
	}
	if refused := p.checkAttributes(r, attributes, o); refused != nil {
		return refused
	}
	switch {
	case r.Operation == Create && (root == "m2m:ae") != (r.Type == typeAE),
		r.Operation == Create && (root == "m2m:csr") != (r.Type == typeRemoteCSE):
		// A CSE that goes by the body's name would see another registration.
		return malformed("the content is not of the resource type")
	case root == "m2m:ae":
		return p.checkAE(attributes, o)
	case root == "m2m:csr":
		return p.checkRemoteCSE(r, attributes, o)
	case r.Operation == Create && r.Type == typeDelivery:
		return p.checkDelivery(attributes)
	}
	return nil
}

// resource takes a resource representation apart: one member, whose name tells
// the type and whose value holds the attributes (TS-0004 8.4).
func resource(content *primitive.Value) (root string, attributes *primitive.Value, refused *refusal) {
	if content.Kind() != primitive.KindObject || content.Len() != 1 {
		return "", nil, malformed("the content is not one resource")
	}
	for root, attributes = range content.Members() {
	}
	if attributes.Kind() != primitive.KindObject {
		return "", nil, malformed("the content is not a resource")
	}
	// Some CSEs do without the prefix, and some without letter case.
	for _, name := range []string{"m2m:ae", "m2m:csr"} {
		if root != name && (strings.EqualFold(root, name) || strings.EqualFold(root, name[len("m2m:"):])) {
			return "", nil, malformed("the resource's name is in another form")
		}
	}
	return root, attributes, nil
}

// attribute returns the string that an attribute holds. It refuses the
// attribute in another letter case and with another kind of value. present is
// false when there is none, or null, which asks the CSE to fill it in.
func attribute(v *primitive.Value, name string) (value string, present bool, refused *refusal) {
	written, found := v.Find(name)
	if written != "" && written != name {
		return "", false, malformed("an attribute's name is in another letter case")
	}
	if found.Kind() == primitive.KindNull {
		return "", false, nil
	}
	value, ok := found.Str()
	if !ok {
		return "", false, malformed("an identity that is no string")
	}
	return value, true, nil
}

// checkAttributes is for the attributes that any resource may have.
func (p *Peer) checkAttributes(r *Request, attributes *primitive.Value, o originator) *refusal {
	// The creator is who sends the request (TS-0001 9.6.1.3.1). CSEs that take
	// one from the body give its rights to whom it names.
	creator, present, refused := attribute(attributes, "cr")
	if refused != nil {
		return refused
	}
	if present && !p.isOriginator(creator, o) {
		return notAuthenticated("the creator is another")
	}
	// An identifier of the peer's choice could be another AE's AE-ID: both
	// address a resource.
	if written, _ := attributes.Find("ri"); written != "" {
		return malformed("a resource identifier is the CSE's to assign")
	}
	if r.Operation == Create {
		written, ty := attributes.Find("ty")
		if n, ok := ty.Int(); written != "" && (written != "ty" || !ok || n != int64(r.Type)) {
			return malformed("the content names another resource type")
		}
	}
	return nil
}

// isOriginator reports whether an identity in the body is the originator of
// the request, in whatever form.
func (p *Peer) isOriginator(id string, o originator) bool {
	if o.id == "" {
		return false // there is none yet
	}
	if id == o.from {
		return true
	}
	if p.kind == kindCSE {
		named, _, refused := p.read(id)
		return refused == nil && named.id == o.id
	}
	named, err := onem2m.ParseAEID(id)
	return err == nil && named.Absolute(p.rules.cse).String() == o.id
}

// checkAE is for an AE's registration, and its update.
func (p *Peer) checkAE(attributes *primitive.Value, o originator) *refusal {
	aeID, present, refused := attribute(attributes, "aei")
	if refused != nil {
		return refused
	}
	if present && (p.kind == kindCSE || !p.isOriginator(aeID, o)) {
		return notAuthenticated("the AE-ID in the content is another's")
	}
	return nil
}

// checkRemoteCSE is for a CSE's registration, and its update. The hosting CSE
// routes by these attributes: naming another CSE would draw its requests here.
func (p *Peer) checkRemoteCSE(r *Request, attributes *primitive.Value, o originator) *refusal {
	if p.kind != kindCSE {
		return notAuthenticated("an AE registers no CSE")
	}
	cseID, present, refused := attribute(attributes, "csi")
	if refused != nil {
		return refused
	}
	if !present && r.Operation == Create {
		return malformed("a CSE's registration without its CSE-ID")
	}
	if present {
		id, err := onem2m.ParseCSEID(cseID)
		if err != nil || id.String() != cseID {
			return malformed("the CSE-ID in the content is malformed")
		}
		if id.Absolute(p.rules.cse.SP) != p.cseID {
			return notAuthenticated("the CSE-ID in the content is another's")
		}
	}
	base, present, refused := attribute(attributes, "cb")
	if refused != nil {
		return refused
	}
	if present && !p.rules.isAt(base, p.cseID) {
		return notAuthenticated("the CSEBase in the content is another CSE's")
	}
	return p.checkDescendants(attributes)
}

// checkDescendants is for the CSEs that are registered with the peer, to which
// the hosting CSE will send through it.
func (p *Peer) checkDescendants(attributes *primitive.Value) *refusal {
	written, list := attributes.Find("dcse")
	if written == "" || list.Kind() == primitive.KindNull {
		return nil
	}
	if written != "dcse" || list.Kind() != primitive.KindArray {
		return malformed("the descendant CSEs are no list")
	}
	for _, e := range list.Elems() {
		text, _ := e.Str()
		if _, err := onem2m.ParseCSEID(text); err != nil {
			return malformed("a descendant is no CSE-ID")
		}
		if _, refused := p.transit(text); refused != nil {
			return notAuthenticated("a descendant CSE is registered elsewhere")
		}
	}
	return nil
}

// checkDelivery is for a <delivery>, in which CSEs pass requests of others on.
func (p *Peer) checkDelivery(attributes *primitive.Value) *refusal {
	if p.kind != kindCSE {
		return notAuthenticated("only CSEs make deliveries")
	}
	source, present, refused := attribute(attributes, "sr")
	if refused != nil || !present {
		return refused
	}
	_, refused = p.transit(source)
	return refused
}

// checkNotification is for a NOTIFY. The creator of the subscription that an
// AE claims to notify for can only be itself; a CSE notifies for the
// subscriptions that others made there. Notifications may stand in a batch.
func (p *Peer) checkNotification(content *primitive.Value, o originator) *refusal {
	if p.kind == kindCSE {
		return nil
	}
	for object := range content.Objects() {
		for _, name := range []string{"m2m:sgn", "sgn"} {
			_, found := object.Find(name)
			for _, notification := range append(found.Elems(), found) {
				creator, present, refused := attribute(notification, "cr")
				if refused != nil {
					return refused
				}
				if present && !p.isOriginator(creator, o) {
					return notAuthenticated("the subscription's creator is another")
				}
			}
		}
	}
	return nil
}

// checkPrimitives looks at every object for request and response primitives
// within the content, which carry an originator of their own: on the polling
// channel, in a <delivery>, in an <action>. The rule is by what they hold, not
// by where they stand, as CSEs differ in where they look.
func (p *Peer) checkPrimitives(content *primitive.Value, o originator) *refusal {
	for object := range content.Objects() {
		if refused := p.checkPrimitive(object, o); refused != nil {
			return refused
		}
	}
	return nil
}

// checkPrimitive looks at one object. One with an originator and an operation,
// a status or a request identifier is a primitive.
func (p *Peer) checkPrimitive(v *primitive.Value, o originator) *refusal {
	written, _ := v.Find("fr")
	if written == "" {
		return nil
	}
	op, _ := v.Find("op")
	rsc, _ := v.Find("rsc")
	rqi, _ := v.Find("rqi")
	if op == "" && rsc == "" && rqi == "" {
		return nil // an application's own data
	}
	from, present, refused := attribute(v, "fr")
	if refused != nil {
		return refused
	}
	if !present || p.isOriginator(from, o) {
		return nil
	}
	if p.kind != kindCSE {
		return notAuthenticated("a primitive in the content has another originator")
	}
	_, refused = p.transit(from)
	return refused
}
