package policy

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// The identities of these tests. The verdicts about From alone are in
// internal/gateway/matrix.
const (
	sp  = "sp.example.com"
	maf = "maf.example.com"
)

var inCSE = onem2m.CSEID{SP: sp, ID: "in-cse"}

func kmID(name string) onem2m.KmID { return onem2m.KmID{Relative: name, FQDN: maf} }

func here(stem string) onem2m.AEID { return onem2m.AEID{Stem: stem}.Absolute(inCSE) }

func anAE(stem string) saef.Association {
	return saef.Association{KmID: kmID(strings.ToLower(stem)), AEID: here(stem)}
}

func aCSE(name string) saef.Association {
	return saef.Association{KmID: kmID(name), CSEID: onem2m.CSEID{SP: sp, ID: name}}
}

func unnamed(name string) saef.Association { return saef.Association{KmID: kmID(name)} }

func newRules(t testing.TB, c Config) *Rules {
	t.Helper()
	c.CSE = inCSE
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func value(t testing.TB, text string) *primitive.Value {
	t.Helper()
	if text == "" {
		return nil
	}
	v, err := primitive.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// register returns a registration, with no From when from is "-".
func register(t testing.TB, from string) *Request {
	r := &Request{Operation: Create, Type: typeAE, From: from, HasFrom: true, To: "/in-cse", Content: value(t, `{"m2m:ae":{"api":"N1"}}`)}
	if from == "-" {
		r.From, r.HasFrom = "", false
	}
	return r
}

func retrieve(from string) *Request {
	return &Request{Operation: Retrieve, From: from, HasFrom: true, To: "/in-cse/x"}
}

func created(t testing.TB, aeID string) *primitive.Value {
	return value(t, `{"m2m:ae":{"aei":"`+aeID+`","ri":"`+aeID+`"}}`)
}

func wantFrom(t *testing.T, v Verdict, from string) {
	t.Helper()
	if !v.Allowed || v.From != from || !v.HasFrom {
		t.Errorf("got %+v, want From %q", v, from)
	}
}

func wantStatus(t *testing.T, v Verdict, status onem2m.ResponseStatusCode) {
	t.Helper()
	if v.Allowed || v.Status != status || v.From != "" || v.Reason == "" {
		t.Errorf("got %+v, want %v", v, status)
	}
}

const (
	bad       = onem2m.StatusBadRequest
	notAuth   = onem2m.StatusOriginatorNotAuthenticated
	forbidden = onem2m.StatusOperationNotAllowed
)

// What another CSE answers to a registration gives nobody an AE-ID here: it could
// be that of an AE which came here by another way.
func TestRegistrationElsewhere(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}}}})
	for _, peer := range []*Peer{r.Peer(unnamed("a")), r.Peer(anAE("Cvictim2"))} {
		for _, to := range []string{"/mn-cse", "/mn-cse/base", "/in-cse2", "/IN-CSE", "//sp.example.com/mn-cse", "//other.example.com/in-cse/base"} {
			q := register(t, "C")
			q.To = to
			wantStatus(t, peer.Check(q), notAuth)
		}
		for _, to := range []string{"in-cse", "-", "/in-cse/base", "//sp.example.com/in-cse"} {
			q := register(t, "C")
			q.To = to
			if v := peer.Check(q); !v.Allowed {
				t.Errorf("%s: %+v", to, v)
			}
		}
	}
}

// However many registrations of one device are under way, it gets no more AE-IDs
// than it may have.
func TestMostAtOnce(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}, Most: 2}}})
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			_ = r.claim(Claim{kmID("a"), here("C" + strings.Repeat("x", 1+i))}, 2)
		})
	}
	all.Wait()
	if held := r.held(kmID("a")); len(held) != 2 {
		t.Errorf("%d AE-IDs", len(held))
	}
	if err := r.claim(Claim{kmID("a"), r.held(kmID("a"))[0]}, 2); err != nil {
		t.Error(err)
	}
}

