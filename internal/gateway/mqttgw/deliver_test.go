package mqttgw

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
)

// Of a SUBSCRIBE, what is allowed is passed on and what is not fails, each in its
// place.
func TestSubscribe(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	mine := mqtt.Filter{Topic: "/oneM2M/resp/Cmeter7/+/json", QoS: 1}
	notify := mqtt.Filter{Topic: "/oneM2M/req/+/Cmeter7/#", QoS: 2}
	all := mqtt.Filter{Topic: "#", QoS: 1}
	others := mqtt.Filter{Topic: "/oneM2M/resp/Cmeter8/+/json"}
	shared := mqtt.Filter{Topic: "$share/g/" + mine.Topic}
	for i, c := range []struct {
		filters []mqtt.Filter
		codes   string
	}{
		{[]mqtt.Filter{mine}, "\x01"},
		{[]mqtt.Filter{mine, notify}, "\x01\x02"},
		{[]mqtt.Filter{all, mine, others, notify, shared}, "\x80\x01\x80\x02\x80"},
		{[]mqtt.Filter{mine, others}, "\x01\x80"},
		{[]mqtt.Filter{all, shared}, "\x80\x80"},
	} {
		id := uint16(i + 1)
		client.send(&mqtt.Subscribe{ID: id, Filters: c.filters})
		if p, ok := client.read().(*mqtt.Suback); !ok || p.ID != id || string(p.Codes) != c.codes {
			t.Errorf("%+v: %+v", c.filters, p)
		}
		if strings.Trim(c.codes, "\x80") == "" {
			continue // the broker hears nothing
		}
		got, ok := s.next().(*mqtt.Subscribe)
		if !ok || got.ID != id {
			t.Fatalf("the broker got %+v", got)
		}
		for _, f := range got.Filters {
			if f != mine && f != notify {
				t.Errorf("the broker got %+v", f)
			}
		}
	}
	client.send(&mqtt.Unsubscribe{ID: 9, Topics: []string{mine.Topic}})
	client.wantAck(mqtt.TypeUnsuback, 9)
}

// The CSE asks and the device answers, once.
func TestNotification(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	notify := `{"op":5,"to":"Cmeter7","fr":"/in-cse","rqi":"n1","pc":{"m2m:sgn":{"vrq":true}}}`
	answer := &mqtt.Publish{Topic: "/oneM2M/resp/in-cse/Cmeter7/json", Payload: []byte(`{"rsc":2000,"rqi":"n1","fr":"Cmeter8"}`)}

	s.send(&mqtt.Publish{QoS: 1, ID: 3, Topic: "/oneM2M/req/in-cse/Cmeter7/json", Payload: []byte(notify)})
	if p, ok := client.read().(*mqtt.Publish); !ok || p.QoS != 1 || p.ID != 3 || string(p.Payload) != notify {
		t.Errorf("got %+v", p)
	}
	client.send(&mqtt.Ack{Kind: mqtt.TypePuback, ID: 3})
	if p, ok := s.next().(*mqtt.Ack); !ok || p.Kind != mqtt.TypePuback || p.ID != 3 {
		t.Errorf("the broker got %+v", p)
	}
	client.send(answer)
	if p, ok := s.next().(*mqtt.Publish); !ok || p.Topic != answer.Topic || string(p.Payload) != `{"rsc":2000,"rqi":"n1"}` {
		t.Errorf("the broker got %+v %s", p, p.Payload)
	}
	if e := f.entries.next(t); !e.ToDevice || e.Operation != "NOTIFY" || e.From != "/in-cse" || e.Status != 2000 || e.Refused {
		t.Errorf("recorded %+v", e)
	}
	client.send(answer)
	if e := f.entries.next(t); !e.Refused {
		t.Errorf("a second answer: %+v", e)
	}
}

// What the broker delivers and the device may not read goes no further.
func TestDropped(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	for qos := range byte(3) {
		for name, p := range map[string]mqtt.Publish{
			"another's answer":        {Topic: "/oneM2M/resp/Cmeter8/in-cse/json", Payload: []byte(`{"rsc":2000,"rqi":"x"}`)},
			"another's request":       {Topic: "/oneM2M/req/Cmeter7/in-cse/json", Payload: []byte(retrieve("Cmeter7", "x"))},
			"a request of a device's": {Topic: "/oneM2M/req/Cmeter8/Cmeter7/json", Payload: []byte(retrieve("Cmeter8", "x"))},
			"any topic":               {Topic: "news", Payload: []byte("{}")},
			"no JSON":                 {Topic: meterResp, Payload: []byte("<rsp/>")},
		} {
			if p.QoS = qos; qos > 0 {
				p.ID = 5
			}
			s.send(&p)
			switch qos {
			case 1:
				if p, ok := s.next().(*mqtt.Ack); !ok || p.Kind != mqtt.TypePuback || p.ID != 5 {
					t.Errorf("%s: the broker got %+v", name, p)
				}
			case 2:
				if p, ok := s.next().(*mqtt.Ack); !ok || p.Kind != mqtt.TypePubrec || p.ID != 5 {
					t.Errorf("%s: the broker got %+v", name, p)
				}
				s.send(&mqtt.Ack{Kind: mqtt.TypePubrel, ID: 5})
				if p, ok := s.next().(*mqtt.Ack); !ok || p.Kind != mqtt.TypePubcomp || p.ID != 5 {
					t.Errorf("%s: the broker got %+v", name, p)
				}
			}
		}
	}
	s.send(&mqtt.Publish{Topic: meterResp, Payload: []byte(`{"rsc":2000,"rqi":"x"}`)})
	if p, ok := client.read().(*mqtt.Publish); !ok || p.Topic != meterResp {
		t.Errorf("got %+v", p)
	}
}

