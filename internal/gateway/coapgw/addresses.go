package coapgw

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// A device's address becomes one of the gateway's:
//
//	coap://192.0.2.7:5683/notify  →  coap://gateway:5684/n/TOKEN/coap/192.0.2.7:5683/notify
//
// The token says whose it is, authenticated, so that the gateway keeps no table; the rest
// is there to give the device its own address back. All addresses that the CSE would send
// to are replaced, and nothing is ever sent to what they were: so a device can't have the
// gateway or the CSE send datagrams to anybody else. For the same reason other protocols'
// addresses are refused.
const (
	addressPath = "n"
	tagOctets   = 12
)

// token returns the token of a peer.
func (n *Notifications) token(owner onem2m.KmID) string {
	name := owner.String()
	return base64.RawURLEncoding.EncodeToString(append(n.tag(name), name...))
}

func (n *Notifications) tag(owner string) []byte {
	mac := hmac.New(sha256.New, n.key.Bytes())
	mac.Write([]byte("notifications to "))
	mac.Write([]byte(owner))
	return mac.Sum(nil)[:tagOctets]
}

// owner tells whose a token is.
func (n *Notifications) owner(token string) (onem2m.KmID, bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) < tagOctets || !hmac.Equal(b[:tagOctets], n.tag(string(b[tagOctets:]))) {
		return onem2m.KmID{}, false
	}
	id, err := onem2m.ParseKmID(string(b[tagOctets:]))
	return id, err == nil
}

// outward replaces the addresses in a request of a device's. n may be nil: then there is
// no way to a device, and addresses are refused.
func (n *Notifications) outward(owner onem2m.KmID, r *httpgw.Request, content *primitive.Value) error {
	replace := func(address string) (string, error) {
		switch {
		case isResource(address):
			return address, nil // the CSE's own way to its registrees
		case n == nil:
			return "", errors.New("an address for notifications, which are not delivered here")
		}
		return n.replace(n.token(owner), address)
	}
	if uri := r.Params[httpgw.NotificationURI]; uri != "" {
		// Several stand with '&' between them.
		all := strings.Split(uri, "&")
		for i := range all {
			var err error
			if all[i], err = replace(all[i]); err != nil {
				return err
			}
		}
		if uri = strings.Join(all, "&"); len(uri) > longestText {
			return errors.New("a notification URI that is too long")
		}
		r.Params[httpgw.NotificationURI] = uri
	}
	return policy.ReplaceContacts(content, replace)
}

// isResource reports whether an address is a resource identifier, behind which some clients
// put the serialisation that they want.
func isResource(address string) bool {
	path, query, more := strings.Cut(address, "?")
	return httpgw.CheckTo(path) == nil && (!more || query == "ct=json")
}

// replace returns what the CSE gets for an address that a device names.
func (n *Notifications) replace(token, address string) (string, error) {
	if rest, ok := strings.CutPrefix(address, n.base); ok {
		if whose, _, _ := strings.Cut(rest, "/"); whose != token {
			return "", errors.New("an address of the gateway's that is not this peer's")
		}
		return address, nil
	}
	scheme, rest, _ := strings.Cut(address, ":")
	if !strings.EqualFold(scheme, "coap") && !strings.EqualFold(scheme, "coaps") {
		return "", errors.New("an address of another protocol's")
	}
	rest, ok := strings.CutPrefix(rest, "//")
	authority, path, _ := strings.Cut(rest, "/")
	if !ok || authority == "" || !isPlain(rest, false) || strings.ContainsAny(rest, "%?#&@\\\"") {
		return "", errors.New("an address that is no plain coap URI")
	}
	replaced := n.base + token + "/" + strings.ToLower(scheme) + "/" + authority + "/" + path
	replaced = strings.TrimSuffix(replaced, "/")
	// One known CSE puts the whole path into one option.
	if len(replaced)-len(n.base) > longestText-len(addressPath)-1 {
		return "", errors.New("an address that is too long")
	}
	return replaced, nil
}

// original is replace's inverse.
func (n *Notifications) original(address string) string {
	rest, ok := strings.CutPrefix(address, n.base)
	if !ok {
		return address
	}
	_, rest, _ = strings.Cut(rest, "/")
	scheme, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return address
	}
	return scheme + "://" + rest
}

// inward gives the addresses in an answer of the CSE's back.
func (n *Notifications) inward(r *httpgw.Response) {
	if !isJSONType(r.ContentType) || !strings.Contains(string(r.Content), n.base) {
		return
	}
	content, err := primitive.Parse(r.Content)
	if err != nil {
		return
	}
	r.Content = n.restore(content).Append(nil)
}

// restore returns v with the originals of all addresses in it, wherever they stand: an
// answer may hold resources in resources.
func (n *Notifications) restore(v *primitive.Value) *primitive.Value {
	if text, ok := v.Str(); ok {
		return primitive.String(n.original(text))
	}
	for name, member := range v.Members() {
		v.Set(name, n.restore(member))
	}
	elems := v.Elems()
	if len(elems) == 0 {
		return v
	}
	for i := range elems {
		elems[i] = n.restore(elems[i])
	}
	return primitive.Array(elems...)
}
