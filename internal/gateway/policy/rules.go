package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/onem2m-maf/maf/onem2m"
)

// Config says what New needs to know.
type Config struct {
	// CSE is the CSE behind the gateway (IdB), absolute.
	CSE onem2m.CSEID
	// Allowed says who a peer is of whom the MAF knows only the KmId. Such a
	// peer that no Allowance names may do nothing.
	Allowed []Allowance
	// Registrees are further CSEs registered with CSE, by ways that do not lead
	// through this gateway: no peer may speak as one of them.
	Registrees []onem2m.CSEID
	// Reserved are AE-ID stems that no peer may use, whatever the MAF or Allowed
	// say, without regard to letter case: those to which the CSE gives every
	// right. Nil means DefaultReserved.
	Reserved []string
	// Memory keeps the AE-IDs that were learned. Nil: they are lost with Rules.
	Memory Memory
}

// DefaultReserved returns the originators to which open CSEs give every right
// as they come: ACME and tinyIoT CAdmin, Mobius Sponde (earlier Superman) and,
// to read, Sandwich.
func DefaultReserved() []string { return []string{"CAdmin", "Sponde", "Superman", "Sandwich"} }

// A Claim says that an AE-ID belongs to the holder of a master key.
type Claim struct {
	KmID onem2m.KmID
	AEID onem2m.AEID // absolute
}

// A Memory keeps claims across restarts. Its methods may be called concurrently.
type Memory interface {
	// Load returns all claims, in the order in which they were added.
	Load() ([]Claim, error)
	// Add keeps a claim. When it returns nil the claim is on stable storage;
	// when it fails, the claim may be there or not.
	Add(Claim) error
}

// maxClaims bounds what devices can make the gateway remember.
const maxClaims = 1 << 20

// Rules are the identity rules of one CSE. They may be used concurrently.
type Rules struct {
	cse      onem2m.CSEID
	reserved map[string]bool // by folded stem
	memory   Memory
	exact    map[onem2m.KmID][]*allowance
	wild     []*allowance // those whose KmID holds a '*', in order

	mu      sync.RWMutex
	known   map[string]registree // by folded absolute identity; guarded by mu
	learned map[onem2m.KmID][]onem2m.AEID
	claims  int // the sum of learned's lengths
}

// A registree is an identity that belongs to somebody: to the holder of a
// master key, or, with the zero KmID, to nobody that may come here.
type registree struct {
	id    string // absolute
	kmID  onem2m.KmID
	byMAF bool // the MAF says so
}

// New checks the configuration and loads the memory.
func New(c Config) (*Rules, error) {
	if !c.CSE.IsAbsolute() {
		return nil, errors.New("policy: the CSE-ID of the CSE must be absolute")
	}
	r := &Rules{
		cse:      c.CSE,
		reserved: make(map[string]bool),
		memory:   c.Memory,
		exact:    make(map[onem2m.KmID][]*allowance),
		known:    make(map[string]registree),
		learned:  make(map[onem2m.KmID][]onem2m.AEID),
	}
	if c.Reserved == nil {
		c.Reserved = DefaultReserved()
	}
	for _, stem := range c.Reserved {
		r.reserved[fold(stem)] = true
	}
	for _, cse := range c.Registrees {
		id := cse.Absolute(c.CSE.SP).String()
		r.known[fold(id)] = registree{id: id}
	}
	own := c.CSE.String()
	r.known[fold(own)] = registree{id: own} // nobody speaks as the CSE itself
	if err := r.allow(c.Allowed); err != nil {
		return nil, err
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	return r, nil
}

// allow checks the allowances and takes note of whom they name.
func (r *Rules) allow(allowed []Allowance) error {
	for i, a := range allowed {
		checked, err := r.check(a)
		if err != nil {
			return fmt.Errorf("policy: allowance %d (KmId %q): %w", i+1, a.KmID, err)
		}
		if checked.kmID.IsZero() {
			r.wild = append(r.wild, checked)
			continue
		}
		same := r.exact[checked.kmID]
		if len(same) > 0 && (!checked.cse.IsZero() || !same[0].cse.IsZero()) {
			return fmt.Errorf("policy: allowance %d (KmId %q): a CSE has one allowance", i+1, a.KmID)
		}
		r.exact[checked.kmID] = append(same, checked)
		for _, id := range checked.identities(r.cse) {
			entry := registree{id: id, kmID: checked.kmID}
			if other, taken := r.known[fold(id)]; taken && other != entry {
				return fmt.Errorf("policy: allowance %d (KmId %q): %s is another's", i+1, a.KmID, id)
			}
			r.known[fold(id)] = entry
		}
	}
	return nil
}

func (r *Rules) load() error {
	if r.memory == nil {
		return nil
	}
	claims, err := r.memory.Load()
	if err != nil {
		return fmt.Errorf("policy: reading the learned AE-IDs: %w", err)
	}
	for _, c := range claims {
		if !c.AEID.IsAbsolute() || c.KmID.IsZero() {
			return fmt.Errorf("policy: a learned AE-ID is not complete: %q of %q", c.AEID, c.KmID)
		}
		_, _ = r.hold(c) // the configuration may have given the AE-ID to another since
	}
	return nil
}

// hold takes note of a claim, unless the AE-ID is another's or there are too
// many. r.mu is held, or r is not shared yet.
func (r *Rules) hold(c Claim) (added bool, err error) {
	id := c.AEID.String()
	if other, taken := r.known[fold(id)]; taken && (other.kmID != c.KmID || other.id != id) {
		return false, fmt.Errorf("%s is another's", id)
	}
	if slices.Contains(r.learned[c.KmID], c.AEID) {
		return false, nil
	}
	if r.claims >= maxClaims {
		return false, fmt.Errorf("%d AE-IDs are learned: no more", maxClaims)
	}
	r.claims++
	r.learned[c.KmID] = append(r.learned[c.KmID], c.AEID)
	r.known[fold(id)] = registree{id: id, kmID: c.KmID}
	return true, nil
}

// claim is hold for a running gateway: what is new also goes to the memory. Of
// one master key there are most at most, also when it registers many at once.
func (r *Rules) claim(c Claim, most int) error {
	r.mu.Lock()
	held := r.learned[c.KmID]
	if len(held) >= most && !slices.Contains(held, c.AEID) {
		r.mu.Unlock()
		return errors.New("this KmId has as many AE-IDs as it may have")
	}
	added, err := r.hold(c)
	r.mu.Unlock()
	if err != nil || !added || r.memory == nil {
		return err
	}
	// The memory is written outside the lock, so that many registrations share
	// one write. Should it fail, the claim still holds until the restart.
	return r.memory.Add(c)
}

// held returns the AE-IDs that were learned for a master key.
func (r *Rules) held(k onem2m.KmID) []onem2m.AEID {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.learned[k] // only ever appended to
}

// meet takes note of an identity that the MAF vouches for.
func (r *Rules) meet(id string, k onem2m.KmID) {
	key, entry := fold(id), registree{id: id, kmID: k, byMAF: true}
	r.mu.RLock()
	old := r.known[key]
	r.mu.RUnlock()
	if old != entry {
		r.mu.Lock()
		r.known[key] = entry
		r.mu.Unlock()
	}
}

// owner returns whose an absolute identity is, or one that differs from it in
// letter case only.
func (r *Rules) owner(id string) (registree, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	o, ok := r.known[fold(id)]
	return o, ok
}

// fold makes one of identities that a CSE which ignores letter case takes for
// one. They are ASCII.
func fold(id string) string { return strings.ToLower(id) }