// A device that is only ever refused is alive, and the broker learns it.
func TestKeepAliveTowardsTheBroker(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.dial(f.site.AE("meter7", meter7))
	client.send(&mqtt.Connect{CleanSession: true, ClientID: "x", KeepAlive: 2})
	client.read()
	s := b.session()
	for len(s.got) == 0 {
		client.send(&mqtt.Publish{QoS: 1, ID: 1, Topic: "temperature"})
		client.wantAck(mqtt.TypePuback, 1) // and never a PINGRESP that it has not asked for
		time.Sleep(10 * time.Millisecond)
	}
	if p := s.next(); p != mqtt.Signal(mqtt.TypePingreq) {
		t.Errorf("the broker got %+v", p)
	}
}

// A device that is silent for longer than it said is disconnected, and its will
// stands.
func TestKeepAliveOfTheDevice(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.dial(f.site.AE("meter7", meter7))
	client.send(&mqtt.Connect{CleanSession: true, ClientID: "x", KeepAlive: 1})
	client.read()
	client.closed()
	if p := b.session().next(); p != nil {
		t.Errorf("the broker got %+v", p)
	}
}

func TestDeviceLost(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	client.conn.Close()
	if p := s.next(); p != nil {
		t.Errorf("the broker got %+v: no will then", p)
	}
}

// When the gateway closes an association, as it does when a key is revoked, the
// broker is told to forget the will, which would be published with the authority
// of that key.
func TestAssociationClosedUnderIt(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	f.server.mu.Lock()
	for a := range f.server.associations {
		a.device.conn.Close()
	}
	f.server.mu.Unlock()
	client.closed()
	if p := s.next(); p != mqtt.Signal(mqtt.TypeDisconnect) {
		t.Errorf("the broker got %+v", p)
	}
}

func TestBrokerLost(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	b.session().conn.Close()
	client.closed()
}

// A broker that misbehaves costs the association, not the gateway.
func TestMisbehavingBroker(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	device := f.site.AE("meter7", meter7)
	for name, octets := range map[string]string{
		"CONNACK":   "\x20\x02\x00\x00",
		"SUBSCRIBE": "\x82\x08\x00\x01\x00\x03a/b\x00",
		"malformed": "\x30\x05\x00\x03a/#",
		"too large": "\x30\xff\xff\xff\x7f",
	} {
		client := f.connect(device)
		s := b.session()
		if _, err := io.WriteString(s.conn, octets); err != nil {
			t.Fatal(err)
		}
		client.closed()
		if p := s.next(); p != nil {
			t.Errorf("%s: the broker got %+v", name, p)
		}
	}
}

// Shutdown waits for the answers to requests under way, takes no new ones, and
// leaves no wills.
func TestShutdown(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	client.send(&mqtt.Publish{Topic: meterReq, Payload: []byte(retrieve("Cmeter7", "x"))})
	request := s.next().(*mqtt.Publish)

	done := make(chan error)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { done <- f.server.Shutdown(ctx) }()
	f.eventually(f.server.isClosing)
	// Sent after Shutdown has begun, so not read, or read before it had.
	echo(s, request)
	if p, ok := client.read().(*mqtt.Publish); !ok || !strings.Contains(string(p.Payload), "2000") {
		t.Errorf("got %+v", p)
	}
	client.closed()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if p := s.next(); p != mqtt.Signal(mqtt.TypeDisconnect) {
		t.Errorf("the broker got %+v", p)
	}
	if _, err := net.Dial("tcp", f.address); err == nil {
		t.Error("the listener is open")
	}
}

// Shutdown gives up when its context ends.
func TestShutdownGivesUp(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	client := f.connect(f.site.AE("meter7", meter7))
	s := b.session()
	client.send(&mqtt.Publish{Topic: meterReq, Payload: []byte(retrieve("Cmeter7", "x"))})
	s.next()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	client.closed()
	if e := f.entries.next(t); e.Status != 0 || e.Refused {
		t.Errorf("recorded %+v", e)
	}
}
