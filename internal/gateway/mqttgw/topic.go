package mqttgw

import (
	"slices"
	"strings"

	"github.com/onem2m-maf/maf/onem2m"
)

// The kinds of topics (TS-0010 6.4).
const (
	kindReq     = "req"
	kindResp    = "resp"
	kindRegReq  = "reg_req"
	kindRegResp = "reg_resp"
)

// A topic is a topic name of TS-0010:
//
//	/oneM2M/{kind}/{originator}/{receiver}/{format}
//
// Originator and receiver are those of the request, in a response's topic too.
// They are identifiers with ':' for '/', and may leave out the first '/'. In
// reg_req and reg_resp the originator is a Credential-ID. The first release
// knows no format.
type topic struct {
	kind, originator, receiver string
	format                     string // "" when there is none
}

func parseTopic(s string) (topic, bool) {
	levels := strings.Split(s, "/")
	if len(levels) == 5 {
		levels = append(levels, "")
	} else if len(levels) != 6 || levels[5] == "" {
		return topic{}, false
	}
	t := topic{kind: levels[2], originator: levels[3], receiver: levels[4], format: levels[5]}
	known := t.kind == kindReq || t.kind == kindResp || t.kind == kindRegReq || t.kind == kindRegResp
	ok := levels[0] == "" && levels[1] == "oneM2M" && known && isName(t.originator) && isName(t.receiver)
	return t, ok
}

func (t topic) String() string {
	s := "/oneM2M/" + t.kind + "/" + t.originator + "/" + t.receiver
	if t.format != "" {
		s += "/" + t.format
	}
	return s
}

// answer returns the topic of the response to a request on t.
func (t topic) answer() topic {
	t.kind = map[string]string{kindReq: kindResp, kindRegReq: kindRegResp}[t.kind]
	return t
}

// isName reports whether s is of the characters of which identifiers in topics
// are made: RFC 3986's unreserved ones, ':' and '@'.
func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-._~:@", c))
	})
}

// names knows which identifiers in topics are the CSE's and which are a peer's
// own.
type names struct {
	cse        onem2m.CSEID
	cseNames   []string // as the CSE's topics have them
	credential string   // the peer's Credential-ID
	peer       peer
}

// A peer is a *policy.Peer.
type peer interface {
	AEIDs() []onem2m.AEID
	CSEID() onem2m.CSEID
}

// spellings returns the forms of a CSE-ID in topics.
func spellings(id onem2m.CSEID) []string {
	all := []string{id.ID, ":" + id.ID}
	if id.IsAbsolute() {
		all = append(all, strings.ReplaceAll(id.String(), "/", ":"))
	}
	return all
}

func (n *names) isCSE(name string) bool { return slices.Contains(n.cseNames, name) }

// own returns the identity that name stands for, when it is the peer's now: an
// AE-ID that it may use for any request, or its CSE-ID. The CSE's own names are
// nobody else's, even where an AE-ID stem reads like one.
func (n *names) own(name string) (id string, ok bool) {
	if n.isCSE(name) || slices.Contains(spellings(n.cse), name) {
		return "", false
	}
	if cse := n.peer.CSEID(); !cse.IsZero() {
		return cse.String(), slices.Contains(spellings(cse), name)
	}
	aeID, ok := n.aeID(name)
	return aeID.String(), ok && slices.Contains(n.peer.AEIDs(), aeID)
}

// aeID reads an AE-ID of the CSE's registrees, as it stands in a topic or in a
// primitive, into its absolute form.
func (n *names) aeID(name string) (onem2m.AEID, bool) {
	s := strings.ReplaceAll(name, ":", "/")
	if !strings.HasPrefix(s, "/") && strings.Contains(s, "/") {
		s = "/" + s
	}
	id, err := onem2m.ParseAEID(s)
	if err != nil {
		return onem2m.AEID{}, false
	}
	id = id.Absolute(n.cse)
	return id, id.SP == n.cse.SP && (id.CSE == "" || id.CSE == n.cse.ID)
}

// ownOrCredential is own for registrations, for which a peer need not have an
// identity yet.
func (n *names) ownOrCredential(name string) bool {
	_, own := n.own(name)
	return own || name == n.credential
}

// mayRead reports whether messages on t are for the peer: answers of the CSE to
// it, and requests of the CSE to it.
func (n *names) mayRead(t topic) bool {
	switch t.kind {
	case kindResp:
		_, own := n.own(t.originator)
		return own && n.isCSE(t.receiver)
	case kindRegResp:
		return n.ownOrCredential(t.originator) && n.isCSE(t.receiver)
	case kindReq:
		_, own := n.own(t.receiver)
		return own && n.isCSE(t.originator)
	}
	return false
}

// maySubscribe reports whether everything that a topic filter selects has the
// form of a topic that mayRead admits. A wildcard may stand where nothing but
// the CSE's name or the format is; never for the peer's own name, nor above it.
// That rules out $share and $SYS too, which don't begin with "/oneM2M".
func (n *names) maySubscribe(filter string) bool {
	levels := strings.Split(filter, "/")
	if len(levels) < 5 || len(levels) > 6 || levels[0] != "" || levels[1] != "oneM2M" {
		return false
	}
	kind, originator, receiver := levels[2], levels[3], levels[4]
	if len(levels) == 6 && !slices.Contains([]string{formatJSON, "+", "#"}, levels[5]) {
		return false
	}
	switch kind {
	case kindResp, kindRegResp:
		below := receiver == "+" || receiver == "#" && len(levels) == 5 || n.isCSE(receiver)
		_, own := n.own(originator)
		return below && (own || kind == kindRegResp && originator == n.credential)
	case kindReq:
		_, own := n.own(receiver)
		return own && (originator == "+" || n.isCSE(originator))
	}
	return false
}

// isFilter reports whether maySubscribe admits s for some peer.
func isFilter(s string) bool {
	levels := strings.Split(s, "/")
	if len(levels) < 5 || len(levels) > 6 || levels[0] != "" || levels[1] != "oneM2M" {
		return false
	}
	for _, level := range levels[2:] {
		if level != "+" && level != "#" && !isName(level) {
			return false
		}
	}
	return true
}

// formatJSON is the one serialisation that the gateway can read.
const formatJSON = "json"

// ownNames returns a name of each of the peer's identities.
func (n *names) ownNames() []string {
	if cse := n.peer.CSEID(); !cse.IsZero() {
		return []string{cse.ID}
	}
	var all []string
	for _, id := range n.peer.AEIDs() {
		all = append(all, id.Stem)
	}
	return all
}
