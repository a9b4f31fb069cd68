package policy

import (
	"errors"
	"testing"

	"github.com/onem2m-maf/maf/onem2m"
)

// Ways to name somebody else in the body. docs/gateway-rules.md explains each.
func TestContent(t *testing.T) {
	r := newRules(t, Config{
		Allowed:    []Allowance{{KmID: "*", AEIDs: []string{"C*"}}},
		Registrees: []onem2m.CSEID{{ID: "other-cse"}},
	})
	ae, cse, cred := r.Peer(anAE("Cmeter7")), r.Peer(aCSE("mn-cse")), r.Peer(unnamed("a"))
	const ok = 0
	for _, test := range []struct {
		name    string
		peer    *Peer
		from    string
		op      Operation
		ty      int
		content string
		status  onem2m.ResponseStatusCode
	}{
		{"creator asked for", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":null}}`, ok},
		{"own creator", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":"Cmeter7"}}`, ok},
		{"own creator, SP-relative", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":"/in-cse/Cmeter7"}}`, ok},
		{"own creator, absolute", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":"//sp.example.com/in-cse/Cmeter7"}}`, ok},
		{"creator", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":"Cvictim"}}`, notAuth},
		{"creator of a stem elsewhere", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":"/mn-cse/Cmeter7"}}`, notAuth},
		{"creator, other case", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"CR":"Cmeter7"}}`, bad},
		{"creators", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"cr":["Cmeter7","Cvictim"]}}`, bad},
		{"creator in an update", ae, "Cmeter7", Update, 0, `{"m2m:cnt":{"cr":"Cvictim"}}`, notAuth},
		{"creator of a subscription", ae, "Cmeter7", Create, 23, `{"m2m:sub":{"nu":["Cmeter7"],"cr":"CAdmin"}}`, notAuth},
		{"creator before there is an AE-ID", cred, "C", Create, 2, `{"m2m:ae":{"cr":"Cvictim"}}`, notAuth},
		{"a letter as creator", cred, "C", Create, 2, `{"m2m:ae":{"cr":"C"}}`, notAuth},
		{"creator from a CSE", cse, "/mn-cse/Cx", Create, 3, `{"m2m:cnt":{"cr":"/mn-cse/Cx"}}`, ok},
		{"another creator from a CSE", cse, "/mn-cse/Cx", Create, 3, `{"m2m:cnt":{"cr":"Cvictim"}}`, notAuth},

		{"address, other case", ae, "Cmeter7", Create, 23, `{"m2m:sub":{"NU":["http://10.0.0.1/"]}}`, bad},
		{"address, other case, within", ae, "Cmeter7", Notify, 0, `{"m2m:rqp":{"op":1,"PC":{"m2m:sub":{"Nu":["http://10.0.0.1/"]}}}}`, bad},
		{"data that look like one", ae, "Cmeter7", Create, 4, `{"m2m:cin":{"con":{"NU":["http://10.0.0.1/"]}}}`, ok},

		{"resource identifier", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"ri":"Cvictim"}}`, bad},
		{"resource identifier, other case", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"rI":"Cvictim"}}`, bad},
		{"type in the body", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"ty":2}}`, bad},
		{"the same type in the body", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{"ty":3}}`, ok},

		{"AE-ID", ae, "Cmeter7", Create, 2, `{"m2m:ae":{"aei":"Cvictim"}}`, notAuth},
		{"own AE-ID", ae, "Cmeter7", Create, 2, `{"m2m:ae":{"aei":"Cmeter7"}}`, ok},
		{"AE-ID, other case", ae, "Cmeter7", Create, 2, `{"m2m:ae":{"AEI":"Cmeter7"}}`, bad},
		{"AE-ID of a new AE", cred, "C", Create, 2, `{"m2m:ae":{"aei":"Cvictim"}}`, notAuth},
		{"AE-ID beside a full stem", cred, "Cnew", Create, 2, `{"m2m:ae":{"aei":"Cvictim"}}`, notAuth},
		{"AE-ID in an update", ae, "Cmeter7", Update, 0, `{"m2m:ae":{"aei":"Cvictim"}}`, notAuth},
		{"AE under another type", ae, "Cmeter7", Create, 3, `{"m2m:ae":{"api":"N1"}}`, bad},
		{"AE, other case", ae, "Cmeter7", Create, 3, `{"M2M:AE":{"api":"N1"}}`, bad},
		{"AE without prefix", ae, "Cmeter7", Create, 3, `{"ae":{"api":"N1"}}`, bad},
		{"another type as AE", ae, "Cmeter7", Create, 2, `{"m2m:cnt":{}}`, bad},
		{"two resources", ae, "Cmeter7", Create, 3, `{"m2m:cnt":{},"m2m:ae":{"api":"N1"}}`, bad},
		{"two resources, the other way round", ae, "Cmeter7", Create, 3, `{"m2m:ae":{"api":"N1"},"m2m:cnt":{}}`, bad},
		{"no resource", ae, "Cmeter7", Create, 3, `{}`, bad},
		{"a list", ae, "Cmeter7", Create, 3, `[{"m2m:cnt":{}}]`, bad},
		{"a resource that is none", ae, "Cmeter7", Update, 0, `{"m2m:cnt":"Cvictim"}`, bad},
		{"no content", ae, "Cmeter7", Create, 3, ``, bad},
		{"no content, update", ae, "Cmeter7", Update, 0, ``, bad},
		{"no content, notify", ae, "Cmeter7", Notify, 0, ``, bad},
		{"no type", ae, "Cmeter7", Create, 0, `{"m2m:cnt":{}}`, bad},
		{"a request resource", ae, "Cmeter7", Create, 17, `{"m2m:req":{"org":"Cvictim"}}`, forbidden},
		{"a CSEBase", cse, "/mn-cse", Create, 5, `{"m2m:cb":{"csi":"/in-cse"}}`, forbidden},

		{"CSE", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"/mn-cse","cb":"/mn-cse/base"}}`, ok},
		{"CSE, absolute", cse, "//sp.example.com/mn-cse", Create, 16, `{"m2m:csr":{"csi":"//sp.example.com/mn-cse","cb":"//sp.example.com/mn-cse/base"}}`, ok},
		{"another CSE-ID", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"/other-cse"}}`, notAuth},
		{"unknown CSE-ID", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"/new-cse"}}`, notAuth},
		{"CSE-ID, other case", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"/MN-CSE"}}`, notAuth},
		{"CSE-ID, name in other case", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"CSI":"/mn-cse"}}`, bad},
		{"CSE-ID without slash", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"mn-cse"}}`, bad},
		{"CSE-ID in a second form", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"//SP.example.com/mn-cse"}}`, bad},
		{"no CSE-ID", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"cst":2}}`, bad},
		{"CSE-ID in an update", cse, "/mn-cse", Update, 0, `{"m2m:csr":{"csi":"/other-cse"}}`, notAuth},
		{"another's CSEBase", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"/mn-cse","cb":"/other-cse/base"}}`, notAuth},
		{"CSEBase that begins alike", cse, "/mn-cse", Create, 16, `{"m2m:csr":{"csi":"/mn-cse","cb":"/mn-cse2/base"}}`, notAuth},
		{"descendants", cse, "/mn-cse", Update, 0, `{"m2m:csr":{"dcse":["/below","//sp.example.com/below2"]}}`, ok},
		{"another registree as descendant", cse, "/mn-cse", Update, 0, `{"m2m:csr":{"dcse":["/below","/other-cse"]}}`, notAuth},
		{"the CSE itself as descendant", cse, "/mn-cse", Update, 0, `{"m2m:csr":{"dcse":["/in-cse"]}}`, notAuth},
		{"no list of descendants", cse, "/mn-cse", Update, 0, `{"m2m:csr":{"dcse":"/other-cse"}}`, bad},
		{"a descendant that is none", cse, "/mn-cse", Update, 0, `{"m2m:csr":{"dcse":["x"]}}`, bad},
		{"CSE by an AE", ae, "Cmeter7", Create, 16, `{"m2m:csr":{"csi":"/mn-cse"}}`, notAuth},
		{"CSE's update by an AE", ae, "Cmeter7", Update, 0, `{"m2m:csr":{"poa":[]}}`, notAuth},
		{"CSE under another type", cse, "/mn-cse", Create, 3, `{"m2m:csr":{"csi":"/mn-cse"}}`, bad},
		{"AE by a CSE", cse, "/mn-cse/Cx", Create, 2, `{"m2m:ae":{"api":"N1"}}`, notAuth},

		{"delivery by an AE", ae, "Cmeter7", Create, 6, `{"m2m:dlv":{"sr":"Cmeter7"}}`, notAuth},
		{"delivery", cse, "/mn-cse", Create, 6, `{"m2m:dlv":{"sr":"/below"}}`, ok},
		{"delivery of another registree", cse, "/mn-cse", Create, 6, `{"m2m:dlv":{"sr":"/other-cse"}}`, notAuth},
		{"delivery of a request of its own", cse, "/mn-cse", Create, 6, `{"m2m:dlv":{"arq":{"req":[{"op":1,"fr":"/mn-cse/Cx"}]}}}`, ok},
		{"delivery of another's request", cse, "/mn-cse", Create, 6, `{"m2m:dlv":{"arq":{"req":[{"op":1,"fr":"/mn-cse/Cx"},{"op":1,"fr":"Cvictim"}]}}}`, notAuth},

		{"action", ae, "Cmeter7", Create, 63, `{"m2m:actr":{"apv":{"op":1,"fr":"Cmeter7","to":"x"}}}`, ok},
		{"action in another's name", ae, "Cmeter7", Create, 63, `{"m2m:actr":{"apv":{"op":1,"fr":"Cvictim","to":"x"}}}`, notAuth},
		{"action, other case", ae, "Cmeter7", Create, 63, `{"m2m:actr":{"apv":{"OP":1,"FR":"Cmeter7","to":"x"}}}`, bad},
		{"action, a list of originators", ae, "Cmeter7", Create, 63, `{"m2m:actr":{"apv":{"op":1,"fr":["Cvictim"]}}}`, bad},
		{"application data", ae, "Cmeter7", Create, 4, `{"m2m:cin":{"con":{"fr":"Paris","to":"London"}}}`, ok},

		{"notification", ae, "Cmeter7", Notify, 0, `{"m2m:sgn":{"vrq":true,"cr":"Cmeter7"}}`, ok},
		{"notification for another", ae, "Cmeter7", Notify, 0, `{"m2m:sgn":{"vrq":true,"cr":"Cvictim"}}`, notAuth},
		{"notification for another, no prefix", ae, "Cmeter7", Notify, 0, `{"sgn":{"cr":"Cvictim"}}`, notAuth},
		{"notification for another, other case", ae, "Cmeter7", Notify, 0, `{"M2M:SGN":{"cr":"Cvictim"}}`, notAuth},
		{"notification in a batch", ae, "Cmeter7", Notify, 0, `{"m2m:agn":{"m2m:sgn":[{"nev":{}},{"cr":"Cvictim"}]}}`, notAuth},
		{"notification of another's resource", ae, "Cmeter7", Notify, 0, `{"m2m:sgn":{"nev":{"rep":{"m2m:cin":{"cr":"Cvictim"}}}}}`, ok},
		{"notification by a CSE", cse, "/mn-cse", Notify, 0, `{"m2m:sgn":{"vrq":true,"cr":"/in-cse/Cx"}}`, ok},
		{"request in a notification", ae, "Cmeter7", Notify, 0, `{"m2m:rqp":{"op":2,"fr":"Cvictim","to":"x","rqi":"1"}}`, notAuth},
		{"own request in a notification", ae, "Cmeter7", Notify, 0, `{"m2m:rqp":{"op":2,"fr":"Cmeter7","to":"x","rqi":"1"}}`, ok},
		{"polling channel answer", ae, "Cmeter7", Notify, 0, `{"m2m:rsp":{"rsc":2000,"fr":"Cmeter7","rqi":"1"}}`, ok},
		{"polling channel answer for another", ae, "Cmeter7", Notify, 0, `{"m2m:rsp":{"rsc":2000,"fr":"Cvictim","rqi":"1"}}`, notAuth},
		{"polling channel answer without status", ae, "Cmeter7", Notify, 0, `{"m2m:rsp":{"fr":"Cvictim","rqi":"1"}}`, notAuth},
		{"polling channel answers", ae, "Cmeter7", Notify, 0, `{"m2m:agr":{"m2m:rsp":[{"rsc":2000,"fr":"Cmeter7"},{"rsc":2000,"fr":"Cvictim"}]}}`, notAuth},
		{"request in a notification by a CSE", cse, "/mn-cse", Notify, 0, `{"m2m:rqp":{"op":2,"fr":"/below/Cx","to":"x","rqi":"1"}}`, ok},
		{"another's request by a CSE", cse, "/mn-cse", Notify, 0, `{"m2m:rqp":{"op":2,"fr":"/other-cse/Cx","to":"x","rqi":"1"}}`, notAuth},
		{"another's request in a retrieval", ae, "Cmeter7", Retrieve, 0, `{"m2m:rqp":{"op":2,"fr":"Cvictim","to":"x","rqi":"1"}}`, notAuth},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := test.peer.Check(&Request{
				Operation: test.op, Type: test.ty, From: test.from, HasFrom: true, To: "/in-cse/x", Content: value(t, test.content),
			})
			if v.Allowed != (test.status == ok) || v.Status != test.status {
				t.Errorf("got %+v, want status %d", v, test.status)
			}
		})
	}
}

func TestNotWellFormed(t *testing.T) {
	ae := newRules(t, Config{}).Peer(anAE("Cmeter7"))
	for name, request := range map[string]*Request{
		"no operation":      {From: "Cmeter7", HasFrom: true, To: "x"},
		"another operation": {Operation: 6, From: "Cmeter7", HasFrom: true, To: "x"},
		"no target":         {Operation: Retrieve, From: "Cmeter7", HasFrom: true},
		"NUL in the target": {Operation: Retrieve, From: "Cmeter7", HasFrom: true, To: "x\x00y"},
		"line end":          {Operation: Retrieve, From: "Cmeter7", HasFrom: true, To: "x\r\ny"},
		"space":             {Operation: Retrieve, From: "Cmeter7", HasFrom: true, To: "x HTTP/1.1"},
	} {
		if v := ae.Check(request); v.Allowed || v.Status != bad {
			t.Errorf("%s: %+v", name, v)
		}
	}
	wantFrom(t, ae.Check(&Request{Operation: Retrieve, From: "Cmeter7", HasFrom: true, To: "x"}), "Cmeter7")
}

// Every address that the CSE would send to is replaced, and nothing else.
func TestReplaceContacts(t *testing.T) {
	for in, want := range map[string]string{
		`{"m2m:sub":{"nu":["a","b"],"su":"c","nfu":"d","rn":"e"}}`:             `{"m2m:sub":{"nu":["<a>","<b>"],"su":"<c>","nfu":"<d>","rn":"e"}}`,
		`{"m2m:ae":{"poa":"a"}}`:                                               `{"m2m:ae":{"poa":"<a>"}}`,
		`{"m2m:dac":{"dap":["a"]}}`:                                            `{"m2m:dac":{"dap":["<a>"]}}`,
		`{"m2m:sub":{"nu":[["a"],7],"su":null,"poa":{"x":"a"}}}`:               `{"m2m:sub":{"nu":[["<a>"],7],"su":null,"poa":{"x":"a"}}}`,
		`{"m2m:cin":{"con":{"nu":["a"]}}}`:                                     `{"m2m:cin":{"con":{"nu":["a"]}}}`,
		`{"m2m:actr":{"apv":{"op":1,"pc":{"m2m:sub":{"nu":["a"]}}}}}`:          `{"m2m:actr":{"apv":{"op":1,"pc":{"m2m:sub":{"nu":["<a>"]}}}}}`,
		`{"m2m:rqp":{"op":1,"Pc":{"m2m:sub":{"nu":"a"}},"rt":{"nu":["b"]}}}`:   `{"m2m:rqp":{"op":1,"Pc":{"m2m:sub":{"nu":"<a>"}},"rt":{"nu":["<b>"]}}}`,
		`{"m2m:sgn":{"nev":{"rep":{"m2m:ae":{"poa":["a"]}}},"sur":"/in-cse"}}`: `{"m2m:sgn":{"nev":{"rep":{"m2m:ae":{"poa":["a"]}}},"sur":"/in-cse"}}`,
	} {
		v := value(t, in)
		if err := ReplaceContacts(v, func(s string) (string, error) { return "<" + s + ">", nil }); err != nil {
			t.Fatal(err)
		}
		if got := string(v.Append(nil)); got != want {
			t.Errorf("%s\nbecomes %s\nnot     %s", in, got, want)
		}
	}
	bad := errors.New("bad")
	if err := ReplaceContacts(value(t, `{"m2m:sub":{"nu":["a"]}}`), func(string) (string, error) { return "", bad }); err != bad {
		t.Errorf("%v", err)
	}
	if err := ReplaceContacts(nil, nil); err != nil {
		t.Error(err)
	}
}
