package mafd

import (
	"errors"
	"log/slog"
	"reflect"
	"time"

	"github.com/onem2m-maf/maf/internal/configfile"
)

// settled names the settings that only a start puts to use, with where each lies.
// Reload puts the others to use; a test lists those.
var settled = map[string]func(*Config) any{
	"state":                     func(c *Config) any { return c.State },
	"store.postgres":            func(c *Config) any { return c.Store.Postgres },
	"store.password_file":       func(c *Config) any { return c.Store.PasswordFile },
	"store.keyset":              func(c *Config) any { return c.Store.Keyset },
	"keyset.kek":                func(c *Config) any { return c.Keyset.KEK },
	"keyset.previous_kek":       func(c *Config) any { return c.Keyset.Previous },
	"keyset.transit.url":        func(c *Config) any { return c.Keyset.Transit.URL },
	"keyset.transit.token_file": func(c *Config) any { return c.Keyset.Transit.TokenFile },
	"keyset.transit.ca":         func(c *Config) any { return c.Keyset.Transit.CA },
	"keyset.transit.namespace":  func(c *Config) any { return c.Keyset.Transit.Namespace },
	"fqdns":                     func(c *Config) any { return c.FQDNs },
	"handshake.tls":             func(c *Config) any { return c.Handshake.TLS },
	"handshake.dtls":            func(c *Config) any { return c.Handshake.DTLS },
	"handshake.suites":          func(c *Config) any { return c.Handshake.Suites },
	"handshake.require_extended_master_secret": func(c *Config) any { return c.Handshake.RequireExtendedMasterSecret },
	"handshake.timeout":                        func(c *Config) any { return c.Handshake.Timeout },
	"handshake.max_concurrent":                 func(c *Config) any { return c.Handshake.MaxConcurrent },
	"keys.default_lifetime":                    func(c *Config) any { return c.Keys.DefaultLifetime },
	"keys.min_lifetime":                        func(c *Config) any { return c.Keys.MinLifetime },
	"keys.max_lifetime":                        func(c *Config) any { return c.Keys.MaxLifetime },
	"keyapi.listen":                            func(c *Config) any { return c.KeyAPI.Listen },
	"audit.enabled":                            func(c *Config) any { return c.Audit.Enabled },
	"audit.folder":                             func(c *Config) any { return c.Audit.Folder },
	"audit.syslog":                             func(c *Config) any { return c.Audit.Syslog },
	"audit.handshakes":                         func(c *Config) any { return c.Audit.Handshakes },
	"audit.on_failure":                         func(c *Config) any { return c.Audit.OnFailure },
	"audit.file_size":                          func(c *Config) any { return c.Audit.FileSize },
	"audit.min_free":                           func(c *Config) any { return c.Audit.MinFree },
	"admin.allow_key_export":                   func(c *Config) any { return c.Admin.AllowKeyExport },
	"admin.socket":                             func(c *Config) any { return c.Admin.Socket },
	"telemetry.listen":                         func(c *Config) any { return c.Telemetry.Listen },
	"log.format":                               func(c *Config) any { return c.Log.Format },
}

// Reload puts those settings of a configuration to use that can change while mafd
// serves, reads the files of the key API's certificates again, and returns the
// keys whose change needs a restart. The configuration must be valid. When it
// returns an error, nothing has changed. It is not for concurrent use.
func (d *Daemon) Reload(config Config) (restart []string, err error) {
	// 1. Everything that can fail.
	inUse := d.live.Load()
	if config.ownAuthority() != inUse.ownAuthority() {
		return nil, errors.New("keyapi.client_ca: mafd's own authority and another one can't take each other's place while it serves; restart it")
	}
	if (config.KeyAPI.Certificate == "") != (inUse.KeyAPI.Certificate == "") {
		return nil, errors.New("keyapi.certificate: one of mafd's own authority and another one can't take each other's place while it serves; restart it")
	}
	certificates, err := config.keyAPITLS(d.ca)
	if err != nil {
		return nil, err
	}
	// 2. What can't.
	for key, of := range settled {
		if !reflect.DeepEqual(of(&config), of(&d.config)) {
			restart = append(restart, key)
		}
	}
	d.keyAPITLS.replace(certificates)
	d.endpoint.setLimits(&config.Handshake)
	d.loaded(config)
	return restart, nil
}

// loaded notes which configuration is in use.
func (d *Daemon) loaded(config Config) {
	d.live.Store(&config)
	d.metrics.reloadGood.Set(1)
	d.metrics.reloadCompleted.Set(float64(time.Now().Unix()))
}

// grace is how long Stop may take.
func (d *Daemon) grace() time.Duration { return d.live.Load().Handshake.ShutdownGrace }

// reload is what SIGHUP does: load, and on success put to use. What is wrong is
// in the log, each problem in a line of its own, and then all stays as it was.
func (d *Daemon) reload(load func() (Config, error), level *slog.LevelVar) {
	config, err := load()
	var restart []string
	if err == nil {
		restart, err = d.Reload(config)
	}
	d.audit.reloaded(restart, err)
	if err != nil {
		d.metrics.reloadGood.Set(0)
		for _, problem := range problemsOf(err) {
			d.log.Error("the configuration was not reloaded", problem...)
		}
		return
	}
	level.Set(config.Log.Level)
	for _, key := range restart {
		d.log.Warn("a changed setting needs a restart", "key", key)
	}
	d.log.Info("configuration reloaded")
}

// problemsOf returns the attributes of a line for each problem.
func problemsOf(err error) [][]any {
	var whole *configfile.Error
	if !errors.As(err, &whole) {
		return [][]any{{"error", err.Error()}}
	}
	var all [][]any
	for _, p := range whole.Problems {
		all = append(all, []any{"file", whole.File, "line", p.Line, "key", p.Key, "error", p.Text})
	}
	return all
}
