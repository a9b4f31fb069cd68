package gateway

import (
	"log/slog"
	"net/netip"
	"time"

	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/gateway/coapgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

// Config is everything an operator can set. docs/mafgw.toml describes each key.
type Config struct {
	// State is the folder of what the gateway learns and makes.
	State string
	// CSE is the CSE behind the gateway, absolute.
	CSE onem2m.CSEID
	// MAFs are the base URLs of each MAF's key API, with blanks between.
	MAFs map[onem2m.FQDN]string
	// Certificate, Key and CA are PEM files: Entity B's own for the key API, and
	// who vouches for the MAFs there ("": the system's).
	Certificate, Key, CA string

	Allowed    []policy.Allowance
	Reserved   []string // nil: policy.DefaultReserved
	Registrees []onem2m.CSEID

	Handshake HandshakeConfig
	HTTP      HTTPConfig
	CoAP      CoAPConfig
	MQTT      MQTTConfig
	Telemetry TelemetryConfig
	Log       LogConfig
	// ShutdownGrace is how long requests under way may go on when the gateway is
	// told to stop.
	ShutdownGrace time.Duration
}

// HandshakeConfig is what devices' handshakes are held to; see saef.EntityB.
type HandshakeConfig struct {
	Suites                          []uint16 // nil for the engine's defaults
	RequireExtendedMasterSecret     bool
	Timeout                         time.Duration
	MaxConcurrent                   int // on each listener
	MaxPerSource                    int // 0: no limit
	FailureBurst, FailuresPerSecond int // a burst of 0: no limit
	UnknownBurst, UnknownPerSecond  int // a burst of 0: no limit
}

// HTTPConfig is the HTTP binding; see httpgw. It is off without Listen, though
// its backend may serve CoAP devices.
type HTTPConfig struct {
	Listen  []string
	Backend string // URL of the CSE
	// Public is the URL that devices get where the CSE names one of Addresses.
	Public    string
	Addresses []string

	KeepAlive               bool
	MaxConns                int
	MaxPolls, MaxIdle       int
	MaxRequest, MaxResponse int
	Timeout, MaxTimeout     time.Duration
	Hidden                  []string // nil: httpgw.DefaultHidden

	MaxContent     int
	ConnsPerDevice int
	IdleTimeout    time.Duration
	NotifyListen   []string
	Notify         string // URL
	NotifyNetworks []netip.Prefix
	NotifyFrom     []netip.Prefix
}

// CoAPConfig is the CoAP binding; see coapgw. It is off without Listen.
type CoAPConfig struct {
	Listen []string
	// Backend is the CSE's host:port; "" for the HTTP binding's backend.
	Backend                 string
	Dialect                 coapgw.Dialect
	Release                 string
	MaxType                 int
	BlockSize               int
	MaxRequest, MaxResponse int
	MaxOutstanding          int
	Observe                 bool
	Timeout, MaxTimeout     time.Duration

	MaxContent            int
	AssociationsPerDevice int
	IdleTimeout           time.Duration
	NotifyListen          []string
	Notify                string // host:port
	NotifyFrom            []netip.Prefix
}

// MQTTConfig is the MQTT binding; see mqttgw. It is off without Listen.
type MQTTConfig struct {
	Listen                 []string
	Broker                 string // host:port
	Contact, Public        string // URLs
	Username, PasswordFile string
	CSENames               []string // nil: the CSE-ID
	MaxPacket, MaxDelivery int
	ConnsPerDevice         int
}

// TelemetryConfig is the listener for metrics and health.
type TelemetryConfig struct {
	Listen []string
}

// LogConfig is the log on standard error.
type LogConfig struct {
	Level  slog.Level
	Format string // "text" or "json"
	Access string // which requests are logged: "all", "refused" or "none"
}

// Defaults returns what holds for keys that the configuration does not name.
func Defaults() Config {
	return Config{
		Handshake: HandshakeConfig{
			Timeout:           15 * time.Second,
			MaxConcurrent:     4096,
			FailureBurst:      16_384,
			FailuresPerSecond: 50,
			UnknownBurst:      256,
			UnknownPerSecond:  32,
		},
		HTTP: HTTPConfig{
			KeepAlive: true,
			MaxConns:  256, MaxPolls: 8192, MaxIdle: 64, MaxRequest: 0, MaxResponse: 8 << 20,
			Timeout: 30 * time.Second, MaxTimeout: time.Hour,
			MaxContent: 1 << 20, ConnsPerDevice: 16, IdleTimeout: time.Hour,
		},
		CoAP: CoAPConfig{
			Release: "3", MaxType: 48, BlockSize: 1024, Observe: true,
			MaxRequest: 48_000, MaxResponse: 1 << 20, MaxOutstanding: 16,
			Timeout: 30 * time.Second, MaxTimeout: time.Hour,
			MaxContent: 64_000, AssociationsPerDevice: 4, IdleTimeout: 24 * time.Hour,
		},
		MQTT: MQTTConfig{MaxPacket: 256 << 10, MaxDelivery: 1 << 20, ConnsPerDevice: 16},
		Log:  LogConfig{Level: slog.LevelInfo, Format: "text", Access: "all"},

		ShutdownGrace: 10 * time.Second,
	}
}

// LoadFile reads the configuration file at path over c. Relative paths in it
// are relative to its folder. Call Validate afterwards.
func (c *Config) LoadFile(path string) error { return c.spec().ReadFile(path) }

// Validate checks c as a whole. file, for messages, may be empty.
func (c *Config) Validate(file string) error { return configfile.Check(file, c.problems()) }

func (c *Config) spec() configfile.Spec {
	return configfile.Spec{
		Program:  "mafgw",
		Manual:   "docs/mafgw.toml",
		Settings: c.settings(),
		Whole:    c.problems,
	}
}

const (
	second, day = time.Second, 24 * time.Hour
	million     = 1_000_000
)

// settings names every key of the configuration file, with the function that
// reads its value into c.
func (c *Config) settings() map[string]configfile.Setter {
	all := map[string]configfile.Setter{
		"state":          configfile.Path(&c.State),
		"cse":            configfile.Text(absoluteCSE(&c.CSE)),
		"maf":            mafs(&c.MAFs),
		"certificate":    configfile.Path(&c.Certificate),
		"key":            configfile.Path(&c.Key),
		"ca":             configfile.Path(&c.CA),
		"allow":          allowances(&c.Allowed),
		"reserved":       configfile.List(&c.Reserved, originator),
		"registrees":     configfile.List(&c.Registrees, onem2m.ParseCSEID),
		"shutdown_grace": configfile.Duration(&c.ShutdownGrace, 0, 10*time.Minute),

		"telemetry.listen": configfile.Addresses(&c.Telemetry.Listen),
		"log.level":        configfile.Level(&c.Log.Level),
		"log.format":       configfile.Choice(&c.Log.Format, "text", "json"),
		"log.access":       configfile.Choice(&c.Log.Access, "all", "refused", "none"),
	}
	c.Handshake.settings(all)
	c.HTTP.settings(all)
	c.CoAP.settings(all)
	c.MQTT.settings(all)
	return all
}

func (h *HandshakeConfig) settings(all map[string]configfile.Setter) {
	all["handshake.suites"] = configfile.Suites(&h.Suites)
	all["handshake.require_extended_master_secret"] = configfile.Bool(&h.RequireExtendedMasterSecret)
	all["handshake.timeout"] = configfile.Duration(&h.Timeout, second, 10*time.Minute)
	all["handshake.max_concurrent"] = configfile.Int(&h.MaxConcurrent, 1, 10*million)
	all["handshake.max_per_source"] = configfile.Int(&h.MaxPerSource, 0, 10*million)
	all["handshake.failure_burst"] = configfile.Int(&h.FailureBurst, 0, 10*million)
	all["handshake.failures_per_second"] = configfile.Int(&h.FailuresPerSecond, 1, million)
	all["handshake.unknown_burst"] = configfile.Int(&h.UnknownBurst, 0, 10*million)
	all["handshake.unknown_per_second"] = configfile.Int(&h.UnknownPerSecond, 1, million)
}

func (h *HTTPConfig) settings(all map[string]configfile.Setter) {
	all["http.listen"] = configfile.Addresses(&h.Listen)
	all["http.backend"] = configfile.Text(baseURL(&h.Backend, "http"))
	all["http.public"] = configfile.Text(baseURL(&h.Public, "http", "https"))
	all["http.addresses"] = configfile.Addresses(&h.Addresses)
	all["http.keep_alive"] = configfile.Bool(&h.KeepAlive)
	all["http.max_conns"] = configfile.Int(&h.MaxConns, 1, million)
	all["http.max_polls"] = configfile.Int(&h.MaxPolls, 1, million)
	all["http.max_idle"] = configfile.Int(&h.MaxIdle, 1, million)
	all["http.max_request"] = configfile.Int(&h.MaxRequest, 0, 1<<30)
	all["http.max_response"] = configfile.Int(&h.MaxResponse, 1<<10, 1<<30)
	all["http.timeout"] = configfile.Duration(&h.Timeout, second, time.Hour)
	all["http.max_timeout"] = configfile.Duration(&h.MaxTimeout, second, day)
	all["http.hidden"] = configfile.List(&h.Hidden, anything)
	all["http.max_content"] = configfile.Int(&h.MaxContent, 1<<10, 1<<30)
	all["http.conns_per_device"] = configfile.Int(&h.ConnsPerDevice, 1, million)
	all["http.idle_timeout"] = configfile.Duration(&h.IdleTimeout, second, 30*day)
	all["http.notify_listen"] = configfile.Addresses(&h.NotifyListen)
	all["http.notify_url"] = configfile.Text(baseURL(&h.Notify, "http"))
	all["http.notify_networks"] = configfile.List(&h.NotifyNetworks, network)
	all["http.notify_from"] = configfile.List(&h.NotifyFrom, network)
}

func (k *CoAPConfig) settings(all map[string]configfile.Setter) {
	all["coap.listen"] = configfile.Addresses(&k.Listen)
	all["coap.backend"] = configfile.Text(hostPort(&k.Backend))
	all["coap.dialect"] = configfile.Text(dialect(&k.Dialect))
	all["coap.release"] = configfile.Text(func(s, _ string) error { k.Release = s; return nil })
	all["coap.max_type"] = configfile.Int(&k.MaxType, 0, 65_535)
	all["coap.block_size"] = configfile.Int(&k.BlockSize, 16, 1024)
	all["coap.max_request"] = configfile.Int(&k.MaxRequest, 1<<10, 1<<24)
	all["coap.max_response"] = configfile.Int(&k.MaxResponse, 1<<10, 1<<24)
	all["coap.max_outstanding"] = configfile.Int(&k.MaxOutstanding, 1, 10_000)
	all["coap.observe"] = configfile.Bool(&k.Observe)
	all["coap.timeout"] = configfile.Duration(&k.Timeout, second, time.Hour)
	all["coap.max_timeout"] = configfile.Duration(&k.MaxTimeout, second, day)
	all["coap.max_content"] = configfile.Int(&k.MaxContent, 1<<10, 1<<24)
	all["coap.associations_per_device"] = configfile.Int(&k.AssociationsPerDevice, 1, million)
	all["coap.idle_timeout"] = configfile.Duration(&k.IdleTimeout, second, 30*day)
	all["coap.notify_listen"] = configfile.Addresses(&k.NotifyListen)
	all["coap.notify_address"] = configfile.Text(hostPort(&k.Notify))
	all["coap.notify_from"] = configfile.List(&k.NotifyFrom, network)
}

func (m *MQTTConfig) settings(all map[string]configfile.Setter) {
	all["mqtt.listen"] = configfile.Addresses(&m.Listen)
	all["mqtt.broker"] = configfile.Text(hostPort(&m.Broker))
	all["mqtt.contact"] = configfile.Text(baseURL(&m.Contact, "mqtt", "mqtts"))
	all["mqtt.public"] = configfile.Text(baseURL(&m.Public, "mqtts", "mqtt"))
	all["mqtt.username"] = configfile.Text(func(s, _ string) error { m.Username = s; return nil })
	all["mqtt.password_file"] = configfile.Path(&m.PasswordFile)
	all["mqtt.cse_names"] = configfile.List(&m.CSENames, topicName)
	all["mqtt.max_packet"] = configfile.Int(&m.MaxPacket, 1<<10, 1<<28)
	all["mqtt.max_delivery"] = configfile.Int(&m.MaxDelivery, 1<<10, 1<<28)
	all["mqtt.conns_per_device"] = configfile.Int(&m.ConnsPerDevice, 1, million)
}

// problems returns what is wrong with c as a whole: each setting may be fine by
// itself.
func (c *Config) problems() []configfile.Problem {
	var all []configfile.Problem
	report := func(wrong bool, key, text string) {
		if wrong {
			all = append(all, configfile.Problem{Key: key, Text: text})
		}
	}
	report(c.CSE.IsZero(), "cse", `is missing; set the absolute CSE-ID of the CSE behind, such as "//sp.example.com/in-cse"`)
	report(len(c.MAFs) == 0, "maf", `is missing; name a MAF and its key API: maf = { "maf.example.com" = ["https://maf.example.com:7444"] }`)
	report(c.Certificate == "" || c.Key == "", "certificate", `and key are needed to ask the MAF for keys; "maf entity-b add" makes them`)

	h, k, m := &c.HTTP, &c.CoAP, &c.MQTT
	report(len(h.Listen)+len(k.Listen)+len(m.Listen) == 0, "http.listen", "and coap.listen and mqtt.listen are all empty, so no device could get in; list an address in one of them")
	report(len(h.Listen) > 0 && h.Backend == "", "http.backend", `is missing; set the URL of the CSE, such as "http://127.0.0.1:8080"`)
	report(len(h.Addresses) > 0 && h.Public == "", "http.addresses", "needs http.public, which stands in their place")
	report((len(h.NotifyListen) == 0) != (h.Notify == ""), "http.notify_listen", "and http.notify_url go together: where the gateway listens for the CSE's notifications, and what the CSE calls that")
	report(len(k.Listen) > 0 && k.Backend == "" && h.Backend == "", "coap.backend", `is missing; set the address of the CSE, such as "127.0.0.1:5683", or http.backend to cross over to HTTP`)
	report((len(k.NotifyListen) == 0) != (k.Notify == ""), "coap.notify_listen", "and coap.notify_address go together: where the gateway listens for the CSE's notifications, and what the CSE calls that")
	report(k.BlockSize&(k.BlockSize-1) != 0, "coap.block_size", "must be a power of two")
	report(len(m.Listen) > 0 && m.Broker == "", "mqtt.broker", `is missing; set the address of the broker, such as "127.0.0.1:1883"`)
	report(m.PasswordFile != "" && m.Username == "", "mqtt.password_file", "needs mqtt.username")
	return all
}
