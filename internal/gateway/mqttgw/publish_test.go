package mqttgw

import (
	"fmt"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

const (
	meterReq  = "/oneM2M/req/Cmeter7/in-cse/json"
	meterResp = "/oneM2M/resp/Cmeter7/in-cse/json"
)

func retrieve(from, requestID string) string {
	return fmt.Sprintf(`{"op":2,"to":"in-cse/box","fr":%q,"rqi":%q,"rvi":"3"}`, from, requestID)
}

// echo is a CSE that answers every request with 2000.
func echo(s *session, p *mqtt.Publish) {
	v, err := primitive.Parse(p.Payload)
	if err != nil {
		s.t.Errorf("the CSE got %s: %v", p.Payload, err)
		return
	}
	req, err := primitive.ParseRequest(v)
	if err != nil {
		s.t.Errorf("the CSE got %s: %v", p.Payload, err)
		return
	}
	topic := strings.Replace(strings.Replace(p.Topic, "/req/", "/resp/", 1), "/reg_req/", "/reg_resp/", 1)
	resp := &primitive.Response{Status: int(onem2m.StatusOK), RequestID: req.RequestID, Wrapped: req.Wrapped}
	s.send(&mqtt.Publish{Topic: topic, Payload: resp.Value().Append(nil)})
}

// A request goes on as the authenticated AE's, with a request identifier that is
// its own, and the answer comes back with the one that the AE gave.
func TestRequest(t *testing.T) {
	b := newBroker(t, echo)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	for _, wrapped := range []bool{false, true} {
		payload := retrieve("Cmeter7", "r1")
		if wrapped {
			payload = `{"m2m:rqp":` + payload + `}`
		}
		client.send(&mqtt.Publish{QoS: 1, ID: 9, Retain: true, Topic: meterReq, Payload: []byte("\n " + payload)})
		got, ok := s.next().(*mqtt.Publish)
		if !ok || got.Retain || got.QoS != 1 || got.ID != 9 || got.Topic != meterReq {
			t.Errorf("the broker got %+v", got)
		}
		id := requestPrefix(must(onem2m.ParseKmID("meter7@maf.example.com"))) + "-r1"
		if want := strings.Replace(payload, "r1", id, 1); !sameMembers(string(got.Payload), want) {
			t.Errorf("the broker got %s, want %s", got.Payload, want)
		}
		if p, ok := client.read().(*mqtt.Ack); !ok || p.Kind != mqtt.TypePuback || p.ID != 9 {
			t.Errorf("got %+v, want PUBACK", p)
		}
		answer, ok := client.read().(*mqtt.Publish)
		if !ok || answer.Topic != meterResp || !strings.Contains(string(answer.Payload), `"rqi":"r1"`) ||
			strings.Contains(string(answer.Payload), "m2m:rsp") != wrapped {
			t.Errorf("answer: %s %s", answer.Topic, answer.Payload)
		}
		e := f.entries.next(t)
		if e.Binding != "mqtt" || e.Peer != meter7 || e.Status != onem2m.StatusOK || e.Refused || e.ToDevice ||
			e.Operation != "RETRIEVE" || e.From != "Cmeter7" || e.To != "in-cse/box" || e.In == 0 || e.Out == 0 || e.KcID.IsZero() {
			t.Errorf("recorded: %+v", e)
		}
	}
}

// A request may fill a packet.
func TestLargeRequest(t *testing.T) {
	b := newBroker(t, echo)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	con := strings.Repeat("0123456789abcdef", 16_000)
	client.send(&mqtt.Publish{Topic: meterReq,
		Payload: []byte(`{"op":1,"ty":4,"to":"in-cse/box","fr":"Cmeter7","rqi":"x","pc":{"m2m:cin":{"con":"` + con + `"}}}`)})
	if p, ok := s.next().(*mqtt.Publish); !ok || !strings.Contains(string(p.Payload), con) {
		t.Errorf("the broker got %d octets", len(p.Payload))
	}
	if p, ok := client.read().(*mqtt.Publish); !ok || !strings.Contains(string(p.Payload), "2000") {
		t.Errorf("got %+v", p)
	}
}

// sameMembers reports whether two JSON texts differ in order only, roughly.
func sameMembers(a, b string) bool {
	parts := func(s string) map[string]int {
		n := make(map[string]int)
		for part := range strings.SplitSeq(strings.Trim(s, "{}"), ",") {
			n[strings.Trim(strings.TrimPrefix(part, `"m2m:rqp":`), "{}")]++
		}
		return n
	}
	return fmt.Sprint(parts(a)) == fmt.Sprint(parts(b)) && len(a) == len(b)
}

// refusals are what an AE, Cmeter7, publishes in vain, and what it is told.
var refusals = map[string]struct {
	topic, payload string
	status         onem2m.ResponseStatusCode // 0: nothing
}{
	"another's fr":           {meterReq, retrieve("Cmeter8", "x"), 4106},
	"another's topic":        {"/oneM2M/req/Cmeter8/in-cse/json", retrieve("Cmeter7", "x"), 4106},
	"another's both":         {"/oneM2M/req/Cmeter8/in-cse/json", retrieve("Cmeter8", "x"), 4106},
	"the CSE's topic":        {"/oneM2M/req/in-cse/Cmeter8/json", retrieve("Cmeter7", "x"), 4000},
	"to another device":      {"/oneM2M/req/Cmeter7/Cmeter8/json", retrieve("Cmeter7", "x"), 4000},
	"no fr":                  {meterReq, `{"op":2,"to":"in-cse","rqi":"x"}`, 4000},
	"absolute fr":            {meterReq, retrieve(meter7, "x"), 4000},
	"NUL in fr":              {meterReq, `{"op":2,"to":"in-cse","fr":"Cmeter7\u0000","rqi":"x"}`, 4000},
	"fr and FR":              {meterReq, `{"op":2,"to":"in-cse","fr":"Cmeter7","FR":"Cmeter8","rqi":"x"}`, 4000},
	"fr twice":               {meterReq, `{"op":2,"to":"in-cse","fr":"Cmeter7","fr":"Cmeter8","rqi":"x"}`, 4000},
	"a wrapper beside":       {meterReq, `{"op":2,"to":"in-cse","fr":"Cmeter7","rqi":"x","m2m:rqp":{"fr":"Cmeter8"}}`, 4000},
	"a query in to":          {meterReq, `{"op":2,"to":"in-cse?fr=Cmeter8","fr":"Cmeter7","rqi":"x"}`, 4000},
	"an escape in to":        {meterReq, `{"op":2,"to":"in-cse%3Fx","fr":"Cmeter7","rqi":"x"}`, 4000},
	"dots in to":             {meterReq, `{"op":2,"to":"in-cse/../x","fr":"Cmeter7","rqi":"x"}`, 4000},
	"a line in to":           {meterReq, `{"op":2,"to":"in-cse\r\nX-M2M-Origin: Cmeter8","fr":"Cmeter7","rqi":"x"}`, 4000},
	"no rqi":                 {meterReq, `{"op":2,"to":"in-cse","fr":"Cmeter7"}`, 4000},
	"long rqi":               {meterReq, retrieve("Cmeter7", strings.Repeat("x", 129)), 4000},
	"no JSON":                {meterReq, `<rqp/>`, 4000},
	"JSON twice":             {meterReq, retrieve("Cmeter7", "x") + retrieve("Cmeter8", "x"), 4000},
	"nothing":                {meterReq, ``, 4000},
	"a topic for XML":        {"/oneM2M/req/Cmeter7/in-cse/xml", retrieve("Cmeter7", "x"), 4000},
	"a topic without format": {"/oneM2M/req/Cmeter7/in-cse", retrieve("Cmeter7", "x"), 4000},
	"no registration":        {"/oneM2M/reg_req/Cmeter7/in-cse/json", retrieve("Cmeter7", "x"), 4000},
	"another's Credential-ID": {"/oneM2M/reg_req/11-meter8@maf.example.com/in-cse/json",
		`{"op":1,"ty":2,"to":"in-cse","rqi":"x","pc":{"m2m:ae":{"api":"Na","rr":true}}}`, 4106},
	"an answer to itself":         {meterResp, `{"rsc":2000,"rqi":"x"}`, 0},
	"an answer to another":        {"/oneM2M/resp/Cmeter8/in-cse/json", `{"rsc":2000,"rqi":"x"}`, 0},
	"an answer to no request":     {"/oneM2M/resp/in-cse/Cmeter7/json", `{"rsc":2000,"rqi":"x"}`, 0},
	"another's answer":            {"/oneM2M/resp/in-cse/Cmeter8/json", `{"rsc":2000,"rqi":"x"}`, 0},
	"an answer to a registration": {"/oneM2M/reg_resp/Cmeter8/in-cse/json", `{"rsc":2001,"rqi":"x"}`, 0},
	"any other topic":             {"temperature", "21", 0},
	"the broker's topic":          {"$SYS/broker/version", "x", 0},
	"a shared topic":              {"$share/g/x", "x", 0},
	"a deeper topic":              {meterReq + "/json", retrieve("Cmeter7", "x"), 0},
	"an empty level":              {"/oneM2M/req//in-cse/json", retrieve("Cmeter7", "x"), 0},
}

// Refused messages are acknowledged, answered and recorded. The broker gets
// nothing of them, with whatever QoS they come.
func TestRefused(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	for name, r := range refusals {
		for qos := range byte(3) {
			p := &mqtt.Publish{QoS: qos, Topic: r.topic, Payload: []byte(r.payload)}
			if qos > 0 {
				p.ID = 7
			}
			client.send(p)
			switch qos {
			case 1:
				client.wantAck(mqtt.TypePuback, 7)
			case 2:
				client.wantAck(mqtt.TypePubrec, 7)
				if r.status != 0 {
					client.wantRefusal(name, r.status)
				}
				client.send(&mqtt.Ack{Kind: mqtt.TypePubrel, ID: 7})
				client.wantAck(mqtt.TypePubcomp, 7)
			}
			if r.status != 0 && qos != 2 {
				client.wantRefusal(name, r.status)
			}
			e := f.entries.next(t)
			if !e.Refused || e.Reason == "" || e.Status != r.status && r.status != 0 {
				t.Errorf("%s: recorded %+v", name, e)
			}
		}
	}
	// The connection works still, and nothing else has come through it.
	client.send(mqtt.Signal(mqtt.TypePingreq))
	if p := s.next(); p != mqtt.Signal(mqtt.TypePingreq) {
		t.Errorf("the broker got %+v", p)
	}
	if p := client.read(); p != mqtt.Signal(mqtt.TypePingresp) {
		t.Errorf("got %+v", p)
	}
}

func (c *client) wantAck(kind mqtt.Type, id uint16) {
	c.t.Helper()
	if p, ok := c.read().(*mqtt.Ack); !ok || p.Kind != kind || p.ID != id {
		c.t.Errorf("got %+v, want %v %d", p, kind, id)
	}
}

func (c *client) wantRefusal(name string, status onem2m.ResponseStatusCode) {
	c.t.Helper()
	p, ok := c.read().(*mqtt.Publish)
	if !ok {
		c.t.Fatalf("%s: not answered", name)
	}
	v, err := primitive.Parse(p.Payload)
	if got, _ := unwrap(v, "m2m:rsp").Get("rsc").Int(); err != nil || got != int64(status) {
		c.t.Errorf("%s: answered with %s: %v", name, p.Payload, err)
	}
	if p.QoS != 0 || p.Retain || (p.Topic != meterResp && p.Topic != "/oneM2M/reg_resp/Cmeter7/in-cse/json") {
		c.t.Errorf("%s: answered with %+v", name, p)
	}
}

// Messages of QoS 2 that are refused and others take turns with one packet
// identifier.
func TestQoS2(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	bad := &mqtt.Publish{QoS: 2, ID: 7, Topic: "temperature"}
	good := &mqtt.Publish{QoS: 2, ID: 7, Topic: meterReq, Payload: []byte(retrieve("Cmeter7", "x"))}
	pubrel := &mqtt.Ack{Kind: mqtt.TypePubrel, ID: 7}
	for range 2 {
		client.send(bad)
		client.wantAck(mqtt.TypePubrec, 7)
		client.send(pubrel)
		client.wantAck(mqtt.TypePubcomp, 7)
		client.send(good)
		client.wantAck(mqtt.TypePubrec, 7)
		client.send(pubrel)
		client.wantAck(mqtt.TypePubcomp, 7)
		if p, ok := s.next().(*mqtt.Publish); !ok || p.QoS != 2 || p.ID != 7 {
			t.Errorf("the broker got %+v, want PUBLISH", p)
		}
		if p, ok := s.next().(*mqtt.Ack); !ok || p.Kind != mqtt.TypePubrel || p.ID != 7 {
			t.Errorf("the broker got %+v, want PUBREL", p)
		}
	}
	// A device that never sends PUBREL is dropped in the end.
	for id := range uint16(65) {
		bad.ID = id + 1
		client.send(bad)
	}
	for id := range uint16(64) {
		client.wantAck(mqtt.TypePubrec, id+1)
	}
	client.closed()
}

// The parsers of three kinds of CSEs see the authenticated originator in every
// request that reaches them, whatever the device tried.
func TestOneReading(t *testing.T) {
	const victim = "Cmeter8"
	tricks := []string{
		retrieve("Cmeter7", "honest"),
		retrieve(victim, "x"),
		`{"fr":"Cmeter8","op":2,"to":"in-cse","fr":"Cmeter7","rqi":"x"}`,
		`{"fr":"Cmeter7","op":2,"to":"in-cse","fr":"Cmeter8","rqi":"x"}`,
		`{"FR":"Cmeter8","op":2,"to":"in-cse","fr":"Cmeter7","rqi":"x"}`,
		`{"fr":"Cmeter7","op":2,"to":"in-cse","Fr":"Cmeter8","rqi":"x"}`,
		`{"\u0066r":"Cmeter8","op":2,"to":"in-cse","fr":"Cmeter7","rqi":"x"}`,
		`{"fr":"Cmeter7","op":2,"to":"in-cse","fr\u0000":"Cmeter8","rqi":"x"}`,
		`{"fr":"Cmeter8\u0000","op":2,"to":"in-cse","rqi":"x"}`,
		`{"fr":"Cmeter7","op":2,"to":"in-cse","rqi":"x","m2m:rqp":{"op":2,"to":"in-cse","fr":"Cmeter8","rqi":"x"}}`,
		`{"m2m:rqp":{"op":2,"to":"in-cse","fr":"Cmeter7","rqi":"x"},"m2m:rqp":{"op":2,"to":"in-cse","fr":"Cmeter8","rqi":"x"}}`,
		`{"m2m:rqp":{"op":2,"to":"in-cse","fr":"Cmeter7","rqi":"x"},"M2M:RQP":{"op":2,"to":"in-cse","fr":"Cmeter8","rqi":"x"}}`,
		`{"fr":"Cmeter7","op":2,"to":"in-cse","from":"Cmeter8","rqi":"x"}`,
		`{"op":2,"to":"in-cse","rqi":"x"}`,
		`{"fr":"","op":2,"to":"in-cse","rqi":"x"}`,
		`{"fr":null,"op":2,"to":"in-cse","rqi":"x"}`,
		`{"fr":["Cmeter7","Cmeter8"],"op":2,"to":"in-cse","rqi":"x"}`,
		"\xef\xbb\xbf" + retrieve(victim, "x"),
		retrieve("Cmeter7", "x") + retrieve(victim, "x"),
		retrieve("Cmeter7", "x") + "\x00" + retrieve(victim, "x"),
		`{"op":1,"ty":2,"to":"in-cse","fr":"","rqi":"x","pc":{"m2m:ae":{"api":"Na","rr":true,"aei":"Cmeter8"}}}`,
		`{"op":1,"ty":2,"to":"in-cse","fr":"C","rqi":"x","pc":{"m2m:ae":{"api":"Na","rr":true}}}`,
		`{"op":1,"ty":4,"to":"in-cse/box","fr":"Cmeter7","rqi":"x","pc":{"m2m:cin":{"con":"\",\"fr\":\"Cmeter8"}}}`,
	}
	topics := []string{meterReq, "/oneM2M/req/Cmeter8/in-cse/json", "/oneM2M/reg_req/Cmeter7/in-cse/json",
		"/oneM2M/reg_req/Cmeter8/in-cse/json", "/oneM2M/req/:in-cse:Cmeter7/in-cse/json"}

	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	for _, topic := range topics {
		for _, trick := range tricks {
			client.send(&mqtt.Publish{Topic: topic, Payload: []byte(trick)})
		}
	}
	client.send(mqtt.Signal(mqtt.TypePingreq))
	reached := 0
	for p := s.next(); p != mqtt.Signal(mqtt.TypePingreq); p = s.next() {
		reached++
		publish := p.(*mqtt.Publish)
		got, ok := parseTopic(publish.Topic)
		if aeID, _ := (&names{cse: gwtest.CSE}).aeID(got.originator); !ok || aeID.String() != meter7 {
			t.Errorf("reached the CSE: %s", publish.Topic)
		}
		for name, parse := range parsers {
			// A CSE that finds no originator takes the topic's.
			if from, err := parse(publish.Payload); err != nil || from != "Cmeter7" {
				t.Errorf("%s: the CSE sees %q, %v in %s", name, from, err, publish.Payload)
			}
		}
	}
	if reached < 5 || reached > len(topics)*len(tricks)/2 {
		t.Errorf("%d requests reached the CSE", reached)
	}
}

// A CSE that answers a repeated request identifier from its memory answers each
// device from that device's requests.
func TestCachedAnswers(t *testing.T) {
	memory := make(map[string]string) // by rqi: who asked first
	b := newBroker(t, nil)
	b.handle = func(s *session, p *mqtt.Publish) {
		v, _ := primitive.Parse(p.Payload)
		req, err := primitive.ParseRequest(v)
		if err != nil {
			t.Error(err)
			return
		}
		if _, ok := memory[req.RequestID]; !ok {
			memory[req.RequestID] = "for " + req.From
		}
		resp := &primitive.Response{Status: 2000, RequestID: req.RequestID, Content: primitive.String(memory[req.RequestID])}
		s.send(&mqtt.Publish{Topic: strings.Replace(p.Topic, "/req/", "/resp/", 1), Payload: resp.Value().Append(nil)})
	}
	f := newFixture(t, b.address(), policy.Config{}, nil)
	for _, name := range []string{"Cone", "Ctwo", "Cone"} {
		device := f.site.AE(strings.ToLower(name), "//sp.example.com/in-cse/"+name)
		client := f.connect(device)
		prefixes := []string{"", requestPrefix(must(onem2m.ParseKmID("cone@maf.example.com"))) + "-"}
		for _, prefix := range prefixes { // also one that knows how identifiers are made
			client.send(&mqtt.Publish{Topic: "/oneM2M/req/" + name + "/in-cse/json", Payload: []byte(retrieve(name, prefix+"same"))})
			if p := client.read().(*mqtt.Publish); !strings.Contains(string(p.Payload), "for "+name) {
				t.Errorf("%s got %s", name, p.Payload)
			}
		}
		client.conn.Close()
	}
}

// A peer of whom only the KmId is known registers on the topic of its
// Credential-ID, and has the topics of its AE-ID from then on.
func TestRegistration(t *testing.T) {
	b := newBroker(t, nil)
	b.handle = func(s *session, p *mqtt.Publish) {
		v, _ := primitive.Parse(p.Payload)
		req, err := primitive.ParseRequest(v)
		if err != nil {
			t.Error(err)
			return
		}
		if !strings.HasPrefix(p.Topic, "/oneM2M/reg_req/") {
			echo(s, p)
			return
		}
		if req.From != "C" || req.Rest.Get("rcn") != nil {
			t.Errorf("the CSE got %s", p.Payload)
		}
		ae := primitive.Object()
		ae.Set("aei", primitive.String("Cassigned"))
		content := primitive.Object()
		content.Set("m2m:ae", ae)
		resp := &primitive.Response{Status: 2001, RequestID: req.RequestID, Content: content}
		s.send(&mqtt.Publish{Topic: strings.Replace(p.Topic, "reg_req", "reg_resp", 1), Payload: resp.Value().Append(nil)})
	}
	f := newFixture(t, b.address(), policy.Config{Allowed: []policy.Allowance{{KmID: "lamp*@maf.example.com", AEIDs: []string{"C*"}}}}, nil)
	client := f.connect(f.site.Unnamed("lamp1"))
	subscribe := &mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "/oneM2M/resp/Cassigned/#"}}}
	publish := &mqtt.Publish{Topic: "/oneM2M/req/Cassigned/in-cse/json", Payload: []byte(retrieve("Cassigned", "x"))}

	client.send(subscribe)
	if p := client.read().(*mqtt.Suback); p.Codes[0] != mqtt.SubscribeFailure {
		t.Errorf("before the registration: %+v", p)
	}
	client.send(publish)
	if e := f.entries.next(t); !e.Refused || e.Status != 4106 {
		t.Errorf("before the registration: %+v", e)
	}
	// It has no topic yet on which it could be told.
	client.send(&mqtt.Publish{Topic: "/oneM2M/reg_req/11-lamp1@maf.example.com/in-cse/json",
		Payload: []byte(`{"op":1,"ty":2,"to":"in-cse","fr":"C","rcn":0,"rqi":"reg","rvi":"3","pc":{"m2m:ae":{"api":"Nlamp","rr":true}}}`)})
	if p := client.read().(*mqtt.Publish); !strings.Contains(string(p.Payload), `"rqi":"reg"`) ||
		p.Topic != "/oneM2M/reg_resp/11-lamp1@maf.example.com/in-cse/json" {
		t.Errorf("registration: %+v %s", p, p.Payload)
	}
	client.send(subscribe)
	if p := client.read().(*mqtt.Suback); p.Codes[0] != 0 {
		t.Errorf("after the registration: %+v", p)
	}
	client.send(publish)
	if p := client.read().(*mqtt.Publish); !strings.Contains(string(p.Payload), "2000") {
		t.Errorf("after the registration: %s", p.Payload)
	}
	// What one has, another can neither use nor read.
	other := f.connect(f.site.Unnamed("lamp2"))
	other.send(subscribe)
	if p := other.read().(*mqtt.Suback); p.Codes[0] != mqtt.SubscribeFailure {
		t.Errorf("another: %+v", p)
	}
}

