package policy

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

// No request, whatever it holds, is let on with an originator that is not the
// peer's, nor with a body in which a CSE that reads otherwise finds another
// creator, registree or originator.
func FuzzCheck(f *testing.F) {
	for _, from := range []string{"Cmeter7", "Cvictim", "C", "", "/in-cse/Cmeter7", "CAdmin", "Cmeter7\x00", "/mn-cse", "/mn-cse/Cx",
		"/other-cse/Cx", "//sp.example.com/mn-cse", "//SP.example.com/Svictim", "Svictim", "/Svictim", "Chad", "CHAD"} {
		for peer := range uint8(4) {
			f.Add(peer, from, uint8(1), uint8(2), []byte(`{"m2m:ae":{"aei":"`+strings.Trim(from, "\x00")+`","cr":null}}`))
		}
	}
	f.Add(uint8(0), "Cmeter7", uint8(1), uint8(3), []byte(`{"m2m:cnt":{"cr":"Cvictim"}}`))
	f.Add(uint8(0), "Cmeter7", uint8(1), uint8(63), []byte(`{"m2m:actr":{"apv":{"op":1,"fr":"Cmeter7"}}}`))
	f.Add(uint8(1), "/mn-cse", uint8(1), uint8(16), []byte(`{"m2m:csr":{"csi":"/mn-cse","dcse":["/below"]}}`))
	f.Add(uint8(0), "Cmeter7", uint8(5), uint8(0), []byte(`{"m2m:agn":{"m2m:sgn":[{"cr":"Cmeter7"}]}}`))

	rules := newRules(f, Config{
		Allowed: []Allowance{
			{KmID: "had@" + maf, AEIDs: []string{"C*"}},
			{KmID: "new@" + maf, AEIDs: []string{"Cnew*"}},
			{KmID: "victim@" + maf, AEIDs: []string{"Cvictim", "Svictim"}},
		},
		Registrees: []onem2m.CSEID{{ID: "other-cse"}},
		Memory:     &list{claims: []Claim{{kmID("had"), here("Chad")}}},
	})
	peers := []*Peer{rules.Peer(anAE("Cmeter7")), rules.Peer(aCSE("mn-cse")), rules.Peer(unnamed("had")), rules.Peer(unnamed("new"))}

	f.Fuzz(func(t *testing.T, n uint8, from string, op, ty uint8, body []byte) {
		n %= uint8(len(peers))
		r := &Request{Operation: Operation(op), Type: int(ty), From: from, HasFrom: from != "", To: "/in-cse/x"}
		if len(body) > 0 {
			var err error
			if r.Content, err = primitive.Parse(body); err != nil {
				return
			}
		}
		v := peers[n].Check(r)
		if !v.Allowed {
			if v.From != "" || v.Status < 4000 {
				t.Fatalf("refused with %+v", v)
			}
			return
		}
		registers := op == 1 && ty == typeAE
		ok := false
		switch n {
		case 0:
			ok = v.From == "Cmeter7"
		case 1:
			ok = !registers && speaksForNobodyHere(v.From)
		case 2:
			ok = v.From == "Chad"
		case 3:
			ok = registers && v.Learns && strings.HasPrefix(v.From, "Cnew")
		}
		if !ok {
			t.Fatalf("peer %d with From %q goes on as %+v", n, from, v)
		}
		if r.Content != nil && n != 1 {
			checkBody(t, r, v.From)
		}
	})
}

// speaksForNobodyHere is what From of a CSE may be, told without the code under
// test.
func speaksForNobodyHere(from string) bool {
	rest := strings.ToLower(from)
	if s, ok := strings.CutPrefix(rest, "//sp.example.com"); ok {
		rest = s
	}
	if strings.HasPrefix(rest, "//") {
		return !strings.HasSuffix(rest, "/cadmin")
	}
	if strings.HasPrefix(from, "S") {
		return rest != "svictim" && rest != "sponde" && rest != "superman" && rest != "sandwich"
	}
	if !strings.HasPrefix(rest, "/") {
		return false
	}
	words := strings.Split(rest[1:], "/")
	if slices.Contains([]string{"in-cse", "other-cse", "svictim"}, words[0]) || len(words) > 2 {
		return false
	}
	return words[0] != "mn-cse" || strings.HasPrefix(from, "/mn-cse")
}

// checkBody reads what the CSE would get as one does that ignores letter case
// and takes the last of several members.
func checkBody(t *testing.T, r *Request, from string) {
	body := r.Content.Append(nil)
	var tree any
	dec := json.NewDecoder(bytes.NewReader(bytes.ToLower(body)))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		t.Skip("ToLower made it invalid") // not ASCII
	}
	from = strings.ToLower(from)
	own := func(v any) bool {
		return v == nil || v == from || v == "/in-cse/"+from || v == "//sp.example.com/in-cse/"+from
	}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			_, op := v["op"]
			_, rsc := v["rsc"]
			if fr, ok := v["fr"]; ok && (op || rsc) && !own(fr) {
				t.Fatalf("%s lets another originator on in %s", from, body)
			}
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(tree)
	if r.Operation != Create && r.Operation != Update {
		return
	}
	for root, v := range tree.(map[string]any) {
		attributes := v.(map[string]any)
		if !own(attributes["cr"]) {
			t.Fatalf("%s lets another creator on in %s", from, body)
		}
		if (root == "m2m:ae" || root == "ae") && !own(attributes["aei"]) {
			t.Fatalf("%s lets another AE-ID on in %s", from, body)
		}
	}
}

func benchmarkCheck(b *testing.B, p *Peer, r *Request) {
	b.ReportAllocs()
	for b.Loop() {
		if v := p.Check(r); !v.Allowed {
			b.Fatal(v)
		}
	}
}

func BenchmarkCheckAE(b *testing.B) {
	r := newRules(b, Config{})
	benchmarkCheck(b, r.Peer(anAE("Cmeter7")), &Request{
		Operation: Create, Type: 4, From: "Cmeter7", HasFrom: true, To: "/in-cse/x",
		Content: value(b, `{"m2m:cin":{"cnf":"application/json:0","con":"{\"t\":21.5}","lbl":["a","b"]}}`),
	})
}

func BenchmarkCheckCSE(b *testing.B) {
	r := newRules(b, Config{})
	benchmarkCheck(b, r.Peer(aCSE("mn-cse")), retrieve("/mn-cse/Cmeter7"))
}

func BenchmarkCheckCredential(b *testing.B) {
	r := newRules(b, Config{
		Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}}},
		Memory:  &list{claims: []Claim{{kmID("a"), here("Ca")}}},
	})
	benchmarkCheck(b, r.Peer(unnamed("a")), retrieve("Ca"))
}

func BenchmarkPeer(b *testing.B) {
	r := newRules(b, Config{Allowed: []Allowance{{KmID: "*", AEIDs: []string{"C*"}}}})
	b.ReportAllocs()
	for b.Loop() {
		r.Peer(unnamed("a"))
	}
}
