package mafd

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
)

// live names the settings that Reload puts to use.
var live = []string{
	"handshake.idle_timeout",
	"handshake.max_per_source",
	"handshake.failure_burst",
	"handshake.failures_per_second",
	"handshake.device_burst",
	"handshake.device_interval",
	"handshake.shutdown_grace",
	"keyapi.certificate",
	"keyapi.key",
	"keyapi.client_ca",
	"log.level",
}

// TestEverySettingReloadsOrNot: each setting is either live or settled.
func TestEverySettingReloadsOrNot(t *testing.T) {
	c := Defaults()
	for key := range c.settings() {
		if _, restart := settled[key]; restart == slices.Contains(live, key) {
			t.Errorf("%s: it must stand in one of settled and live", key)
		}
	}
	if len(settled)+len(live) != len(c.settings()) {
		t.Error("settled or live name settings that there aren't")
	}
}

// TestReloadLimits: limits change while mafd serves, and what needs a restart is
// told and stays as it was.
func TestReloadLimits(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	km := m.add(t, meterID, nil)
	next := config
	next.Handshake.DeviceBurst = 1
	next.Handshake.DeviceInterval = time.Hour
	next.Handshake.ShutdownGrace = time.Second
	next.Handshake.MaxConcurrent = 7
	next.FQDNs = config.FQDNs[:1]
	restart, err := m.Reload(next)
	slices.Sort(restart)
	if err != nil || !slices.Equal(restart, []string{"fqdns", "handshake.max_concurrent"}) {
		t.Fatalf("%q, %v", restart, err)
	}
	if m.grace() != time.Second {
		t.Errorf("the grace is %v", m.grace())
	}
	if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err == nil {
		t.Error("the device got a second key at once")
	}
	if _, err := m.Reload(config); err != nil {
		t.Fatal(err)
	}
	if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err != nil {
		t.Errorf("with the limit gone: %v", err)
	}
}

// TestReloadFile: SIGHUP's work. A file that is wrong changes nothing, and each
// of its problems is in the log.
func TestReloadFile(t *testing.T) {
	dir := shortDir(t)
	config := testConfig(dir)
	m := startMAF(t, config)
	file := filepath.Join(dir, "mafd.toml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	level := &slog.LevelVar{}
	load := func() (Config, error) { return loadConfig(file, config.State) }

	write("[log]\nlevel = \"debug\"\n[handshake]\nidle_timeout = \"7m\"\nmax_concurent = 3\ntimeout = 30\n")
	m.reload(load, level)
	said := m.log.String()
	for _, want := range []string{"line=5 key=handshake.max_concurent", "did you mean handshake.max_concurrent?", "line=6 key=handshake.timeout"} {
		if !strings.Contains(said, want) {
			t.Errorf("the log doesn't say %s:\n%s", want, said)
		}
	}
	if level.Level() != slog.LevelInfo || time.Duration(m.endpoint.idle.Load()) != config.Handshake.IdleTimeout || m.live.Load().Handshake.IdleTimeout != config.Handshake.IdleTimeout {
		t.Error("a part of a wrong file was put to use")
	}

	write("fqdns = [\"maf.example.com\", \"maf.example.net\"]\n[log]\nlevel = \"debug\"\n[handshake]\nidle_timeout = \"7m\"\n")
	m.reload(load, level)
	if level.Level() != slog.LevelDebug || time.Duration(m.endpoint.idle.Load()) != 7*time.Minute {
		t.Error("a good file was not put to use")
	}
	if said := m.log.String(); !strings.Contains(said, "a changed setting needs a restart\" key=handshake.tls") || !strings.Contains(said, "configuration reloaded") {
		t.Errorf("the log:\n%s", said)
	}

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	m.reload(load, level)
	if level.Level() != slog.LevelDebug {
		t.Error("without a file it went back to the defaults")
	}
}

// TestReloadCertificates: the key API shows a new certificate, and believes
// another authority, without closing its sockets; who was let in by the one from
// before is not let on, not even over a connection that is open.
func TestReloadCertificates(t *testing.T) {
	dir := shortDir(t)
	authorities := make([]*pki.Authority, 2)
	clientCA := make([]string, 2)
	for i := range authorities {
		ca, err := pki.New("test", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		authorities[i] = ca
		clientCA[i] = filepath.Join(dir, "ca"+string(rune('0'+i))+".pem")
		if err := os.WriteFile(clientCA[i], ca.CertificatePEM(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := testConfig(dir)
	config.KeyAPI.ClientCA = clientCA[0]
	m := startMAF(t, config)
	m.Runtime.CA = filepath.Join(config.State, "ca.pem")

	entityB := func(i int) *keyclient.Client {
		b, err := authorities[i].EntityB(cseID(t, cityCSE), time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(b.CertificatePEM, b.KeyPEM.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		return m.keys(t, pair)
	}
	unknown := onem2m.KcID{Relative: onem2m.RelativeKeyID{1}, FQDN: served}
	asks := func(c *keyclient.Client) bool {
		_, err := c.Get(t.Context(), unknown)
		return errors.Is(err, keyclient.ErrNotFound)
	}
	first, second := entityB(0), entityB(1)
	if !asks(first) || asks(second) {
		t.Fatal("the authority of the start is not believed, or the other is")
	}
	config.KeyAPI.ClientCA = filepath.Join(dir, "none.pem")
	if _, err := m.Reload(config); err == nil || !asks(first) {
		t.Errorf("with a file that isn't there: %v", err)
	}
	config.KeyAPI.ClientCA = clientCA[1]
	if restart, err := m.Reload(config); err != nil || len(restart) != 0 {
		t.Fatal(restart, err)
	}
	if asks(first) {
		t.Error("a connection of before is let on")
	}
	for range 2 { // the second time over the connection of the first
		if !asks(second) {
			t.Error("the new authority is not believed")
		}
	}
	config.KeyAPI.ClientCA = ""
	if _, err := m.Reload(config); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("from another authority to mafd's own: %v", err)
	}
}
