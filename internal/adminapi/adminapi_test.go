package adminapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
)

func TestDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0:                             "0s",
		time.Second:                   "1s",
		10 * time.Minute:              "10m",
		90 * time.Second:              "1m30s",
		24 * time.Hour:                "24h",
		time.Hour + time.Minute:       "1h1m",
		time.Hour + 10*time.Second:    "1h0m10s",
		-time.Hour:                    "-1h",
		20 * time.Hour:                "20h",
		time.Hour + 1*time.Nanosecond: "1h0m0.000000001s",
	} {
		d := Duration(in)
		if d.String() != want {
			t.Errorf("%v shows as %q, want %q", in, d, want)
		}
		var back Duration
		if err := back.UnmarshalText([]byte(d.String())); err != nil || back != d {
			t.Errorf("%q reads as %v (%v)", d, back, err)
		}
	}
	var d Duration
	if err := json.Unmarshal([]byte(`"1 day"`), &d); err == nil {
		t.Error("1 day is read")
	}
}

// TestKey: the one key that goes over the wire as it is still does not print.
func TestKey(t *testing.T) {
	raw := []byte("sixteen octets!!")
	k := Key{secret.New(raw)}
	text, err := json.Marshal(CreatedClient{Km: k})
	if err != nil {
		t.Fatal(err)
	}
	var back CreatedClient
	if err := json.Unmarshal(text, &back); err != nil || !back.Km.Equal(k.Key) {
		t.Errorf("after JSON the key is another (%v)", err)
	}
	if text, err := json.Marshal(CreatedClient{}); err != nil || string(text) != `{"kmID":"","entityB":"","disabled":false}` {
		t.Errorf("the empty client is %s (%v)", text, err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		if s := fmt.Sprintf(format, back); strings.Contains(s, string(raw)) || strings.Contains(s, fmt.Sprintf("%x", raw)) {
			t.Errorf("%s shows the key: %s", format, s)
		}
	}
}

func TestDefaultState(t *testing.T) {
	for _, c := range []struct{ systemd, xdg, home, want string }{
		{"/var/lib/mafd", "/x", "/home/me", "/var/lib/mafd"},
		{"/var/lib/mafd:/var/lib/other", "", "/home/me", "/var/lib/mafd"},
		{"", "/x", "/home/me", "/x/mafd"},
		{"", "relative", "/home/me", "/home/me/.local/state/mafd"},
		{"", "", "/home/me", "/home/me/.local/state/mafd"},
		{"", "", "", ""},
	} {
		t.Setenv("STATE_DIRECTORY", c.systemd)
		t.Setenv("XDG_STATE_HOME", c.xdg)
		t.Setenv("HOME", c.home)
		got, err := DefaultState()
		if got != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%+v: %q, %v", c, got, err)
		}
	}
}

func TestDefaultSocket(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", dir)
	t.Setenv(SocketVariable, "/named.sock")
	if got, err := DefaultSocket(); err != nil || got != "/named.sock" {
		t.Errorf("named: %q, %v", got, err)
	}
	t.Setenv(SocketVariable, "")
	own := filepath.Join(dir, "mafd", SocketName)
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := DefaultSocket(); err != nil || got != own {
		t.Errorf("one's own: %q, %v", got, err)
	}
}
