package mqttgw

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
)

const (
	lampReg = "/oneM2M/reg_req/11-lamp1@maf.example.com/in-cse/json"
	// register is a registration under the request identifier "x".
	register = `{"op":1,"ty":2,"to":"in-cse","fr":"C","rqi":"x","rvi":"3","pc":{"m2m:ae":{"api":"Nlamp","rr":true}}}`
)

var lamps = policy.Config{Allowed: []policy.Allowance{
	{KmID: "lamp*@maf.example.com", AEIDs: []string{"C*"}}, {KmID: "lamp1@maf.example.com", AEIDs: []string{"C*", "Slamp"}},
}}

// requestID is the one that a packet for the CSE carries.
func requestID(t *testing.T, p mqtt.Packet) string {
	t.Helper()
	publish, ok := p.(*mqtt.Publish)
	if !ok {
		t.Fatalf("the broker got %+v", p)
	}
	v, err := primitive.Parse(publish.Payload)
	if err != nil {
		t.Fatal(err)
	}
	req, err := primitive.ParseRequest(v)
	if err != nil {
		t.Fatal(err)
	}
	return req.RequestID
}

// A CSE that writes numbers as strings still tells which AE-ID it assigned.
func TestStatusAsString(t *testing.T) {
	b := newBroker(t, nil)
	b.handle = func(s *session, p *mqtt.Publish) {
		s.send(&mqtt.Publish{Topic: strings.Replace(p.Topic, "reg_req", "reg_resp", 1), Payload: fmt.Appendf(nil,
			`{"m2m:rsp":{"rsc":"2001","rqi":%q,"pc":{"m2m:ae":{"aei":"Cassigned"}}}}`, requestID(t, p))})
	}
	f := newFixture(t, b.address(), lamps, nil)
	client := f.connect(f.site.Unnamed("lamp1"))
	client.send(&mqtt.Publish{Topic: lampReg, Payload: []byte(register)})
	if p, ok := client.read().(*mqtt.Publish); !ok || !strings.Contains(string(p.Payload), `"rqi":"x"`) {
		t.Errorf("registration: %+v", p)
	}
	client.send(&mqtt.Subscribe{ID: 1, Filters: []mqtt.Filter{{Topic: "/oneM2M/resp/Cassigned/#"}}})
	if p, ok := client.read().(*mqtt.Suback); !ok || p.Codes[0] != 0 {
		t.Errorf("after the registration: %+v", p)
	}
	if e := f.entries.next(t); e.Status != 2001 {
		t.Errorf("recorded: %+v", e)
	}
}

// A registration is one that is answered at once, and is no success when the device
// can't speak as the AE.
func TestRegistrationIsLearned(t *testing.T) {
	b := newBroker(t, nil)
	b.handle = func(s *session, p *mqtt.Publish) {
		for _, name := range []string{`"rt"`, `"rcn"`, `"oet"`, `"fc"`} {
			if strings.Contains(string(p.Payload), name) {
				t.Errorf("the CSE got %s", p.Payload)
			}
		}
		s.send(&mqtt.Publish{Topic: strings.Replace(p.Topic, "reg_req", "reg_resp", 1), Payload: fmt.Appendf(nil,
			`{"rsc":2001,"rqi":%q,"pc":{"m2m:ae":{"aei":"Cassigned"}}}`, requestID(t, p))})
	}
	f := newFixture(t, b.address(), lamps, nil)
	for i, status := range []string{"2001", "5000"} { // two devices that get one AE-ID
		name := fmt.Sprintf("lamp%d", i+1)
		client := f.connect(f.site.Unnamed(name))
		client.send(&mqtt.Publish{Topic: strings.Replace(lampReg, "lamp1", name, 1), Payload: []byte(strings.Replace(register, `"rvi"`,
			`"rt":{"rtv":2,"nu":["mqtt://x"]},"oet":"20260101T000000","rcn":0,"fc":{"lvl":1},"rvi"`, 1))})
		p, ok := client.read().(*mqtt.Publish)
		if !ok || !strings.Contains(string(p.Payload), status) || strings.Contains(string(p.Payload), "Cassigned") != (status == "2001") {
			t.Errorf("%s: %+v", name, p)
		}
		if e := f.entries.next(t); fmt.Sprint(int(e.Status)) != status {
			t.Errorf("%s: recorded %+v", name, e)
		}
	}
}

