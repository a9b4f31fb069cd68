package policy

import (
	"errors"
	"fmt"
	"strings"

	"github.com/onem2m-maf/maf/onem2m"
)

// An Allowance says who the holders of some master keys may be.
type Allowance struct {
	// KmID is a KmId, in which '*' stands for any characters.
	KmID string
	// AEIDs are AE-ID stems, in which '*' stands for any characters. A holder
	// may register as any that fits and is nobody's yet, and from then on speak
	// as it. "C*" lets the CSE choose.
	AEIDs []string
	// Most is how many AE-IDs one holder may get by '*'; 0 means one.
	Most int
	// CSE is the CSE-ID of the one holder, instead of AEIDs.
	CSE onem2m.CSEID
}

// An allowance is an Allowance that was checked.
type allowance struct {
	kmID    onem2m.KmID // zero when pattern holds a '*'
	pattern string      // of KmIds, folded
	stems   []string    // AEIDs without '*'
	globs   []string    // AEIDs with '*'
	most    int
	cse     onem2m.CSEID // absolute
}

func (r *Rules) check(a Allowance) (*allowance, error) {
	c := &allowance{pattern: fold(a.KmID), most: max(a.Most, 1)}
	if a.KmID == "" {
		return nil, errors.New("no KmId")
	}
	if !strings.Contains(a.KmID, "*") {
		var err error
		if c.kmID, err = onem2m.ParseKmID(a.KmID); err != nil {
			return nil, err
		}
	}
	one := !c.kmID.IsZero()
	if !a.CSE.IsZero() {
		c.cse = a.CSE.Absolute(r.cse.SP)
		switch {
		case len(a.AEIDs) > 0:
			return nil, errors.New("AE-IDs and a CSE-ID: it takes one or the other")
		case !one:
			return nil, errors.New("a CSE-ID can have only one holder")
		case fold(c.cse.String()) == fold(r.cse.String()):
			return nil, errors.New("the CSE-ID is that of the CSE behind the gateway")
		}
		return c, nil
	}
	if len(a.AEIDs) == 0 {
		return nil, errors.New("neither AE-IDs nor a CSE-ID")
	}
	for _, stem := range a.AEIDs {
		if err := c.add(stem, one); err != nil {
			return nil, err
		}
		if r.reserved[fold(stem)] {
			return nil, fmt.Errorf("AE-ID %q is reserved", stem)
		}
	}
	return c, nil
}

// add takes one of AEIDs apart.
func (c *allowance) add(stem string, one bool) error {
	// With a letter or two in place of each '*' it must be a stem.
	sample := strings.ReplaceAll(stem, "*", "CC")
	if id, err := onem2m.ParseAEID(sample); err != nil || !id.IsStem() {
		return fmt.Errorf("AE-ID %q is no stem, nor one with '*'", stem)
	}
	if strings.Contains(stem, "*") {
		c.globs = append(c.globs, stem)
		return nil
	}
	if !one {
		return fmt.Errorf("AE-ID %q can have only one holder, and the KmId holds a '*'", stem)
	}
	c.stems = append(c.stems, stem)
	return nil
}

// identities returns, in absolute form, whom the allowance names outright.
func (c *allowance) identities(registrar onem2m.CSEID) []string {
	if !c.cse.IsZero() {
		return []string{c.cse.String()}
	}
	var ids []string
	for _, stem := range c.stems {
		ids = append(ids, onem2m.AEID{Stem: stem}.Absolute(registrar).String())
	}
	return ids
}

// allowances returns those that admit k, those that name it first.
func (r *Rules) allowances(k onem2m.KmID) []*allowance {
	found := r.exact[k]
	for _, a := range r.wild {
		if matches(a.pattern, k.String()) {
			found = append(found[:len(found):len(found)], a)
		}
	}
	return found
}

// matches reports whether s fits pattern, in which '*' stands for any
// characters or none.
func matches(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	first, last := parts[0], parts[len(parts)-1]
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, part := range parts[1 : len(parts)-1] { // leftmost is as good as any
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return true
}
