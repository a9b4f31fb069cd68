package mafd

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/store/pgstore"
	"github.com/onem2m-maf/maf/onem2m"
)

// Config is everything an operator can set. docs/mafd.toml describes each key.
type Config struct {
	// State is the folder of the key store and all else that mafd keeps.
	State  string
	Store  StoreConfig
	Keyset KeysetConfig
	// FQDNs are the MAF-IDs served, at least one.
	FQDNs     []onem2m.FQDN
	Handshake HandshakeConfig
	Keys      KeysConfig
	KeyAPI    KeyAPIConfig
	Admin     AdminConfig
	Audit     AuditConfig
	Telemetry TelemetryConfig
	Log       LogConfig

	// Sockets are those that the service manager has opened, by name: tls, dtls,
	// keyapi and telemetry. They are used instead of the addresses. No file sets
	// them.
	Sockets map[string][]*os.File
}

// StoreConfig says where the key store and its keyset are, when not in the state
// folder.
type StoreConfig struct {
	Postgres     string // URL of a database that nodes share; empty for the embedded store
	PasswordFile string // empty for libpq's own ways
	Keyset       string // file; empty for keyset in the state folder
}

// HandshakeConfig is the MAF Handshake endpoint.
type HandshakeConfig struct {
	TLS, DTLS []string // host:port to listen on
	// Suites in order of preference; nil for the engine's defaults.
	Suites                      []uint16
	RequireExtendedMasterSecret bool
	Timeout                     time.Duration // for a whole handshake
	IdleTimeout                 time.Duration // for a session after its handshake
	// MaxConcurrent is how many handshakes may be under way at once, for each of
	// TLS and DTLS, and how many sessions may be open after theirs.
	MaxConcurrent int
	// MaxPerSource, when not 0, is how many of them may be of one source.
	MaxPerSource int
	// FailureBurst is how many handshakes of one source may fail at once, and
	// FailuresPerSecond in the long run. A burst of 0 sets no limit.
	FailureBurst, FailuresPerSecond int
	// DeviceBurst is how many Kcs one device may get at once, and DeviceInterval
	// after how long it may get one more. A burst of 0 sets no limit.
	DeviceBurst    int
	DeviceInterval time.Duration
	// ShutdownGrace is how long handshakes in flight may go on when mafd is
	// told to stop.
	ShutdownGrace time.Duration
}

// KeysConfig bounds the life of a Kc.
type KeysConfig struct {
	DefaultLifetime, MinLifetime, MaxLifetime time.Duration
}

// KeyAPIConfig is the key API. With empty Certificate and Key mafd's own
// authority issues the server's certificate; with empty ClientCA the same
// authority vouches for the Entity Bs.
type KeyAPIConfig struct {
	Listen                     []string
	Certificate, Key, ClientCA string // PEM files
}

// AdminConfig is the admin API.
type AdminConfig struct {
	Socket string // path; empty for admin.sock in the state folder
	// AllowKeyExport lets who may use the admin API read master keys.
	AllowKeyExport bool
}

// TelemetryConfig is the listener for metrics and health.
type TelemetryConfig struct {
	Listen []string
}

// LogConfig is the log on standard error.
type LogConfig struct {
	Level  slog.Level
	Format string // "text" or "json"
}

// Defaults returns the configuration of a mafd that nobody has configured yet.
// It serves this machine only, so that it is safe to try. State is empty: see
// adminapi.DefaultState.
func Defaults() Config {
	return Config{
		FQDNs: []onem2m.FQDN{"maf.localhost"}, // RFC 6761: never leaves the machine
		Handshake: HandshakeConfig{
			TLS:               []string{"127.0.0.1:7443"},
			DTLS:              []string{"127.0.0.1:7443"},
			Timeout:           30 * time.Second,
			IdleTimeout:       30 * time.Second,
			MaxConcurrent:     10_000,
			FailureBurst:      20_000,
			FailuresPerSecond: 50,
			DeviceBurst:       200,
			DeviceInterval:    10 * time.Second,
			ShutdownGrace:     10 * time.Second,
		},
		Keys: KeysConfig{
			DefaultLifetime: 24 * time.Hour,
			MinLifetime:     time.Minute,
			MaxLifetime:     30 * 24 * time.Hour,
		},
		KeyAPI: KeyAPIConfig{Listen: []string{"127.0.0.1:7444"}},
		Audit: AuditConfig{
			Enabled: true, Handshakes: "buffered", OnFailure: "continue",
			FileSize: 64, MinFree: 256,
		},
		Log: LogConfig{Level: slog.LevelInfo, Format: "text"},
	}
}

