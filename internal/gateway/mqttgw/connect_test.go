package mqttgw

import (
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/gwtest"
	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

const meter7 = "//sp.example.com/in-cse/Cmeter7"

// The CONNECT that the broker gets has the authenticated identity for a ClientID
// and the gateway's credentials, whatever the device's says.
func TestConnect(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	device := f.site.AE("meter7", meter7)
	for _, c := range []struct {
		given *mqtt.Connect
		id    string
	}{
		{&mqtt.Connect{CleanSession: true, KeepAlive: 60, ClientID: "A::in-cse:Cmeter7"}, "A::in-cse:Cmeter7"},
		{&mqtt.Connect{CleanSession: false, ClientID: "mine", HasUsername: true, Username: "admin",
			HasPassword: true, Password: []byte("guess")}, "A::in-cse:Cmeter7;mine"},
		{&mqtt.Connect{CleanSession: true, ClientID: "A::in-cse:Cmeter8"}, "A::in-cse:Cmeter7;A::in-cse:Cmeter8"},
	} {
		client := f.dial(device)
		client.send(c.given)
		s := b.session()
		if p, ok := client.read().(*mqtt.Connack); !ok || p.Code != mqtt.Accepted {
			t.Fatalf("%+v: %+v", c.given, p)
		}
		got := s.connect
		if got.ClientID != c.id || got.Username != "gateway" || string(got.Password) != "secret" ||
			got.CleanSession != c.given.CleanSession || got.KeepAlive != c.given.KeepAlive || got.Will != nil {
			t.Errorf("%+v became %+v", c.given, got)
		}
		client.send(mqtt.Signal(mqtt.TypeDisconnect))
		if p := s.next(); p != mqtt.Signal(mqtt.TypeDisconnect) {
			t.Errorf("after DISCONNECT the broker got %+v", p)
		}
		client.closed()
	}
}

// No device can have a ClientID that another could have, nor one with a meaning
// of its own to a broker.
func TestClientIDs(t *testing.T) {
	associations := []saef.Association{
		{AEID: must(onem2m.ParseAEID(meter7))},
		{AEID: must(onem2m.ParseAEID("//sp.example.com/in-cse/Cmeter70"))},
		{AEID: must(onem2m.ParseAEID("//sp.example.com/Smeter7"))},
		{AEID: must(onem2m.ParseAEID("//other.example.com/in-cse/Cmeter7"))},
		{CSEID: must(onem2m.ParseCSEID("//sp.example.com/mn-cse"))},
		{KmID: must(onem2m.ParseKmID("meter7@maf.example.com"))},
		{KmID: must(onem2m.ParseKmID("meter8@maf.example.com"))},
	}
	var given []string
	for _, a := range associations {
		given = append(given, identityClientID(a, testCSE), "x;"+identityClientID(a, testCSE))
	}
	given = append(given, "", "x", "+", "#", "a/b", ";x", "ü", strings.Repeat("x", 64), strings.Repeat("x", 65), "=", "$SYS")
	seen := make(map[string]string)
	for _, a := range associations {
		for _, g := range given {
			id := clientID(a, testCSE, g)
			who := a.Peer() + " as " + g
			if other, taken := seen[id]; taken {
				t.Errorf("%s and %s are both %q", who, other, id)
			}
			seen[id] = who
			if !strings.HasPrefix(id, identityClientID(a, testCSE)) || strings.ContainsAny(id, "/+# \x00") || len(id) > 300 {
				t.Errorf("%s is %q", who, id)
			}
			if g != "" && clientID(a, testCSE, g) != id {
				t.Errorf("%s has no lasting session", who)
			}
		}
	}
}

func TestConnectRefused(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	device := f.site.AE("meter7", meter7)
	for name, c := range map[string]struct {
		octets string
		code   mqtt.ConnackCode // 0: closed without a word
	}{
		"MQTT 3.1":               {"\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a", mqtt.UnacceptableProtocol},
		"MQTT 5":                 {"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a", mqtt.UnacceptableProtocol},
		"no ClientID, not clean": {"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00", mqtt.IdentifierRejected},
		"PINGREQ first":          {"\xc0\x00", 0},
		"PUBLISH first":          {"\x30\x05\x00\x03a/b", 0},
		"malformed":              {"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a", 0},
		"too large":              {"\x10\xff\xff\x7f", 0},
		"HTTP":                   {"GET / HTTP/1.1\r\nHost: in-cse.sp.example.com\r\nUser-Agent: a browser of some length\r\n\r\n", 0},
	} {
		client := f.dial(device)
		client.write([]byte(c.octets))
		if c.code != 0 {
			if p, ok := client.read().(*mqtt.Connack); !ok || p.Code != c.code {
				t.Errorf("%s: %+v", name, p)
			}
		}
		client.closed()
	}
	if n := len(b.sessions); n != 0 {
		t.Errorf("the broker got %d connections", n)
	}
}

// What follows CONNECT is checked too.
func TestMisbehavingDevice(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, nil)
	device := f.site.AE("meter7", meter7)
	for name, octets := range map[string]string{
		"a second CONNECT": "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a",
		"CONNACK":          "\x20\x02\x00\x00",
		"SUBACK":           "\x90\x03\x00\x01\x00",
		"UNSUBACK":         "\xb0\x02\x00\x01",
		"PINGRESP":         "\xd0\x00",
		"wildcard PUBLISH": "\x30\x05\x00\x03a/#",
		"too large":        "\x30\x80\x80\x20",
	} {
		client := f.connect(device)
		s := b.session()
		client.write([]byte(octets))
		client.closed()
		if p := s.next(); p != nil {
			t.Errorf("%s: the broker got %+v", name, p)
		}
	}
}