// A credential registers as the CSE likes, and is held to it ever after.
func TestLearn(t *testing.T) {
	memory := &list{}
	config := Config{Allowed: []Allowance{{KmID: "*@" + maf, AEIDs: []string{"C*"}}}, Memory: memory}
	r := newRules(t, config)
	a, b := r.Peer(unnamed("a")), r.Peer(unnamed("b"))

	v := a.Check(register(t, "-"))
	wantFrom(t, v, "C")
	if !v.Learns {
		t.Error("the answer is not asked for")
	}
	wantStatus(t, a.Check(retrieve("Ca1")), notAuth)
	if err := a.Learn(register(t, "-"), onem2m.StatusCreated, created(t, "Ca1")); err != nil {
		t.Fatal(err)
	}
	wantFrom(t, a.Check(retrieve("Ca1")), "Ca1")
	wantFrom(t, r.Peer(unnamed("a")).Check(retrieve("Ca1")), "Ca1") // another association
	v = a.Check(register(t, "C"))
	wantFrom(t, v, "Ca1") // registers again
	if v.Learns {
		t.Error("nothing is left to learn")
	}
	wantStatus(t, a.Check(register(t, "Ca2")), notAuth)

	// Nobody else gets it, nor what looks like it to a CSE that ignores case.
	for _, from := range []string{"Ca1", "CA1"} {
		wantStatus(t, b.Check(register(t, from)), notAuth)
		wantStatus(t, b.Check(retrieve(from)), notAuth)
	}
	if err := b.Learn(register(t, "C"), onem2m.StatusCreated, created(t, "CA1")); err == nil {
		t.Error("a CSE gave one AE-ID to two")
	}
	wantStatus(t, b.Check(retrieve("CA1")), notAuth)
	wantFrom(t, b.Check(register(t, "C")), "C") // and it is still without

	// Deleted or not, it stays its own.
	gone := &Request{Operation: Delete, From: "Ca1", HasFrom: true, To: "Ca1"}
	if err := a.Learn(gone, onem2m.StatusDeleted, nil); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, b.Check(register(t, "Ca1")), notAuth)

	r = newRules(t, config) // a restart
	wantFrom(t, r.Peer(unnamed("a")).Check(retrieve("Ca1")), "Ca1")
	wantStatus(t, r.Peer(unnamed("b")).Check(register(t, "Ca1")), notAuth)
	if len(memory.claims) != 1 {
		t.Errorf("kept %v", memory.claims)
	}

	// Under another configuration, what was learned admits nothing by itself.
	config.Allowed = []Allowance{{KmID: "*@" + maf, AEIDs: []string{"Cmeter*"}}}
	wantStatus(t, newRules(t, config).Peer(unnamed("a")).Check(retrieve("Ca1")), notAuth)
}

// A full stem is learned from the request when the answer does not tell.
func TestLearnNamed(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*@" + maf, AEIDs: []string{"Cmeter*", "Smeter*"}, Most: 2}}})
	p := r.Peer(unnamed("a"))
	for _, stem := range []string{"Cmeter1", "Smeter1"} {
		v := p.Check(register(t, stem))
		wantFrom(t, v, stem)
		if !v.Learns {
			t.Error("the answer is not asked for")
		}
		wantStatus(t, p.Check(retrieve(stem)), notAuth)
		if err := p.Learn(register(t, stem), onem2m.StatusCreated, nil); err != nil {
			t.Fatal(err)
		}
		wantFrom(t, p.Check(retrieve(stem)), stem)
	}
	wantStatus(t, p.Check(register(t, "Cmeter2")), notAuth) // two is all
	wantFrom(t, p.Check(register(t, "S")), "Smeter1")
	wantStatus(t, p.Check(register(t, "-")), notAuth) // which one?
	wantStatus(t, p.Check(register(t, "Cother")), notAuth)
}