func TestWill(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	device := f.site.AE("meter7", meter7)
	for name, r := range refusals {
		client := f.dial(device)
		client.send(&mqtt.Connect{CleanSession: true, ClientID: "w", Will: &mqtt.Will{Topic: r.topic, Payload: []byte(r.payload)}})
		if p, ok := client.read().(*mqtt.Connack); !ok || p.Code != mqtt.NotAuthorized {
			t.Errorf("%s: %+v", name, p)
		}
		client.closed()
	}
	if n := len(b.sessions); n > 0 {
		t.Fatalf("the broker got %d connections", n)
	}
	client := f.dial(device)
	client.send(&mqtt.Connect{CleanSession: true, ClientID: "w",
		Will: &mqtt.Will{Topic: meterReq, Payload: []byte(retrieve("Cmeter7", "x")), QoS: 1, Retain: true}})
	client.read()
	will := b.session().connect.Will
	id := requestPrefix(must(onem2m.ParseKmID("meter7@maf.example.com"))) + "-x"
	if will == nil || will.Topic != meterReq || will.Retain || will.QoS != 1 || !strings.Contains(string(will.Payload), id) {
		t.Errorf("the broker got the will %+v", will)
	}
}

// A CSE forwards the requests of others on its own topic, and registers on it.
func TestCSE(t *testing.T) {
	b := newBroker(t, echo)
	f := newFixture(t, b.address(), policy.Config{Allowed: []policy.Allowance{
		{KmID: "hall@maf.example.com", CSE: must(onem2m.ParseCSEID("//sp.example.com/hall-cse"))},
	}}, nil)
	for _, c := range []struct {
		device *saef.Device
		name   string
	}{
		{f.site.CSE("floor", "//sp.example.com/floor-cse"), "floor-cse"},
		{f.site.Unnamed("hall"), "hall-cse"},
	} {
		client := f.connect(c.device)
		for from, status := range map[string]string{
			"/" + c.name: "2000", "/" + c.name + "/Cdoor": "2000", "Cmeter7": "4106", "/in-cse": "4106",
		} {
			client.send(&mqtt.Publish{Topic: "/oneM2M/req/" + c.name + "/in-cse/json", Payload: []byte(retrieve(from, "x"))})
			if p := client.read().(*mqtt.Publish); !strings.Contains(string(p.Payload), status) || p.Topic != "/oneM2M/resp/"+c.name+"/in-cse/json" {
				t.Errorf("%s of %s: %s %s", from, c.name, p.Topic, p.Payload)
			}
		}
	}
}
