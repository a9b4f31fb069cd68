package mqttgw

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/onem2m"
)

var testCSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}

// is a peer with these identities.
type is struct {
	stems []string
	cse   string
}

func (p is) AEIDs() (all []onem2m.AEID) {
	for _, stem := range p.stems {
		all = append(all, onem2m.AEID{Stem: stem}.Absolute(testCSE))
	}
	return all
}

func (p is) CSEID() (id onem2m.CSEID) {
	if p.cse != "" {
		id = must(onem2m.ParseCSEID(p.cse))
	}
	return id
}

// testPeers are the kinds of peers, and under which names in topics they stand.
var testPeers = []struct {
	name  string
	names *names
	own   []string
	other []string // of another identity, or none
}{
	{
		name:  "AE",
		names: testNames(is{stems: []string{"Cmeter7"}}),
		own:   []string{"Cmeter7", ":in-cse:Cmeter7", "in-cse:Cmeter7", "::sp.example.com:in-cse:Cmeter7"},
		other: []string{"Cmeter8", "cmeter7", "Cmeter", "Cmeter77", ":in-cse:Cmeter8", ":mn-cse:Cmeter7", ":Cmeter7",
			"::other.example.com:in-cse:Cmeter7", "meter7@maf.example.com", "11-meter8@maf.example.com", "mn-cse", "in-cse:",
			"Cmeter7:", "Cmeter7@", "C", "S"},
	}, {
		name:  "AE of the service provider",
		names: testNames(is{stems: []string{"Smeter7"}}),
		own:   []string{"Smeter7", ":Smeter7", "::sp.example.com:Smeter7"},
		other: []string{"Smeter8", "Cmeter7", ":in-cse:Smeter8", "::other.example.com:Smeter7"},
	}, {
		name:  "CSE",
		names: testNames(is{cse: "//sp.example.com/mn-cse"}),
		own:   []string{"mn-cse", ":mn-cse", "::sp.example.com:mn-cse"},
		other: []string{"mn-cse2", "Mn-cse", "Cmeter7", ":mn-cse:Cmeter7", "::other.example.com:mn-cse"},
	}, {
		name:  "Credential-ID with two AEs",
		names: testNames(is{stems: []string{"Cone", "Ctwo"}}),
		own:   []string{"Cone", "Ctwo", ":in-cse:Ctwo"},
		other: []string{"Cthree"},
	}, {
		name:  "Credential-ID, not registered",
		names: testNames(is{}),
		other: []string{"Cmeter7", "Smeter7", "mn-cse"},
	},
}

const testCredential = "11-meter7@maf.example.com"

