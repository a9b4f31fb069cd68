package mqttgw

import (
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
)

// contacts replaces the addresses at which devices ask to be notified. Devices
// know the gateway's, mqtts://gateway:8883, at which the CSE would find the
// gateway and not the broker; and an address is a way to have the CSE publish to a
// topic, or call a host, of the device's choice.
type contacts struct {
	broker string // what the CSE gets: "mqtt://127.0.0.1:1883"
	public string // what devices get in its place; "" when it is the same
}

// errContact refuses an address.
var errContact = errors.New("an address for notifications that is not the peer's own by MQTT")

// toCSE returns the address that the CSE gets for one that a peer names. A
// resource identifier is no address. Of an MQTT URL the host does not matter; a
// path, as some CSEs want one, must be the peer's own name or its topic.
func (c *contacts) toCSE(n *names, address string) (string, error) {
	if path, query, more := strings.Cut(address, "?"); checkTarget(path) == nil && (!more || query == "ct=json") {
		return address, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "mqtt" && u.Scheme != "mqtts" || u.Host == "" || u.User != nil || u.Fragment != "" || u.Opaque != "" {
		return "", errContact
	}
	query := ""
	if u.RawQuery != "" || u.ForceQuery {
		if query = "?ct=json"; u.RawQuery != query[1:] {
			return "", errContact
		}
	}
	if u.RawPath != "" {
		return "", errContact
	}
	if u.Path == "" || u.Path == "/" {
		return c.broker + query, nil
	}
	t, isTopic := parseTopic(u.Path)
	_, isOwn := n.own(strings.TrimPrefix(u.Path, "/"))
	if !isOwn && !(isTopic && t.kind == kindReq && n.mayRead(t)) {
		return "", errContact
	}
	return c.broker + u.Path + query, nil
}

// toPeer is toCSE's inverse, but for the host that the device had written.
func (c *contacts) toPeer(address string) string {
	if rest, ok := strings.CutPrefix(address, c.broker); ok && c.public != "" {
		if rest == "" || strings.ContainsRune("/?", rune(rest[0])) {
			return c.public + rest
		}
	}
	return address
}

// outward replaces the addresses in a request of a peer's: in its content, and in
// its response type.
func (c *contacts) outward(n *names, content, rest *primitive.Value) error {
	f := func(address string) (string, error) { return c.toCSE(n, address) }
	if err := policy.ReplaceContacts(content, f); err != nil {
		return err
	}
	rt := rest.Get("rt")
	if rt.Kind() == primitive.KindArray {
		return errors.New("a list of response types")
	}
	for name := range rt.Members() {
		if name != "rtv" && name != "nu" { // such as "NU"
			return errors.New("a response type with another member than rtv and nu")
		}
	}
	if rt == nil {
		return nil
	}
	resource := primitive.Object()
	resource.Set("rt", rt)
	return policy.ReplaceContacts(resource, f)
}

// contactMembers are the attributes in which the CSE keeps addresses; see
// policy.ReplaceContacts.
var contactMembers = []string{"poa", "nu", "su", "nfu", "dap"}

// inward replaces the addresses in what the CSE sends, however deep they stand:
// an answer may hold resources in resources.
func (c *contacts) inward(v *primitive.Value) {
	for name, member := range v.Members() {
		if slices.Contains(contactMembers, name) {
			v.Set(name, c.inwardTexts(member))
		} else {
			c.inward(member)
		}
	}
	for _, e := range v.Elems() {
		c.inward(e)
	}
}

func (c *contacts) inwardTexts(v *primitive.Value) *primitive.Value {
	if text, ok := v.Str(); ok {
		return primitive.String(c.toPeer(text))
	}
	elems := v.Elems()
	if len(elems) == 0 {
		return v
	}
	all := make([]*primitive.Value, len(elems))
	for i := range elems {
		all[i] = c.inwardTexts(elems[i])
	}
	return primitive.Array(all...)
}