func TestBrokerRefusesOrIsAway(t *testing.T) {
	away := newBroker(t, nil)
	away.l.Close()
	unwilling := newBroker(t, nil)
	unwilling.code = mqtt.BadCredentials
	for name, b := range map[string]*testBroker{"away": away, "unwilling": unwilling} {
		f := newFixture(t, b.address(), policy.Config{}, nil)
		client := f.dial(f.site.AE("meter7", meter7))
		client.send(&mqtt.Connect{CleanSession: true, ClientID: "x"})
		if p, ok := client.read().(*mqtt.Connack); !ok || p.Code != mqtt.ServerUnavailable {
			t.Errorf("%s: %+v", name, p)
		}
		client.closed()
	}
}

// One master key can have so many connections, and so many sessions that last,
// and no more; others are not hindered.
func TestLimitsOfOneKey(t *testing.T) {
	b := newBroker(t, nil)
	f := newFixture(t, b.address(), policy.Config{}, func(c *Config) { c.Limits.Connections = 2 })
	device := f.site.AE("meter7", meter7)
	connect := func(d *saef.Device, id string, clean bool) (*client, mqtt.ConnackCode) {
		c := f.dial(d)
		c.send(&mqtt.Connect{ClientID: id, CleanSession: clean})
		return c, c.read().(*mqtt.Connack).Code
	}
	first, _ := connect(device, "1", true)
	_, code := connect(device, "2", true)
	if _, third := connect(device, "3", true); code != mqtt.Accepted || third != mqtt.ServerUnavailable {
		t.Errorf("connections: %d, then %d", code, third)
	}
	if _, code := connect(f.site.AE("other", "//sp.example.com/in-cse/Cother"), "1", true); code != mqtt.Accepted {
		t.Errorf("another device: %d", code)
	}
	first.conn.Close()

	lamp := f.site.AE("lamp", "//sp.example.com/in-cse/Clamp")
	for _, c := range []struct {
		id    string
		clean bool
		code  mqtt.ConnackCode
	}{
		{"1", false, mqtt.Accepted}, {"2", false, mqtt.Accepted}, {"3", false, mqtt.ServerUnavailable},
		{"1", false, mqtt.Accepted}, {"3", true, mqtt.Accepted},
		{"1", true, mqtt.Accepted}, {"3", false, mqtt.Accepted}, // a clean session makes room
	} {
		client, code := connect(lamp, c.id, c.clean)
		if code != c.code {
			t.Errorf("ClientID %s, clean %v: %d, want %d", c.id, c.clean, code, c.code)
		}
		client.conn.Close()
		f.idle("lamp")
	}
}

// idle waits until a device of the site has no connection.
func (f *fixture) idle(name string) {
	f.t.Helper()
	id := must(onem2m.ParseKmID(name + "@" + gwtest.FQDN.String()))
	f.eventually(func() bool {
		f.server.mu.Lock()
		defer f.server.mu.Unlock()
		k := f.server.sessions[id]
		return k == nil || k.connections == 0
	})
}
