package mafd

import (
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/onem2m"
)

// TestExample loads the configuration in the documentation, and demands that
// it shows every key, with a value other than zero: else it documents nothing.
func TestExample(t *testing.T) {
	c := Config{}
	if err := c.LoadFile("../../docs/mafd.toml"); err != nil {
		t.Fatal(err)
	}
	if err := c.Validate("docs/mafd.toml"); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/mafd.toml")
	if err != nil {
		t.Fatal(err)
	}
	shown := configfile.Shown(text)
	for key := range c.settings() {
		if shown[key] == 0 {
			t.Errorf("docs/mafd.toml does not show %s", key)
		}
	}
	if len(c.FQDNs) != 2 || len(c.Handshake.Suites) != 5 {
		t.Errorf("not what the file says: %+v", c)
	}
	// Where a comment doesn't say otherwise, the file shows the default.
	d := Defaults()
	c.Handshake.TLS, c.Handshake.DTLS, c.Handshake.Suites = d.Handshake.TLS, d.Handshake.DTLS, nil
	c.Keyset = d.Keyset
	c.State, c.Store, c.FQDNs, c.KeyAPI, c.Admin = d.State, d.Store, d.FQDNs, d.KeyAPI, d.Admin
	c.Telemetry = d.Telemetry
	c.Audit.Folder, c.Audit.Syslog = d.Audit.Folder, d.Audit.Syslog
	if !reflect.DeepEqual(c, d) {
		t.Errorf("docs/mafd.toml shows other defaults:\n%+v\n%+v", c, d)
	}
}

