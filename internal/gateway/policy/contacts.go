package policy

import (
	"iter"

	"github.com/onem2m-maf/maf/internal/gateway/primitive"
)

// contactAttributes hold addresses that the CSE will send to: pointOfAccess,
// notificationURI, subscriberURI, notificationForwardingURI and
// dynamicAuthorizationPoA (TS-0004 table 8.2.3).
var contactAttributes = []string{"poa", "nu", "su", "nfu", "dap"}

// ReplaceContacts puts, in the place of every address in a request's content
// that the CSE would send to, what replace returns for it. An address is in a
// resource's attributes: that of the content itself, or of the content of a
// primitive within, which the CSE may carry out; and in such a primitive's
// response type. Texts elsewhere are an application's. A resource identifier is
// an address too.
//
// Content must have passed Check. On an error of replace it is left in part.
func ReplaceContacts(content *primitive.Value, replace func(string) (string, error)) error {
	for object := range contactObjects(content) {
		for _, name := range contactAttributes {
			v := object.Get(name)
			if v == nil {
				continue
			}
			replaced, err := replaceTexts(v, replace)
			if err != nil {
				return err
			}
			object.Set(name, replaced)
		}
	}
	return nil
}

// replaceTexts replaces a text, or those in a list. What is neither, the CSE can't
// send to.
func replaceTexts(v *primitive.Value, replace func(string) (string, error)) (*primitive.Value, error) {
	if text, ok := v.Str(); ok {
		text, err := replace(text)
		return primitive.String(text), err
	}
	if v.Kind() != primitive.KindArray {
		return v, nil
	}
	all := v.Elems()
	for i := range all {
		var err error
		if all[i], err = replaceTexts(all[i], replace); err != nil {
			return nil, err
		}
	}
	return primitive.Array(all...), nil
}

// checkContacts refuses an address's attribute in another letter case, which no
// binding would replace.
func checkContacts(content *primitive.Value) *refusal {
	for object := range contactObjects(content) {
		for _, name := range contactAttributes {
			if written, _ := object.Find(name); written != "" && written != name {
				return malformed("an attribute's name is in another letter case")
			}
		}
	}
	return nil
}

// contactObjects yields the objects whose members may hold addresses.
func contactObjects(content *primitive.Value) iter.Seq[*primitive.Value] {
	return func(yield func(*primitive.Value) bool) {
		resources := []*primitive.Value{content}
		for object := range content.Objects() {
			// In any letter case: CSEs differ in what they take for a primitive.
			_, rt := object.Find("rt")
			if rt.Kind() == primitive.KindObject && !yield(rt) {
				return
			}
			if _, pc := object.Find("pc"); pc != nil {
				resources = append(resources, pc)
			}
		}
		for _, resource := range resources {
			for _, attributes := range resource.Members() {
				if attributes.Kind() == primitive.KindObject && !yield(attributes) {
					return
				}
			}
		}
	}
}
