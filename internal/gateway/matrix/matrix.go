// Package matrix holds the verdicts of the identity rules for every kind of
// association, form of originator and operation, for the tests of the rules and
// of each binding.
//
// The axes are declared here, the verdicts in testdata/matrix.txt; Rows fails
// when a combination has none. A binding's test uses Config, makes an
// association for each of Peers, and compares for each of Rows what the peer
// gets and what the CSE sees. The CSE in such a test must not answer a
// registration with 2001, or else the gateway learns an AE-ID and later rows
// change.
package matrix

import (
	"fmt"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// A Peer is one kind of association.
type Peer struct {
	Name string // as in the table; also the relative part of the KmId
	// Association is zero for the kind "nobody", which has none.
	Association saef.Association
	csi         string // what it registers as a CSE
}

// An Operation is one kind of request.
type Operation struct {
	Name      string // as in the table: "create-ae", "retrieve", ...
	Operation policy.Operation
	Type      int    // resource type of a CREATE, else 0
	To        string // a target that every binding can carry
	Content   string // JSON, "" when the request has none
}

// A Form is one originator as a peer may write it.
type Form struct {
	Class   string // as in the table
	From    string
	HasFrom bool
}

// A Row is one combination and its verdict.
type Row struct {
	Peer      Peer
	Form      Form
	Operation Operation
	// Status is 0 when the request is allowed, else what the peer gets.
	Status onem2m.ResponseStatusCode
	// Origin is the originator that the CSE must see; "" when refused.
	Origin string
	Clause string // where the verdict comes from
}

// String names the row for a test's output.
func (r Row) String() string {
	from := "no From"
	if r.Form.HasFrom {
		from = fmt.Sprintf("From %q", r.Form.From)
	}
	return fmt.Sprintf("%s, %s, %s", r.Peer.Name, from, r.Operation.Name)
}

const (
	sp  = "sp.example.com"
	maf = "maf.example.com"
)

// Config returns the configuration that the table presupposes.
func Config() policy.Config {
	return policy.Config{
		CSE: onem2m.CSEID{SP: sp, ID: "in-cse"},
		Allowed: []policy.Allowance{
			{KmID: "cred-any@" + maf, AEIDs: []string{"C*"}},
			{KmID: "cred-fit@" + maf, AEIDs: []string{"Cfit*"}},
			{KmID: "cred-one@" + maf, AEIDs: []string{"Cone"}},
			{KmID: "cred-had@" + maf, AEIDs: []string{"C*", "S*"}},
			{KmID: "cred-cse@" + maf, CSE: onem2m.CSEID{ID: "cred-cse"}},
			// The MAF knows these; here they make the AE-IDs taken from the start,
			// whichever peer comes first.
			{KmID: "ae-c@" + maf, AEIDs: []string{"Cmeter7"}},
			{KmID: "ae-s@" + maf, AEIDs: []string{"Smeter7"}},
		},
		Registrees: []onem2m.CSEID{{ID: "other-cse"}, {ID: "mn-cse"}},
		Memory:     memory{},
	}
}

// memory holds what one peer has registered before.
type memory struct{}

func (memory) Load() ([]policy.Claim, error) {
	return []policy.Claim{{
		KmID: onem2m.KmID{Relative: "cred-had", FQDN: maf},
		AEID: onem2m.AEID{SP: sp, CSE: "in-cse", Stem: "Chad"},
	}}, nil
}

func (memory) Add(policy.Claim) error { return nil }

// Peers returns all kinds of associations.
func Peers() []Peer {
	named := func(name string) Peer {
		return Peer{Name: name, csi: "/mn-cse", Association: saef.Association{KmID: onem2m.KmID{Relative: name, FQDN: maf}}}
	}
	ae := func(name string, id onem2m.AEID) Peer {
		p := named(name)
		p.Association.AEID = id
		return p
	}
	cse := named("cse")
	cse.Association.CSEID = onem2m.CSEID{SP: sp, ID: "mn-cse"}
	credCSE := named("cred-cse")
	credCSE.csi = "/cred-cse"
	return []Peer{
		{Name: "nobody", csi: "/mn-cse"},
		ae("ae-c", onem2m.AEID{SP: sp, CSE: "in-cse", Stem: "Cmeter7"}),
		ae("ae-s", onem2m.AEID{SP: sp, Stem: "Smeter7"}),
		ae("ae-elsewhere", onem2m.AEID{SP: sp, CSE: "far-cse", Stem: "Cmeter7"}), // registered with another CSE
		cse,
		named("cred-any"),  // may register as any C-type AE, and has not
		named("cred-fit"),  // as any of Cfit*, and has not
		named("cred-one"),  // is Cone
		named("cred-had"),  // as any AE, and has: Chad
		credCSE,            // is /cred-cse
		named("cred-none"), // is in no allowance
	}
}

// Operations returns all kinds of requests, as the peer sends them.
func (p Peer) Operations() []Operation {
	return []Operation{
		{"create-ae", policy.Create, 2, "/in-cse", `{"m2m:ae":{"api":"Nexample","rr":true,"srv":["3"]}}`},
		{"create-cse", policy.Create, 16, "/in-cse", `{"m2m:csr":{"cst":2,"csi":"` + p.csi + `","cb":"` + p.csi + `/base","rr":true}}`},
		{"create", policy.Create, 3, "/in-cse/base/x", `{"m2m:cnt":{"rn":"c"}}`},
		{"retrieve", policy.Retrieve, 0, "/in-cse/base/x", ``},
		{"update", policy.Update, 0, "/in-cse/base/x", `{"m2m:cnt":{"lbl":["l"]}}`},
		{"delete", policy.Delete, 0, "/in-cse/base/x", ``},
		{"notify", policy.Notify, 0, "/in-cse/base/x", `{"m2m:sgn":{"vrq":true}}`},
	}
}

// Forms returns all forms of originators.
func Forms() []Form {
	forms := []Form{{Class: "absent"}}
	for _, class := range []struct {
		name  string
		froms []string
	}{
		{"empty", []string{""}},
		{"letter", []string{"C", "S"}},
		{"stem", []string{"Cmeter7", "Smeter7", "Cone", "Chad", "Cfit1", "Cfree", "Sfree", "CMETER7", "SMETER7"}},
		{"reserved", []string{"CAdmin", "CADMIN", "Sponde"}},
		{"own-forms", []string{"/in-cse/Cmeter7", "//sp.example.com/in-cse/Cmeter7", "/Smeter7", "//sp.example.com/Smeter7", "//SP.example.com/Smeter7"}},
		{"here", []string{"/in-cse", "//sp.example.com/in-cse", "/IN-CSE", "/in-cse/Cfree", "//sp.example.com/in-cse/CAdmin", "/Sponde"}},
		{"mn", []string{"/mn-cse", "//sp.example.com/mn-cse", "//SP.example.com/mn-cse", "/MN-CSE", "/mn-cse/Cfree", "/mn-cse/CAdmin", "//sp.example.com/mn-cse/Cfree"}},
		{"cred", []string{"/cred-cse", "//sp.example.com/cred-cse", "/cred-cse/Cfree"}},
		{"registree", []string{"/other-cse", "//sp.example.com/other-cse", "/Other-CSE", "/other-cse/Cfree", "//sp.example.com/other-cse/Cfree"}},
		{"below", []string{"/below-cse", "//sp.example.com/below-cse", "/below-cse/Cfree", "/Sfree", "//sp.example.com/Sfree"}},
		{"far", []string{"//far.example.org/far-cse", "//far.example.org/far-cse/Cfree", "//far.example.org/Sfree", "//FAR.example.org/in-cse"}},
		{"malformed", []string{
			" Cmeter7", "Cmeter7 ", "Cme ter7", "\tCmeter7", "Cmeter7\x00", "Cmeter7\x00Cfree", "Cmeter7%00", "%43meter7", "Cmeter7\r\nX: y",
			"Cmeter7,Cfree", "Cmeter7/", "Cmeter7?", "Cmeter7#", "Cmeter7@sp.example.com", "\"Cmeter7\"", "C*", "*", "meter7", "cmeter7", "admin:admin",
			"\u0421meter7", "\uff23meter7", "Cme\u200bter7", "Cm\u00e9ter7", "\xc3meter7", "C" + strings.Repeat("m", 128),
			"/", "//", "///in-cse", "//sp.example.com", "//sp.example.com/", "/in-cse/", "/in-cse//Cmeter7", "/in-cse/Cmeter7/x",
			"/in-cse/meter7", "//sp.example.com/in-cse/Cmeter7/x", "//sp.example.com:443/in-cse", "http://sp.example.com/in-cse",
			"~/in-cse/Cmeter7", "_/sp.example.com/in-cse", "/in-cse%2FCmeter7", "/../in-cse/Cmeter7", "in-cse/Cmeter7", "/other-cse\x00", "//sp_example/x",
		}},
	} {
		for _, from := range class.froms {
			forms = append(forms, Form{Class: class.name, From: from, HasFrom: true})
		}
	}
	return forms
}