func testNames(p peer) *names {
	return &names{cse: testCSE, cseNames: []string{"in-cse", ":in-cse"}, credential: testCredential, peer: p}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// who stands in a position of a topic.
type who string

const (
	own        who = "own"
	other      who = "other"
	credential who = "credential" // the peer's own Credential-ID
	cse        who = "cse"
	one        who = "+"
	rest       who = "#"
	none       who = ""
)

func (w who) names(i int) []string {
	switch w {
	case own:
		return testPeers[i].own
	case other:
		return testPeers[i].other
	case credential:
		return []string{testCredential}
	case cse:
		return []string{"in-cse"}
	}
	return []string{string(w)}
}

// readable lists the topics that a peer may read; all other combinations it may
// not.
var readable = map[[3]who]bool{
	{kindResp, own, cse}:           true,
	{kindRegResp, own, cse}:        true,
	{kindRegResp, credential, cse}: true,
	{kindReq, cse, own}:            true,
}

// subscribable lists the filters with wildcards that a peer may subscribe to,
// each with what may follow.
var subscribable = map[[3]who]string{
	{kindResp, own, cse}:            "json + # none",
	{kindResp, own, one}:            "json + # none",
	{kindResp, own, rest}:           "none",
	{kindRegResp, own, cse}:         "json + # none",
	{kindRegResp, own, one}:         "json + # none",
	{kindRegResp, own, rest}:        "none",
	{kindRegResp, credential, cse}:  "json + # none",
	{kindRegResp, credential, one}:  "json + # none",
	{kindRegResp, credential, rest}: "none",
	{kindReq, cse, own}:             "json + # none",
	{kindReq, one, own}:             "json + # none",
}

// Every kind of topic, with everybody in every position, is allowed or refused as
// the tables above say, and everything that is not in them is refused.
func TestTopics(t *testing.T) {
	everybody := []who{own, other, credential, cse, one, rest}
	kinds := []who{kindReq, kindResp, kindRegReq, kindRegResp, one, rest, "Req", "other"}
	seen := 0
	for i, p := range testPeers {
		for _, kind := range kinds {
			for _, originator := range everybody {
				for _, receiver := range everybody {
					combination := [3]who{kind, originator, receiver}
					for _, a := range originator.names(i) {
						for _, b := range receiver.names(i) {
							for _, format := range []string{"json", "xml", "+", "#", "none"} {
								seen++
								name := fmt.Sprintf("/oneM2M/%s/%s/%s", kind, a, b)
								if format != "none" {
									name += "/" + format
								}
								want := slices.Contains(strings.Fields(subscribable[combination]), format)
								if got := p.names.maySubscribe(name); got != want {
									t.Errorf("%s: maySubscribe(%q) = %v", p.name, name, got)
								}
								parsed, ok := parseTopic(name)
								if got := ok && p.names.mayRead(parsed); got != readable[combination] {
									t.Errorf("%s: mayRead(%q) = %v", p.name, name, got)
								}
							}
						}
					}
				}
			}
		}
	}
	if seen < 10_000 {
		t.Errorf("only %d combinations", seen)
	}
}

// An AE or a CSE whose name in topics is the CSE's is not the CSE.
func TestNameOfTheCSE(t *testing.T) {
	for _, p := range []is{{stems: []string{"CSE1", "Mobius"}}, {cse: "//sp.example.com/Mobius"}} {
		n := &names{cse: onem2m.CSEID{SP: "sp.example.com", ID: "CSE1"}, cseNames: []string{"Mobius"}, peer: p}
		for _, name := range []string{"CSE1", "Mobius", ":CSE1"} {
			if id, ok := n.own(name); ok {
				t.Errorf("%+v: %q is %s", p, name, id)
			}
		}
	}
}

// Filters of other forms are refused, whoever asks.
func TestOtherFilters(t *testing.T) {
	for _, filter := range []string{
		"#", "+", "/#", "/+", "+/#", "/oneM2M/#", "/oneM2M/+/#", "/+/+/Cmeter7/#", "/oneM2M/resp/#", "/oneM2M/resp/+/in-cse/json",
		"/oneM2M/req/#", "/oneM2M/req/+/+/json", "/oneM2M/req/+/#", "/oneM2M/+/Cmeter7/in-cse/json", "/+/resp/Cmeter7/in-cse/json",
		"+/oneM2M/resp/Cmeter7/in-cse/json", "oneM2M/resp/Cmeter7/in-cse/json", "//oneM2M/resp/Cmeter7/in-cse/json",
		"$SYS/#", "$SYS/broker/clients/total", "$share/g//oneM2M/resp/Cmeter7/+/json", "$share/g//oneM2M/req/+/in-cse/json",
		"$queue//oneM2M/resp/Cmeter7/+/json", "/oneM2M/resp/Cmeter7", "/oneM2M/resp/Cmeter7/in-cse/json/", "/oneM2M/resp/Cmeter7/in-cse/json/#",
		"/oneM2M/resp/Cmeter7/in-cse/", "/oneM2M/resp//in-cse/json", "/oneM2M/resp/Cmeter7//json", "/onem2m/resp/Cmeter7/in-cse/json",
		"/oneM2M/resp/Cmeter7 /in-cse/json", "/oneM2M/resp/Cmeter7/#/json", "prefix/oneM2M/resp/Cmeter7/in-cse/json",
	} {
		for _, p := range testPeers {
			if p.names.maySubscribe(filter) {
				t.Errorf("%s: maySubscribe(%q)", p.name, filter)
			}
		}
	}
}

// What is read as a topic is written back as the same one, and who may read it
// may also subscribe to it.
func FuzzTopic(f *testing.F) {
	f.Add("/oneM2M/req/in-cse/Cmeter7/json")
	f.Add("/oneM2M/reg_resp/11-meter7@maf.example.com/:in-cse")
	f.Add("/oneM2M/resp/Cmeter7/in-cse/")
	f.Add("/oneM2M/resp/Cmeter7/in-cse/xml/")
	f.Fuzz(func(t *testing.T, s string) {
		parsed, ok := parseTopic(s)
		if !ok {
			return
		}
		if parsed.String() != s {
			t.Errorf("%q became %q", s, parsed.String())
		}
		for _, p := range testPeers {
			if (parsed.format == "" || parsed.format == formatJSON) && p.names.mayRead(parsed) != p.names.maySubscribe(s) {
				t.Errorf("%s: mayRead and maySubscribe differ on %q", p.name, s)
			}
		}
	})
}