// A device asks a CSE of its own, which answers as if it had assigned an AE-ID,
// and puts the request's identifier on a registration. The answer does not count
// as the registration's: the AE-ID is another's, of whom the gateway knows
// nothing.
func TestAnswerToAnotherRequest(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), lamps, nil)
	client := f.connect(f.site.Unnamed("lamp1"))
	s := b.session()
	client.send(&mqtt.Publish{Topic: "/oneM2M/req/Slamp/in-cse/json",
		Payload: []byte(`{"op":1,"ty":4,"to":"/my-cse/box","fr":"Slamp","rqi":"x","pc":{"m2m:cin":{"con":"x"}}}`)})
	asked := requestID(t, s.next())
	client.send(&mqtt.Publish{Topic: lampReg, Payload: []byte(register)})
	registered := requestID(t, s.next())
	if asked == registered {
		t.Error("two requests with one identifier")
	}
	s.send(&mqtt.Publish{Topic: "/oneM2M/resp/Slamp/in-cse/json", Payload: fmt.Appendf(nil,
		`{"rsc":2001,"rqi":%q,"pc":{"m2m:ae":{"aei":"Cvictim"}}}`, asked)})
	client.read()
	client.send(&mqtt.Publish{Topic: "/oneM2M/req/Cvictim/in-cse/json", Payload: []byte(retrieve("Cvictim", "y"))})
	f.entries.next(t) // the CREATE
	if e := f.entries.next(t); !e.Refused || e.Status != 4106 {
		t.Errorf("with another's AE-ID: %+v", e)
	}
	// A repetition is the same request.
	client.send(&mqtt.Publish{Topic: lampReg, Payload: []byte(register)})
	if again := requestID(t, s.next()); again != registered {
		t.Errorf("repeated: %q and %q", registered, again)
	}
	for _, id := range []string{asked, registered} {
		a := &association{prefix: asked[:16]}
		if own, ok := a.inwardID(id); !ok || own != "x" {
			t.Errorf("inwardID(%q): %q, %v", id, own, ok)
		}
	}
	for _, id := range []string{"", "x", asked[:16], asked[:16] + "x", asked[:16] + ".-x", "0" + asked} {
		a := &association{prefix: asked[:16]}
		if own, ok := a.inwardID(id); ok {
			t.Errorf("inwardID(%q): %q", id, own)
		}
	}
}

// The broker hears of filters that a session may have, and of no others.
func TestUnsubscribe(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	mine, former := "/oneM2M/resp/Cmeter7/+/json", "/oneM2M/req/+/Cformer/#" // of an identity that it had
	for i, topics := range [][]string{
		{strings.Repeat("/", 65_000)}, {"#"}, {"$share/g/" + mine}, {"/oneM2M/resp/Cmeter7/in-cse/json/#"},
		{mine, strings.Repeat("/+", 30_000), former},
	} {
		id := uint16(i + 1)
		client.send(&mqtt.Unsubscribe{ID: id, Topics: topics})
		client.wantAck(mqtt.TypeUnsuback, id)
	}
	if p, ok := s.next().(*mqtt.Unsubscribe); !ok || p.ID != 5 || !slices.Equal(p.Topics, []string{mine, former}) {
		t.Errorf("the broker got %.200v", p)
	}
}

// What a device may subscribe to it may also unsubscribe from.
func TestFilters(t *testing.T) {
	for _, filter := range []string{
		"/oneM2M/resp/Cmeter7/+/json", "/oneM2M/req/+/Cmeter7/#", "/oneM2M/resp/Cmeter7/#",
		"/oneM2M/reg_resp/11-meter7@maf.example.com/in-cse", "/oneM2M/req/:in-cse/::sp.example.com:in-cse:Cmeter7/+",
	} {
		if !isFilter(filter) {
			t.Errorf("isFilter(%q)", filter)
		}
	}
}

// A will whose identity has become another's is not published.
func TestWillOfAFormerIdentity(t *testing.T) {
	b := newBroker(t, nil)
	b.handle = func(s *session, p *mqtt.Publish) {
		s.send(&mqtt.Publish{Topic: strings.Replace(p.Topic, "reg_req", "reg_resp", 1), Payload: fmt.Appendf(nil,
			`{"rsc":2001,"rqi":%q,"pc":{"m2m:ae":{"aei":"Cdoor"}}}`, requestID(t, p))})
	}
	f := newFixture(t, b.address(), lamps, nil)
	lamp := f.site.Unnamed("lamp1")
	first := f.connect(lamp)
	first.send(&mqtt.Publish{Topic: lampReg, Payload: []byte(register)})
	first.read()
	withWill := func() (*client, *session) {
		c := f.dial(lamp)
		c.send(&mqtt.Connect{CleanSession: true, ClientID: "w",
			Will: &mqtt.Will{Topic: "/oneM2M/req/Cdoor/in-cse/json", Payload: []byte(retrieve("Cdoor", "x"))}})
		if p, ok := c.read().(*mqtt.Connack); !ok || p.Code != mqtt.Accepted {
			t.Fatalf("CONNECT: %+v", p)
		}
		return c, b.session()
	}
	b.session()
	still, stillAt := withWill()
	still.conn.Close()
	if p := stillAt.next(); p != nil {
		t.Errorf("the broker got %+v: no will then", p)
	}
	former, formerAt := withWill()
	// The MAF says that the AE-ID is another's.
	f.connect(f.site.AE("door", "//sp.example.com/in-cse/Cdoor"))
	former.conn.Close()
	if p := formerAt.next(); p != mqtt.Signal(mqtt.TypeDisconnect) {
		t.Errorf("the broker got %+v and publishes the will", p)
	}
}