// Nothing is learned from what was no registration, or did not succeed.
func TestLearnNothing(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*@" + maf, AEIDs: []string{"C*", "S*"}}}})
	p := r.Peer(unnamed("a"))
	update := &Request{Operation: Update, Type: typeAE, From: "Ca1", HasFrom: true, To: "Ca1"}
	for _, err := range []error{
		p.Learn(update, onem2m.StatusCreated, created(t, "Ca1")),
		p.Learn(register(t, "Ca1"), 4105, nil),
		p.Learn(register(t, "Ca1"), onem2m.StatusOK, created(t, "Ca1")),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	for name, answer := range map[string]*primitive.Value{
		"nothing":            nil,
		"no AE":              value(t, `{"m2m:cnt":{"aei":"Ca1"}}`),
		"an unreadable one":  created(t, "a1"),
		"another CSE's":      created(t, "/far-cse/Ca1"),
		"another provider's": created(t, "//far.example.com/Sa1"),
		"a reserved one":     created(t, "cAdmin"),
		"the admin's":        created(t, "CAdmin"),
	} {
		if err := p.Learn(register(t, "C"), onem2m.StatusCreated, answer); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	wantStatus(t, p.Check(retrieve("Ca1")), notAuth)
	wantStatus(t, p.Check(retrieve("CAdmin")), notAuth)
	if err := r.Peer(anAE("Cmeter7")).Learn(register(t, "C"), onem2m.StatusCreated, created(t, "Cwrong")); err == nil {
		t.Error("a CSE that assigns another AE-ID than the authenticated one goes unnoticed")
	}
}

// What the MAF says of another key overrules what was learned.
func TestMAFOverrules(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*@" + maf, AEIDs: []string{"C*"}}}})
	p := r.Peer(unnamed("a"))
	if err := p.Learn(register(t, "Cmeter7"), onem2m.StatusCreated, nil); err != nil {
		t.Fatal(err)
	}
	wantFrom(t, p.Check(retrieve("Cmeter7")), "Cmeter7")
	wantFrom(t, r.Peer(anAE("Cmeter7")).Check(retrieve("Cmeter7")), "Cmeter7")
	wantStatus(t, p.Check(retrieve("Cmeter7")), notAuth)
	wantStatus(t, p.Check(register(t, "-")), notAuth)
}

// A CSE is not an AE that is registered here, however its AE-ID is written.
func TestCSEIsNotAnAEOfThisCSE(t *testing.T) {
	r := newRules(t, Config{})
	p := r.Peer(aCSE("mn-cse"))
	for _, from := range []string{"Smeter7", "/Smeter7", "//" + sp + "/Smeter7"} {
		v := p.Check(retrieve(from))
		if !v.Allowed {
			t.Errorf("%s: %+v", from, v)
		}
	}
	r.Peer(saef.Association{KmID: kmID("s"), AEID: onem2m.AEID{SP: sp, Stem: "Smeter7"}})
	for _, from := range []string{"Smeter7", "/Smeter7", "//" + sp + "/Smeter7", "/SMETER7"} {
		wantStatus(t, p.Check(retrieve(from)), notAuth)
	}
	// Nor another CSE that has an association here.
	wantFrom(t, p.Check(retrieve("/mn2/Cx")), "/mn2/Cx")
	r.Peer(aCSE("mn2"))
	wantStatus(t, p.Check(retrieve("/mn2/Cx")), notAuth)
	wantStatus(t, p.Check(retrieve("/mn2")), notAuth)
}

func TestStrangers(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "a*@" + maf, AEIDs: []string{"C*"}}}})
	for name, a := range map[string]saef.Association{
		"AE of another CSE":      {KmID: kmID("x"), AEID: onem2m.AEID{SP: sp, CSE: "far-cse", Stem: "Cx"}},
		"AE of another provider": {KmID: kmID("x"), AEID: onem2m.AEID{SP: "far.example.com", Stem: "Sx"}},
		"reserved AE-ID":         anAE("CAdmin"),
		"reserved, other case":   anAE("Cadmin"),
		"the CSE itself":         aCSE("in-cse"),
		"like the CSE itself":    aCSE("IN-CSE"),
		"no allowance":           unnamed("b"),
		"no KmId":                {KcID: onem2m.KcID{FQDN: maf}},
	} {
		p := r.Peer(a)
		for _, from := range []string{"Cx", "Sx", "CAdmin", "/in-cse", "/far-cse/Cx", "C", ""} {
			if v := p.Check(register(t, from)); v.Allowed || v.Status != notAuth {
				t.Errorf("%s, From %q: %+v", name, from, v)
			}
			if v := p.Check(retrieve(from)); v.Allowed || v.Status != notAuth {
				t.Errorf("%s, From %q: %+v", name, from, v)
			}
		}
	}
	own := newRules(t, Config{Reserved: []string{}})
	wantFrom(t, own.Peer(anAE("CAdmin")).Check(retrieve("CAdmin")), "CAdmin")
}