// ownAuthority reports whether mafd's own authority vouches for Entity Bs.
func (c *Config) ownAuthority() bool { return c.KeyAPI.ClientCA == "" }

// socket is where the admin API listens.
func (c *Config) socket() string {
	if c.Admin.Socket != "" {
		return c.Admin.Socket
	}
	return filepath.Join(c.State, adminapi.SocketName)
}

// LoadFile reads the configuration file at path over c. Relative paths in it
// are relative to its folder. Call Validate afterwards.
func (c *Config) LoadFile(path string) error { return c.spec().ReadFile(path) }

// Validate checks c as a whole. file, for messages, may be empty.
func (c *Config) Validate(file string) error { return configfile.Check(file, c.problems()) }

func (c *Config) spec() configfile.Spec {
	return configfile.Spec{
		Program:  "mafd",
		Manual:   "docs/mafd.toml",
		Settings: c.settings(),
		Whole: func() []configfile.Problem {
			if c.State == "" { // the caller's to fill in, and to check then
				return nil
			}
			return c.problems()
		},
	}
}

// lifetime reads a lifetime of Kc: what it lets through, the authority takes.
func lifetime(p *time.Duration) configfile.Setter {
	set := configfile.Duration(p, authority.MinLifetime, authority.MaxLifetime)
	return func(value any, dir string) error {
		err := set(value, dir)
		if err == nil && *p%time.Second != 0 {
			err = fmt.Errorf("must be in whole seconds, not %s", configfile.Short(*p))
		}
		return err
	}
}

// postgresURL reads where the shared store is.
func postgresURL(p *string) configfile.Setter {
	return configfile.Text(func(s, _ string) error {
		switch err := pgstore.CheckURL(s); {
		case errors.Is(err, pgstore.ErrPassword):
			return errors.New("must hold no password; put it into a file and name that with store.password_file")
		case err != nil && s != "":
			return errors.New("must be a URL such as postgres://mafd@db.example.com/maf")
		}
		*p = s
		return nil
	})
}

