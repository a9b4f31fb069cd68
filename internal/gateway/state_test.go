package gateway

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A state that can't be read ends the start with the reason.
func TestDamagedState(t *testing.T) {
	for name, damage := range map[string]string{claimsName: "not a file of claims\n", keyName: "short"} {
		folder := filepath.Join(t.TempDir(), "state")
		s, err := openState(folder)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), []byte(damage), 0o600); err != nil {
			t.Fatal(err)
		}
		config := Defaults()
		config.State = folder
		if _, err := Start(config, slog.New(slog.NewTextHandler(io.Discard, nil))); err == nil || !strings.Contains(err.Error(), filepath.Join(folder, name)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
