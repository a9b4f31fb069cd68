package mqttgw

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// sink is a connection that takes everything and gives nothing.
type sink struct {
	net.Conn
	bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error)    { return s.Buffer.Write(b) }
func (*sink) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (*sink) Close() error                     { return nil }
func (*sink) SetReadDeadline(time.Time) error  { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }
func (s *sink) packets(t *testing.T) []mqtt.Packet {
	var all []mqtt.Packet
	r := bufio.NewReader(&s.Buffer)
	for {
		p, err := mqtt.Read(r, 1<<20)
		if err != nil {
			if s.Buffer.Len()+r.Buffered() > 0 {
				t.Errorf("not a packet: %v", err)
			}
			return all
		}
		all = append(all, p)
	}
}

// Whatever an AE publishes and subscribes to, the broker gets publications to the
// CSE in which three readers find that AE and nobody else, and subscriptions to
// what is the AE's. What the AE gets is its own too.
func FuzzAssociation(f *testing.F) {
	rules, err := policy.New(policy.Config{CSE: testCSE})
	if err != nil {
		f.Fatal(err)
	}
	server, err := New(Config{Rules: rules, CSE: testCSE, Broker: Broker{Address: "127.0.0.1:1"}})
	if err != nil {
		f.Fatal(err)
	}
	association := saef.Association{AEID: must(onem2m.ParseAEID(meter7)), KmID: must(onem2m.ParseKmID("meter7@maf.example.com"))}
	for _, r := range refusals {
		f.Add(r.topic, []byte(r.payload), "#")
	}
	f.Add(meterReq, []byte(retrieve("Cmeter7", "x")), "/oneM2M/req/+/Cmeter7/#")
	f.Add(meterReq, []byte(`{"m2m:rqp":`+retrieve("Cmeter7", "x")+`}`), "/oneM2M/reg_resp/11-meter7@maf.example.com/+")
	f.Add("/oneM2M/reg_req/"+testCredential+"/in-cse/json",
		[]byte(`{"op":1,"ty":2,"to":"in-cse","fr":"C","rqi":"x","pc":{"m2m:ae":{"api":"Na","rr":true,"poa":["mqtt://x"]}}}`), "$share/g/#")

	f.Fuzz(func(t *testing.T, name string, payload []byte, filter string) {
		device, broker := new(sink), new(sink)
		a := newAssociation(server, device, association)
		a.setBroker(newSide(broker, time.Second))
		for _, p := range []mqtt.Packet{
			&mqtt.Publish{QoS: 2, ID: 1, Retain: true, Topic: name, Payload: payload},
			&mqtt.Subscribe{ID: 2, Filters: []mqtt.Filter{{Topic: filter}, {Topic: "/oneM2M/resp/Cmeter7/#"}}},
		} {
			b, err := mqtt.Append(nil, p)
			if err != nil {
				continue
			}
			if p, err = mqtt.Read(bufio.NewReader(bytes.NewReader(b)), 1<<20); err != nil {
				continue // package mqtt refuses it
			}
			if err := a.devicePacket(p); err != nil {
				t.Errorf("%+v: %v", p, err)
			}
		}
		for _, p := range broker.packets(t) {
			switch p := p.(type) {
			case *mqtt.Publish:
				topic, ok := parseTopic(p.Topic)
				_, own := a.names.own(topic.originator)
				own = own || topic.kind == kindRegReq && topic.originator == testCredential
				if !ok || !own || !a.names.isCSE(topic.receiver) || p.Retain {
					t.Errorf("the broker got %+v", p)
				}
				for name, parse := range parsers {
					if from, err := parse(p.Payload); err != nil || from != "Cmeter7" {
						t.Errorf("%s: %q, %v in %s", name, from, err, p.Payload)
					}
				}
			case *mqtt.Subscribe:
				for _, f := range p.Filters {
					if !strings.Contains(f.Topic, "Cmeter7") && !strings.Contains(f.Topic, a.names.credential) {
						t.Errorf("the broker got %+v", f)
					}
				}
			case *mqtt.Connect, *mqtt.Connack, *mqtt.Suback:
				t.Errorf("the broker got %+v", p)
			}
		}
		for _, p := range device.packets(t) {
			if p, ok := p.(*mqtt.Publish); ok {
				if topic, ok := parseTopic(p.Topic); !ok || !a.names.mayRead(topic) {
					t.Errorf("the device got %+v", p)
				}
			}
		}
	})
}

func TestConfig(t *testing.T) {
	rules, err := policy.New(policy.Config{CSE: testCSE})
	if err != nil {
		t.Fatal(err)
	}
	good := func() Config {
		return Config{Rules: rules, CSE: testCSE, Broker: Broker{Address: "127.0.0.1:1883"}}
	}
	if s, err := New(good()); err != nil || s.contacts.broker != "mqtt://127.0.0.1:1883" {
		t.Errorf("%+v, %v", s, err)
	}
	for name, spoil := range map[string]func(*Config){
		"no rules":               func(c *Config) { c.Rules = nil },
		"no CSE":                 func(c *Config) { c.CSE = onem2m.CSEID{} },
		"a relative CSE":         func(c *Config) { c.CSE = onem2m.CSEID{ID: "in-cse"} },
		"no broker":              func(c *Config) { c.Broker.Address = "" },
		"a broker without port":  func(c *Config) { c.Broker.Address = "localhost" },
		"no CSE names":           func(c *Config) { c.CSENames = []string{} },
		"a wildcard of a name":   func(c *Config) { c.CSENames = []string{"+"} },
		"a name of two levels":   func(c *Config) { c.CSENames = []string{"in/cse"} },
		"a contact with a path":  func(c *Config) { c.Broker.Contact = "mqtt://localhost:1883/x" },
		"a public HTTP":          func(c *Config) { c.Public = "http://localhost" },
		"a public without hosts": func(c *Config) { c.Public = "mqtt://" },
	} {
		c := good()
		spoil(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