// settings names every key of the configuration file, with the function that
// reads its value into c.
func (c *Config) settings() map[string]configfile.Setter {
	h, k := &c.Handshake, &c.Keys
	all := map[string]configfile.Setter{
		"state":               configfile.Path(&c.State),
		"store.postgres":      postgresURL(&c.Store.Postgres),
		"store.password_file": configfile.Path(&c.Store.PasswordFile),
		"store.keyset":        configfile.Path(&c.Store.Keyset),
		"fqdns":               configfile.FQDNs(&c.FQDNs),
		"handshake.tls":       configfile.Addresses(&h.TLS),
		"handshake.dtls":      configfile.Addresses(&h.DTLS),
		"handshake.suites":    configfile.Suites(&h.Suites),
		"handshake.require_extended_master_secret": configfile.Bool(&h.RequireExtendedMasterSecret),
		"handshake.timeout":                        configfile.Duration(&h.Timeout, time.Second, 10*time.Minute),
		"handshake.idle_timeout":                   configfile.Duration(&h.IdleTimeout, time.Second, time.Hour),
		"handshake.max_concurrent":                 configfile.Int(&h.MaxConcurrent, 1, 10_000_000),
		"handshake.max_per_source":                 configfile.Int(&h.MaxPerSource, 0, 10_000_000),
		"handshake.failure_burst":                  configfile.Int(&h.FailureBurst, 0, 10_000_000),
		"handshake.failures_per_second":            configfile.Int(&h.FailuresPerSecond, 1, 1_000_000),
		"handshake.device_burst":                   configfile.Int(&h.DeviceBurst, 0, 10_000_000),
		"handshake.device_interval":                configfile.Duration(&h.DeviceInterval, time.Millisecond, 24*time.Hour),
		"handshake.shutdown_grace":                 configfile.Duration(&h.ShutdownGrace, 0, 10*time.Minute),
		"keys.default_lifetime":                    lifetime(&k.DefaultLifetime),
		"keys.min_lifetime":                        lifetime(&k.MinLifetime),
		"keys.max_lifetime":                        lifetime(&k.MaxLifetime),
		"keyapi.listen":                            configfile.Addresses(&c.KeyAPI.Listen),
		"keyapi.certificate":                       configfile.Path(&c.KeyAPI.Certificate),
		"keyapi.key":                               configfile.Path(&c.KeyAPI.Key),
		"keyapi.client_ca":                         configfile.Path(&c.KeyAPI.ClientCA),
		"admin.socket":                             configfile.Path(&c.Admin.Socket),
		"admin.allow_key_export":                   configfile.Bool(&c.Admin.AllowKeyExport),
		"audit.enabled":                            configfile.Bool(&c.Audit.Enabled),
		"audit.folder":                             configfile.Path(&c.Audit.Folder),
		"audit.syslog":                             configfile.Text(syslogTarget(&c.Audit.Syslog)),
		"audit.handshakes":                         configfile.Choice(&c.Audit.Handshakes, "buffered", "durable"),
		"audit.on_failure":                         configfile.Choice(&c.Audit.OnFailure, "continue", "refuse"),
		"audit.file_size":                          configfile.Int(&c.Audit.FileSize, 1, 1<<20),
		"audit.min_free":                           configfile.Int(&c.Audit.MinFree, 0, 1<<30),
		"telemetry.listen":                         configfile.Addresses(&c.Telemetry.Listen),
		"log.level":                                configfile.Level(&c.Log.Level),
		"log.format":                               configfile.Choice(&c.Log.Format, "text", "json"),
	}
	maps.Copy(all, c.Keyset.settings())
	return all
}

// maxSocketPath is what the smallest of the systems in use allows, less the
// final NUL.
const maxSocketPath = 103

// problems returns what is wrong with c as a whole: each setting may be fine
// by itself.
func (c *Config) problems() []configfile.Problem {
	var all []configfile.Problem
	report := func(key, text string) { all = append(all, configfile.Problem{Key: key, Text: text}) }

	if len(c.FQDNs) == 0 {
		report("fqdns", `is empty; name at least one MAF-FQDN, such as ["maf.example.com"]`)
	}
	if len(c.Handshake.TLS)+len(c.Handshake.DTLS) == 0 {
		report("handshake.tls", "and handshake.dtls are both empty, so no device could get in; list an address in one of them")
	}
	if k := &c.Keys; k.MinLifetime > k.DefaultLifetime {
		report("keys.default_lifetime", "is below keys.min_lifetime; raise it or lower the minimum")
	} else if k.DefaultLifetime > k.MaxLifetime {
		report("keys.default_lifetime", "is above keys.max_lifetime; lower it or raise the maximum")
	}
	if key, text := c.Keyset.problem(); key != "" {
		report(key, text)
	}
	if c.Store.PasswordFile != "" && c.Store.Postgres == "" {
		report("store.password_file", "is for PostgreSQL; set store.postgres too, or remove it")
	}
	if (c.KeyAPI.Certificate == "") != (c.KeyAPI.Key == "") {
		report("keyapi.certificate", "and keyapi.key go together; set both, or neither to use a certificate of mafd's own authority")
	}
	if n := len(c.socket()); n > maxSocketPath {
		report("admin.socket", "is too long for a Unix socket; set a path of at most 103 characters, such as /run/mafd/admin.sock")
	}
	return all
}

// host returns the host of an address that has been validated, "" for any.
func host(address string) string {
	h, _, _ := net.SplitHostPort(address)
	return h
}
