package mqttgw

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
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
		if strings.ReplaceAll(c.codes, "\x80", "") == "" {
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

// pipes returns an association on pipes, for the tests with a clock of their
// own, and the far ends.
func pipes(t *testing.T, keepAlive time.Duration) (a *association, device, broker net.Conn) {
	t.Helper()
	rules, err := policy.New(policy.Config{CSE: testCSE})
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Rules: rules, CSE: testCSE, Broker: Broker{Address: "127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	device, theirs := net.Pipe()
	broker, theirs2 := net.Pipe()
	a = newAssociation(s, theirs, saef.Association{AEID: must(onem2m.ParseAEID(meter7)), KmID: must(onem2m.ParseKmID("meter7@maf.example.com"))})
	a.keepAlive = keepAlive
	a.setBroker(newSide(theirs2, s.config.Limits.Write))
	return a, device, broker
}

// A device that is only ever refused is alive, and the broker learns it; the
// device gets no PINGRESP that it has not asked for.
func TestKeepAliveTowardsTheBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, deviceConn, brokerConn := pipes(t, time.Minute)
		go a.serve()
		device := &client{t, deviceConn, bufio.NewReader(deviceConn)}
		r := bufio.NewReader(brokerConn)
		pings := make(chan int)
		go func() {
			n := 0
			for {
				p, err := mqtt.Read(r, 100)
				if err != nil {
					pings <- n
					return
				}
				if p != mqtt.Signal(mqtt.TypePingreq) {
					t.Errorf("the broker got %+v", p)
				}
				n++
				b, _ := mqtt.Append(nil, mqtt.Signal(mqtt.TypePingresp))
				brokerConn.Write(b)
			}
		}()
		for range 10 {
			time.Sleep(20 * time.Second)
			device.send(&mqtt.Publish{QoS: 1, ID: 1, Topic: "temperature"})
			device.wantAck(mqtt.TypePuback, 1)
		}
		synctest.Wait()
		deviceConn.Close()
		if n := <-pings; n < 3 || n > 5 {
			t.Errorf("%d pings in 200 s with a keep-alive of 60 s", n)
		}
	})
}

// A device that is silent for longer than one and a half times its keep-alive is
// disconnected, and its will stands. One that has no keep-alive may be silent.
func TestKeepAliveOfTheDevice(t *testing.T) {
	for keepAlive, want := range map[time.Duration]time.Duration{
		time.Minute: 90 * time.Second, time.Second: 1500 * time.Millisecond, 0: 0,
	} {
		synctest.Test(t, func(t *testing.T) {
			a, device, broker := pipes(t, keepAlive)
			defer device.Close()
			begun := time.Now()
			go a.serve()
			if want == 0 {
				time.Sleep(time.Hour)
				device.Close()
				want = time.Hour
			}
			b, err := io.ReadAll(broker)
			if silent := time.Since(begun); silent != want || err != nil || len(b) > 0 {
				t.Errorf("keep-alive %v: after %v the broker got %x, %v", keepAlive, silent, b, err)
			}
		})
	}
}

// A device that takes nothing is disconnected.
func TestSlowDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, device, broker := pipes(t, 0)
		defer device.Close()
		begun := time.Now()
		go a.serve()
		p, err := mqtt.Append(nil, &mqtt.Publish{Topic: meterResp, Payload: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = broker.Write(p)
		}
		if took := time.Since(begun); took != a.limits.Write {
			t.Errorf("after %v", took)
		}
	})
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

// Shutdown does not wait for a broker that does not answer, nor for a device that
// has not said CONNECT.
func TestShutdownWhileConnecting(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connections stay in its backlog
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f := newFixture(t, silent.Addr().String(), policy.Config{}, func(c *Config) { c.Limits.Connect = time.Hour })
	device := f.site.AE("meter7", meter7)
	connecting, idle := f.dial(device), f.dial(device)
	connecting.send(&mqtt.Connect{CleanSession: true, ClientID: "x"})
	f.eventually(func() bool {
		f.server.mu.Lock()
		defer f.server.mu.Unlock()
		return len(f.server.associations) == 2 && len(f.server.sessions) == 1
	})
	done := make(chan error)
	go func() { done <- f.server.Shutdown(t.Context()) }()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Shutdown waits")
	}
	connecting.closed()
	idle.closed()
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

