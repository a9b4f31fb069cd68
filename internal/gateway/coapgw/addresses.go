package coapgw

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// A device's address becomes one of the gateway's:
//
//	coap://192.0.2.7:5683/notify  →  coap://gateway:5684/n/TOKEN/coap/192.0.2.7:5683/notify
//
// The token says whose it is, authenticated, so that the gateway keeps no table; the rest
// is there to give the device its own address back. All coap and coaps addresses in "poa",
// "nu" and the notification URI of a request are replaced: nothing is ever sent to them, so a
// device can't have the gateway or the CSE send datagrams to anybody else.
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
	mac := hmac.New(sha256.New, n.key)
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

// outward replaces the addresses in a request of a device's.
func (n *Notifications) outward(owner onem2m.KmID, r *httpgw.Request, content *primitive.Value) error {
	token := n.token(owner)
	replace := func(address string) (string, error) { return n.replace(token, address) }
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
	for _, object := range content.Members() {
		if err := mapAddresses(object, replace, false); err != nil {
			return err
		}
	}
	return nil
}

// replace returns what the CSE gets for an address that a device names.
func (n *Notifications) replace(token, address string) (string, error) {
	if rest, ok := strings.CutPrefix(address, n.base); ok {
		if whose, _, _ := strings.Cut(rest, "/"); whose != token {
			return "", errors.New("an address of the gateway's that is not this peer's")
		}
		return address, nil
	}
	scheme, rest, ok := strings.Cut(address, ":")
	switch {
	case !ok:
		return address, nil // a resource
	case !strings.EqualFold(scheme, "coap") && !strings.EqualFold(scheme, "coaps"):
		if !n.config.Elsewhere {
			return "", errors.New("an address of another protocol's")
		}
		return address, nil
	}
	rest, ok = strings.CutPrefix(rest, "//")
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
func (n *Notifications) original(address string) (string, error) {
	rest, ok := strings.CutPrefix(address, n.base)
	if !ok {
		return address, nil
	}
	_, rest, _ = strings.Cut(rest, "/")
	scheme, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return address, nil
	}
	return scheme + "://" + rest, nil
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
	if mapAddresses(content, n.original, true) == nil {
		r.Content = content.Append(nil)
	}
}

// mapAddresses replaces the texts of the members "poa" and "nu" of an object: itself only,
// or in depth, as in an answer with child resources.
func mapAddresses(v *primitive.Value, f func(string) (string, error), deep bool) error {
	for name, member := range v.Members() {
		if name != "poa" && name != "nu" {
			if deep {
				if err := mapAddresses(member, f, deep); err != nil {
					return err
				}
			}
			continue
		}
		replaced, err := mapTexts(member, f)
		if err != nil {
			return err
		}
		v.Set(name, replaced)
	}
	if deep {
		for _, element := range v.Elems() {
			if err := mapAddresses(element, f, deep); err != nil {
				return err
			}
		}
	}
	return nil
}

// mapTexts replaces a text, or the texts of a list.
func mapTexts(v *primitive.Value, f func(string) (string, error)) (*primitive.Value, error) {
	if text, ok := v.Str(); ok {
		text, err := f(text)
		return primitive.String(text), err
	}
	if v.Kind() != primitive.KindArray {
		return v, nil
	}
	elems := make([]*primitive.Value, 0, v.Len())
	for _, element := range v.Elems() {
		if element.Kind() == primitive.KindArray {
			return nil, errors.New("a list of addresses in a list")
		}
		replaced, err := mapTexts(element, f)
		if err != nil {
			return nil, err
		}
		elems = append(elems, replaced)
	}
	return primitive.Array(elems...), nil
}