func TestConfigRefused(t *testing.T) {
	twoFor := func(second Allowance) []Allowance {
		return []Allowance{{KmID: "a@" + maf, AEIDs: []string{"Ca"}}, second}
	}
	for name, c := range map[string]Config{
		"relative CSE-ID":       {CSE: onem2m.CSEID{ID: "in-cse"}},
		"no KmId":               {Allowed: []Allowance{{AEIDs: []string{"C*"}}}},
		"bad KmId":              {Allowed: []Allowance{{KmID: "a", AEIDs: []string{"C*"}}}},
		"nothing allowed":       {Allowed: []Allowance{{KmID: "*"}}},
		"two kinds":             {Allowed: []Allowance{{KmID: "a@" + maf, AEIDs: []string{"C*"}, CSE: onem2m.CSEID{ID: "x"}}}},
		"one CSE for many":      {Allowed: []Allowance{{KmID: "*", CSE: onem2m.CSEID{ID: "x"}}}},
		"one AE-ID for many":    {Allowed: []Allowance{{KmID: "*", AEIDs: []string{"Ca"}}}},
		"the CSE itself":        {Allowed: []Allowance{{KmID: "a@" + maf, CSE: inCSE}}},
		"reserved":              {Allowed: []Allowance{{KmID: "a@" + maf, AEIDs: []string{"CAdmin"}}}},
		"no stem":               {Allowed: []Allowance{{KmID: "*", AEIDs: []string{"meter*"}}}},
		"SP-relative":           {Allowed: []Allowance{{KmID: "*", AEIDs: []string{"/in-cse/C*"}}}},
		"just a letter":         {Allowed: []Allowance{{KmID: "a@" + maf, AEIDs: []string{"C"}}}},
		"empty":                 {Allowed: []Allowance{{KmID: "*", AEIDs: []string{""}}}},
		"two holders":           {Allowed: twoFor(Allowance{KmID: "b@" + maf, AEIDs: []string{"Ca"}})},
		"two holders by case":   {Allowed: twoFor(Allowance{KmID: "b@" + maf, AEIDs: []string{"CA"}})},
		"an AE that is a CSE":   {Allowed: twoFor(Allowance{KmID: "a@" + maf, CSE: onem2m.CSEID{ID: "x"}})},
		"a CSE twice":           {Allowed: []Allowance{{KmID: "a@" + maf, CSE: onem2m.CSEID{ID: "x"}}, {KmID: "b@" + maf, CSE: onem2m.CSEID{ID: "x"}}}},
		"unreadable memory":     {Memory: &list{err: errors.New("broken")}},
		"memory of no identity": {Memory: &list{claims: []Claim{{}}}},
	} {
		if c.CSE.IsZero() {
			c.CSE = inCSE
		}
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	newRules(t, Config{Allowed: []Allowance{{KmID: "*", AEIDs: []string{"*", "C*", "S*x", "*x*"}}, {KmID: "Meter*@" + maf, AEIDs: []string{"Ca*"}}}})
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"*", "", true}, {"*", "x", true}, {"a*", "a", true}, {"a*", "ba", false},
		{"*a", "ba", true}, {"*a", "ab", false}, {"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "axbyc", true},
		{"a*b*c", "axc", false}, {"a**c", "ac", true}, {"a*bc*bc", "abc", false}, {"*b*", "abc", true}, {"", "", true}, {"", "a", false},
	} {
		if got := matches(test.pattern, test.s); got != test.want {
			t.Errorf("%q fits %q: %v", test.s, test.pattern, got)
		}
	}
}