// The CSE learns an address at which it reaches the device by way of the broker,
// and no other; the device gets the gateway's back.
func TestContacts(t *testing.T) {
	n := testNames(is{stems: []string{"Cmeter7"}})
	c := &contacts{broker: "mqtt://127.0.0.1:1883", public: "mqtts://gateway:8883"}
	for address, want := range map[string]string{ // "": refused
		"/in-cse/Cmeter7":                          "/in-cse/Cmeter7",
		"in-cse/box/ae":                            "in-cse/box/ae",
		"mqtts://gateway:8883":                     c.broker,
		"mqtt://anything/":                         c.broker,
		"mqtt://host/Cmeter7":                      c.broker + "/Cmeter7",
		"mqtt://host/Cmeter7?ct=json":              c.broker + "/Cmeter7?ct=json",
		"mqtt://host/" + meterReq[1:]:              "", // a request as from the device
		"mqtt://h/oneM2M/req/in-cse/Cmeter7/json":  c.broker + "/oneM2M/req/in-cse/Cmeter7/json",
		"mqtt://h/oneM2M/req/in-cse/Cmeter8/json":  "",
		"mqtt://h/oneM2M/resp/Cmeter7/in-cse/json": "",
		"mqtt://host/Cmeter8":                      "",
		"mqtt://host/%43meter7":                    "",
		"mqtt://host/Cmeter7?ct=xml":               "",
		"mqtt://host/Cmeter7#x":                    "",
		"mqtt://user@host/Cmeter7":                 "",
		"mqtt:Cmeter7":                             "",
		"mqtt://":                                  "",
		"http://127.0.0.1:8080/admin":              "",
		"coap://host":                              "",
		"ws://default":                             "",
	} {
		got, err := c.toCSE(n, address)
		if got != want || (err != nil) != (want == "") {
			t.Errorf("toCSE(%q) = %q, %v", address, got, err)
		}
	}

	b := newBroker(t, nil)
	b.handle = func(s *session, p *mqtt.Publish) {
		for _, address := range []string{"gateway", "http:"} {
			if strings.Contains(string(p.Payload), address) {
				t.Errorf("the CSE got %s", p.Payload)
			}
		}
		v := must(primitive.ParseRequest(must(primitive.Parse(p.Payload))))
		resp := &primitive.Response{Status: 2000, RequestID: v.RequestID, Content: v.Content}
		s.send(&mqtt.Publish{Topic: meterResp, Payload: resp.Value().Append(nil)})
	}
	f := newFixture(t, b.address(), policy.Config{}, func(c *Config) { c.Public = "mqtts://gateway:8883" })
	client := f.connect(f.site.AE("meter7", meter7))
	for content, status := range map[string]string{
		`{"m2m:sub":{"nu":["mqtts://gateway:8883/Cmeter7","/in-cse/Cmeter7"],"su":"mqtt://x"}}`: "mqtts://gateway:8883/Cmeter7",
		`{"m2m:sub":{"nu":["http://10.0.0.1/"]}}`:                                               "4000",
		`{"m2m:sub":{"NU":["http://10.0.0.1/"]}}`:                                               "4000",
		`{"m2m:sub":{"nu":[["http://10.0.0.1/"]]}}`:                                             "4000",
		`{"m2m:sub":{"nu":["10.0.0.1:80/x"]}}`:                                                  "4000",
		`{"m2m:sub":{"nfu":"http://10.0.0.1/"}}`:                                                "4000",
		`{"m2m:dac":{"dap":["http://10.0.0.1/"]}}`:                                              "4000",
		`{"m2m:sub":{"nu":[]}}`:                                                                 "2000",
	} {
		client.send(&mqtt.Publish{Topic: meterReq,
			Payload: []byte(`{"op":1,"ty":23,"to":"in-cse/box","fr":"Cmeter7","rqi":"x","pc":` + content + `}`)})
		if p := client.read().(*mqtt.Publish); !strings.Contains(string(p.Payload), status) {
			t.Errorf("%s: %s", content, p.Payload)
		}
	}
	for rt, status := range map[string]string{
		`{"rtv":1,"nu":["http://10.0.0.1/"]}`: "4000", `{"rtv":1,"NU":["http://10.0.0.1/"]}`: "4000",
		`[{"rtv":1,"nu":["http://10.0.0.1/"]}]`: "4000", `{"rtv":1,"x":{"nu":["http://10.0.0.1/"]}}`: "4000", `{"rtv":1,"nu":["mqtt://gateway"]}`: "2000", `{"rtv":3}`: "2000",
	} {
		client.send(&mqtt.Publish{Topic: meterReq, Payload: []byte(`{"op":2,"to":"in-cse/box","fr":"Cmeter7","rqi":"x","rt":` + rt + `}`)})
		if p := client.read().(*mqtt.Publish); !strings.Contains(string(p.Payload), status) {
			t.Errorf("response type %s: %s", rt, p.Payload)
		}
	}
}