func TestParse(t *testing.T) {
	c := Defaults()
	problems := c.spec().Parse([]byte(`
state = "keys"
fqdns = ["MAF.example.com"]
handshake.dtls = []
handshake = { timeout = "1m30s", max_concurrent = 7, require_extended_master_secret = true }
[log]
level = "debug"
[keyapi]
listen = ["[::1]:0"]
`), "/etc/mafd")
	// TOML doesn't allow to extend a table that dots have opened.
	if len(problems) != 1 || problems[0].Line != 5 {
		t.Fatalf("problems: %+v", problems)
	}
	c = Defaults()
	problems = c.spec().Parse([]byte(`
state = "keys"
fqdns = ["MAF.example.com"]
handshake = { dtls = [], timeout = "1m30s", max_concurrent = 7, require_extended_master_secret = true }
log.level = "debug"
[keyapi]
listen = ["[::1]:0"]
`), "/etc/mafd")
	if len(problems) != 0 {
		t.Fatalf("problems: %+v", problems)
	}
	want := Defaults()
	want.State = "/etc/mafd/keys"
	want.FQDNs = []onem2m.FQDN{"maf.example.com"}
	want.Handshake.DTLS = []string{}
	want.Handshake.Timeout = 90 * time.Second
	want.Handshake.MaxConcurrent = 7
	want.Handshake.RequireExtendedMasterSecret = true
	want.Log.Level = slog.LevelDebug
	want.KeyAPI.Listen = []string{"[::1]:0"}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// TestProblems lists what each mistake is answered with: all mistakes of a file
// at once, each with its line, and what to do.
func TestProblems(t *testing.T) {
	long := "/" + strings.Repeat("x", 110)
	for _, c := range []struct {
		name, config string
		want         []string
	}{
		{"syntax", "state = \n", []string{
			`c.toml:1: is not valid TOML: `}},
		{"twice", "[log]\nlevel = \"info\"\nlevel = \"info\"\n", []string{
			`c.toml:3: is not valid TOML: `}},
		{"unknown keys", "stat = \"/x\"\n[handshake]\ntimout = \"1s\"\n[logs]\nlevel = \"info\"\n[keyapi]\ntimeout = \"2s\"\n[zoo]\nkeeper = 1\n", []string{
			`c.toml:1: stat is not a key that mafd knows; did you mean state?`,
			`c.toml:3: handshake.timout is not a key that mafd knows; did you mean handshake.timeout?`,
			`c.toml:4: logs is not a key that mafd knows; docs/mafd.toml lists them all`,
			`c.toml:7: keyapi.timeout is not a key that mafd knows; did you mean handshake.timeout?`,
			`c.toml:8: zoo is not a key that mafd knows; docs/mafd.toml lists them all`}},
		{"types", "state = 1\nfqdns = \"maf.example.com\"\n[handshake]\nrequire_extended_master_secret = \"yes\"\nmax_concurrent = \"7\"\ntimeout = 30\ntls = [1, true]\n[log]\nlevel = 2020-01-01\nformat = {a = 1}\n", []string{
			`c.toml:1: state must be a text in quotes, not the number 1`,
			`c.toml:2: fqdns must be a list such as ["a", "b"], not the text "maf.example.com"`,
			`c.toml:4: handshake.require_extended_master_secret must be true or false without quotes, not the text "yes"`,
			`c.toml:5: handshake.max_concurrent must be a whole number without quotes, not the text "7"`,
			`c.toml:6: handshake.timeout must be a time with its unit in quotes, such as "30s" or "24h", not the number 30`,
			`c.toml:7: handshake.tls holds the number 1 where a text in quotes belongs, and holds true where a text in quotes belongs`,
			`c.toml:9: log.level must be a text in quotes, not a date or time`,
			`c.toml:10: log.format must be a text in quotes, not a table`}},
		{"values", "fqdns = [\"maf example\", \"a.example\", \"A.example\"]\n[handshake]\ntls = [\"7443\", \":http\", \"h:70000\", \"h:07\"]\nsuites = [\"TLS_FOO\"]\nmax_concurrent = 0\nidle_timeout = \"soon\"\ntimeout = \"1ms\"\n[log]\nlevel = \"loud\"\nformat = \"xml\"\n", []string{
			`c.toml:1: fqdns holds "maf example", which is not a domain name such as maf.example.com, and holds "A.example" twice`,
			`c.toml:3: handshake.tls holds "7443", which is not host:port such as "127.0.0.1:7443" or "[::]:7443", and holds ":http", whose port is not a number from 0 to 65535, and holds "h:70000", whose`,
			`c.toml:4: handshake.suites holds "TLS_FOO", which is not one of TLS_`,
			`c.toml:5: handshake.max_concurrent must be from 1 to 10000000, not 0`,
			`c.toml:6: handshake.idle_timeout must be a time with its unit, such as "30s" or "24h", not "soon"`,
			`c.toml:7: handshake.timeout must be from 1s to 10m, not 1ms`,
			`c.toml:9: log.level must be one of debug, info, warn, error, not "loud"`,
			`c.toml:10: log.format must be one of text, json, not "xml"`}},
		{"together", "state = \"/x\"\nfqdns = []\nkeyapi = { certificate = \"c\" }\n[handshake]\ntls = []\ndtls = []\n[keys]\ndefault_lifetime = \"2s\"\n[admin]\nsocket = \"" + long + "\"\n", []string{
			`c.toml:2: fqdns is empty; name at least one MAF-FQDN, such as ["maf.example.com"]`,
			`c.toml:3: keyapi.certificate and keyapi.key go together`,
			`c.toml:5: handshake.tls and handshake.dtls are both empty, so no device could get in`,
			`c.toml:8: keys.default_lifetime is below keys.min_lifetime`,
			`c.toml:10: admin.socket is too long for a Unix socket`}},
		{"store", "[store]\npostgres = \"postgres://mafd:secret@db.example.com/maf\"\npassword_file = \"p\"\n", []string{
			`c.toml:2: store.postgres must hold no password; put it into a file and name that with store.password_file`}},
		{"store's kind", "[store]\npostgres = \"mysql://db.example.com/maf\"\n", []string{
			`c.toml:2: store.postgres must be a URL such as postgres://mafd@db.example.com/maf`}},
		{"keyset", "[keyset]\nkek = \"vault:mafd\"\nprevious_kek = \"file:\"\n", []string{
			`c.toml:2: keyset.kek must be like "file:PATH", "credential:NAME" or "transit:KEY", not "vault:mafd"`,
			`c.toml:3: keyset.previous_kek must be like "file:PATH", "credential:NAME" or "transit:KEY", not "file:"`}},
		{"keyset's service", "[keyset]\nkek = \"transit:mafd\"\n[keyset.transit]\nurl = \"https://vault/v1/transit\"\n", []string{
			`configuration: keyset.transit.token_file is missing`}},
		{"keyset twice", "[keyset]\nkek = \"file:a\"\nprevious_kek = \"file:a\"\n", []string{
			`configuration: keyset.previous_kek is the same as keyset.kek`}},
		{"store's password", "[store]\npassword_file = \"p\"\n", []string{
			`configuration: store.password_file is for PostgreSQL; set store.postgres too, or remove it`}},
		{"lifetimes", "[keys]\ndefault_lifetime = \"1500ms\"\nmin_lifetime = \"2500ms\"\nmax_lifetime = \"9000h\"\n", []string{
			`c.toml:2: keys.default_lifetime must be from 2s to 8784h, not 1.5s`,
			`c.toml:3: keys.min_lifetime must be in whole seconds, not 2.5s`,
			`c.toml:4: keys.max_lifetime must be from 2s to 8784h, not 9000h`}},
		{"lifetime above", "[keys]\ndefault_lifetime = \"1000h\"", []string{
			`configuration: keys.default_lifetime is above keys.max_lifetime; lower it or raise the maximum`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "c.toml")
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
			config := Defaults()
			err := config.LoadFile(path)
			if err == nil {
				err = config.Validate("")
			}
			if err == nil {
				t.Fatal("the configuration was accepted")
			}
			lines := strings.Split(strings.ReplaceAll(err.Error(), dir+"/", ""), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d problems, want %d:\n%v", len(lines), len(c.want), err)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("got  %s\nwant %s", lines[i], want)
				}
			}
		})
	}
}

func TestConfigFileTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.toml")
	if err := os.WriteFile(path, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	c := Defaults()
	if err := c.LoadFile(path); err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("got %v", err)
	}
}

func FuzzConfig(f *testing.F) {
	example, err := os.ReadFile("../../docs/mafd.toml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte("handshake = { timeout = \"1s\", tls = [] }"))
	f.Add([]byte("[[handshake]]\n\"a.b\" = 1\n\"\" = 2\n'' . x = 3"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Defaults()
		problems := c.spec().Parse(data, "/")
		for _, p := range problems {
			if p.Text == "" {
				t.Errorf("a problem without words: %+v", p)
			}
		}
	})
}
