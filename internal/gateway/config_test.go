package gateway

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
)

// TestExample loads the configuration in the documentation, and demands that it
// shows every key, with its default where the comment says nothing else.
func TestExample(t *testing.T) {
	const example = "../../docs/mafgw.toml"
	c := Config{}
	if err := c.LoadFile(example); err != nil {
		t.Fatal(err)
	}
	if _, err := policy.New(c.policy(nil)); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	shown := configfile.Shown(text)
	for key := range c.settings() {
		if shown[key] == 0 {
			t.Errorf("docs/mafgw.toml does not show %s", key)
		}
	}
	if !reflect.DeepEqual(c.Reserved, policy.DefaultReserved()) || !reflect.DeepEqual(c.HTTP.Hidden, httpgw.DefaultHidden) {
		t.Errorf("not the defaults: reserved %q, hidden %q", c.Reserved, c.HTTP.Hidden)
	}
	// What the comments say is no default.
	d := Defaults()
	c.Reserved, c.HTTP.Hidden, c.Handshake.Suites = nil, nil, nil
	c.State, c.CSE, c.MAFs, c.Certificate, c.Key, c.CA, c.Allowed, c.Registrees = d.State, d.CSE, d.MAFs, d.Certificate, d.Key, d.CA, d.Allowed, d.Registrees
	c.HTTP.Listen, c.HTTP.Backend, c.HTTP.Public, c.HTTP.Addresses = nil, "", "", nil
	c.HTTP.NotifyListen, c.HTTP.Notify, c.HTTP.NotifyNetworks, c.HTTP.NotifyFrom = nil, "", nil, nil
	c.CoAP.Listen, c.CoAP.Backend, c.CoAP.Dialect = nil, "", d.CoAP.Dialect
	c.CoAP.NotifyListen, c.CoAP.Notify, c.CoAP.NotifyFrom = nil, "", nil
	c.MQTT.Contact, c.MQTT.Public = "", ""
	c.MQTT.Listen, c.MQTT.Broker, c.MQTT.Username, c.MQTT.PasswordFile, c.MQTT.CSENames = nil, "", "", "", nil
	c.Telemetry = d.Telemetry
	if !reflect.DeepEqual(c, d) {
		t.Errorf("docs/mafgw.toml shows other defaults:\n%+v\n%+v", c, d)
	}
}

// TestProblems lists what mistakes are answered with.
func TestProblems(t *testing.T) {
	const good = "state = \"s\"\ncse = \"//sp.example.com/in-cse\"\ncertificate = \"c\"\nkey = \"k\"\nmaf = { \"maf.example.com\" = \"https://m:1\" }\n"
	for _, c := range []struct {
		name, config string
		want         []string
	}{
		{"nothing", "", []string{
			"c.toml: cse is missing; set the absolute CSE-ID",
			"c.toml: maf is missing; name a MAF",
			"c.toml: certificate and key are needed",
			"c.toml: http.listen and coap.listen and mqtt.listen are all empty"}},
		{"relative CSE-ID", "cse = \"/in-cse\"\n", []string{`c.toml:1: cse must be an absolute CSE-ID such as "//sp.example.com/in-cse", not "/in-cse"`}},
		{"unknown", "[http]\nlisen = []\n", []string{"c.toml:2: http.lisen is not a key that mafgw knows; did you mean http.listen?"}},
		{"MAF in clear", "[maf]\n\"maf.example.com\" = \"http://m:1\"\n", []string{`c.toml:1: maf (maf.example.com) holds "http://m:1", which is not a URL such as "https:`}},
		{"MAF without quotes", "[maf]\nmaf.example.com = \"https://m:1\"\n", []string{`c.toml:1: maf (maf) must be a list`}},
		{"allowances", "[[allow]]\nkmid = \"x\"\n", []string{"c.toml:1: allow (number 1) must have kmid, and either ae or cse"}},
		{"allowances' keys", "[[allow]]\nkmid = \"x\"\nae = [\"C*\"]\n[[allow]]\nkmid = \"x\"\naes = []\n", []string{`c.toml:1: allow (number 2) has "aes", which is not one of kmid, ae, most, cse`}},
		{"no backends", good + "[http]\nlisten = [\":1\"]\n[coap]\nlisten = [\":1\"]\nblock_size = 100\n[mqtt]\nlisten = [\":1\"]\n", []string{
			// A key that is not there has its table's line.
			"c.toml:6: http.backend is missing", "c.toml:8: coap.backend is missing",
			"c.toml:10: coap.block_size must be a power of two", "c.toml:11: mqtt.broker is missing"}},
		{"MAF with a path", "[maf]\n\"maf.example.com\" = \"https://m:1/v1\"\n", []string{`c.toml:1: maf (maf.example.com) holds "https://m:1/v1", which is not a URL such as "https:`}},
		{"dialect", "coap.dialect = \"late\"\n", []string{`c.toml:1: coap.dialect must be "release3" or "early", not "late"`}},
		{"name in topics", "mqtt.cse_names = [\"/in-cse\"]\n", []string{`c.toml:1: mqtt.cse_names holds "/in-cse", which is no name in a topic`}},
		{"reserved", "reserved = [\"/in-cse/CAdmin\"]\n", []string{`c.toml:1: reserved holds "/in-cse/CAdmin", which is no AE-ID stem`}},
		{"network", "coap.notify_from = [\"10.0.0.1/8\"]\n", []string{`c.toml:1: coap.notify_from holds "10.0.0.1/8", which is not a network`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := Defaults()
			path := filepath.Join(t.TempDir(), "c.toml")
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			err := config.LoadFile(path)
			if err == nil {
				t.Fatal("no error")
			}
			got := strings.ReplaceAll(err.Error(), path, "c.toml")
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("got\n%s\nwant\n%s", got, want)
				}
			}
		})
	}
}

func FuzzConfig(f *testing.F) {
	f.Add([]byte("maf = { a = [\"https://b\"] }\n[[allow]]\nkmid = \"*\"\nae = [\"C*\"]\n"))
	f.Add([]byte("allow = 1\nmaf = []\nhttp = 7\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Defaults()
		for _, p := range c.spec().Parse(data, "/") {
			if p.Text == "" {
				t.Errorf("a problem without words: %+v", p)
			}
		}
	})
}