// Wildcards in a KmId do not depend on letter case, which KmIds do not have.
func TestKmIDPatterns(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "Meter*@MAF.example.com", AEIDs: []string{"C*"}}}})
	wantFrom(t, r.Peer(unnamed("meter7")).Check(register(t, "C")), "C")
	wantStatus(t, r.Peer(unnamed("pump7")).Check(register(t, "C")), notAuth)
}

// list is a Memory without a disk.
type list struct {
	mu     sync.Mutex
	claims []Claim
	err    error
}

func (l *list) Load() ([]Claim, error) { return l.claims, l.err }

func (l *list) Add(c Claim) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.claims = append(l.claims, c)
	return l.err
}

// A memory that fails keeps nobody from working until the restart.
func TestMemoryFails(t *testing.T) {
	memory := &list{}
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}}}, Memory: memory})
	memory.err = errors.New("disk full")
	p := r.Peer(unnamed("a"))
	if err := p.Learn(register(t, "Ca1"), onem2m.StatusCreated, nil); !errors.Is(err, memory.err) {
		t.Errorf("got %v", err)
	}
	wantFrom(t, p.Check(retrieve("Ca1")), "Ca1")
}

// Of many who want one AE-ID at a time, one gets it.
func TestOneWins(t *testing.T) {
	r := newRules(t, Config{Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}}}, Memory: &list{}})
	var won sync.Map
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			p := r.Peer(unnamed("m" + string(rune('a'+i))))
			_ = p.Learn(register(t, "Cx"), onem2m.StatusCreated, nil)
			if p.Check(retrieve("Cx")).Allowed {
				won.Store(p.String(), true)
			}
		})
	}
	wg.Wait()
	n := 0
	won.Range(func(_, _ any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d won", n)
	}
}

// Of claims that contradict each other or the configuration, the first holds,
// and the configuration before all.
func TestClaimsThatDisagree(t *testing.T) {
	memory := &list{claims: []Claim{
		{kmID("a"), here("Cgiven")},
		{kmID("a"), here("Ca1")},
		{kmID("b"), here("Ca1")},
		{kmID("b"), here("CA1")},
		{kmID("a"), here("cA1")}, // no AE-ID at all
		{kmID("a"), here("CA1")},
	}}
	r := newRules(t, Config{
		Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}, Most: 9}, {KmID: "c@" + maf, AEIDs: []string{"Cgiven"}}},
		Memory:  memory,
	})
	a, b, c := r.Peer(unnamed("a")), r.Peer(unnamed("b")), r.Peer(unnamed("c"))
	wantFrom(t, a.Check(retrieve("Ca1")), "Ca1")
	wantStatus(t, a.Check(retrieve("CA1")), notAuth)
	wantStatus(t, b.Check(retrieve("Ca1")), notAuth)
	wantStatus(t, b.Check(retrieve("CA1")), notAuth)
	wantStatus(t, a.Check(retrieve("Cgiven")), notAuth)
	wantFrom(t, c.Check(retrieve("Cgiven")), "Cgiven")
}
