package mqttgw

import (
	"errors"
	"net/url"
	"slices"
	"strings"

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
	if !strings.Contains(address, ":") {
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
func (c *contacts) toPeer(address string) (string, error) {
	if rest, ok := strings.CutPrefix(address, c.broker); ok && c.public != "" {
		if rest == "" || strings.ContainsRune("/?", rune(rest[0])) {
			return c.public + rest, nil
		}
	}
	return address, nil
}

// contactMembers are the attributes and parameters with addresses: pointOfAccess,
// notificationURI, also of a non-blocking request's response type, and
// subscriberURI.
var contactMembers = []string{"poa", "nu", "su"}

// replaceContacts replaces the addresses among v's own members.
func replaceContacts(v *primitive.Value, f func(string) (string, error)) error {
	for name, member := range v.Members() {
		if !slices.Contains(contactMembers, name) {
			continue
		}
		if text, ok := member.Str(); ok {
			text, err := f(text)
			if err != nil {
				return err
			}
			v.Set(name, primitive.String(text))
			continue
		}
		var all []*primitive.Value
		for _, e := range member.Elems() {
			text, ok := e.Str()
			if !ok {
				return errContact
			}
			text, err := f(text)
			if err != nil {
				return err
			}
			all = append(all, primitive.String(text))
		}
		if all != nil { // else it is an empty list, or null, which takes the attribute away
			v.Set(name, primitive.Array(all...))
		}
	}
	return nil
}

// outward replaces the addresses in a request of a peer's: in the resource that
// it creates or updates, and in its response type.
func (c *contacts) outward(n *names, content, rest *primitive.Value) error {
	f := func(address string) (string, error) { return c.toCSE(n, address) }
	for _, resource := range content.Members() {
		if err := replaceContacts(resource, f); err != nil {
			return err
		}
	}
	return replaceContacts(rest.Get("rt"), f)
}

// inward replaces the addresses in what the CSE sends, however deep they stand:
// an answer may hold resources in resources.
func (c *contacts) inward(v *primitive.Value) {
	replaceContacts(v, c.toPeer) // which doesn't fail; a member of another form is none
	for _, member := range v.Members() {
		c.inward(member)
	}
	for _, e := range v.Elems() {
		c.inward(e)
	}
}
