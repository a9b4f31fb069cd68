package mafd

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/audit"
)

// auditLogOf verifies a log and returns its lines, without what is of the log
// itself.
func auditLogOf(t *testing.T, folder string) (lines []audit.Line) {
	t.Helper()
	files, err := audit.Files(folder)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := audit.Verify(files); err != nil || !r.Good() {
		t.Fatalf("%+v, %v", r, err)
	}
	for line, err := range audit.Lines(files) {
		if err != nil {
			t.Fatal(err)
		}
		if line.Kind != audit.File {
			line.Text = bytes.Clone(line.Text)
			lines = append(lines, line)
		}
	}
	return lines
}

// TestAudit: what was done is in the log, in order, with who did it.
func TestAudit(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	uid := fmt.Sprintf("uid:%d", os.Geteuid())
	km := m.add(t, meterID, nil)
	certificate := m.certificate(t, cityCSE)
	for _, network := range []string{"tcp", "udp"} {
		established, err := m.device(t, network, meterID, km).Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.keys(t, certificate).Get(t.Context(), established.KcID); err != nil {
			t.Fatal(err)
		}
		if err := m.admin.RevokeKey(t.Context(), established.KcID); err != nil {
			t.Fatal(err)
		}
		if _, err := m.keys(t, certificate).Get(t.Context(), established.KcID); err == nil {
			t.Fatal("a revoked key was released")
		}
	}
	disabled := true
	if _, err := m.admin.Change(t.Context(), kmID(t, meterID), adminapi.ClientChange{Disabled: &disabled}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err == nil {
		t.Fatal("a disabled device got a key")
	}
	m.reload(func() (Config, error) { return config, nil }, new(slog.LevelVar))
	if err := m.admin.Remove(t.Context(), kmID(t, meterID)); err != nil {
		t.Fatal(err)
	}
	m.stop(t)

	admin, device, city := "admin "+uid, "device "+meterID, "entity-b "+cityCSE
	want := []string{
		"mafd.start system ok",
		"client.add " + admin + " intended", "client.add " + admin + " ok",
		"entity-b.issue " + admin + " intended", "entity-b.issue " + admin + " ok",
	}
	for range 2 {
		want = append(want, "handshake "+device+" ok", "key.release "+city+" ok",
			"key.revoke "+admin+" intended", "key.revoke "+admin+" ok", "key.release "+city+" refused")
	}
	want = append(want, "client.change "+admin+" intended", "client.disable "+admin+" ok",
		"handshake unproven "+meterID+" refused", "mafd.reload system ok",
		"client.remove "+admin+" intended", "client.remove "+admin+" ok",
		"mafd.stop system ok")
	var got []string
	for _, l := range auditLogOf(t, filepath.Join(config.State, adminapi.AuditFolder)) {
		words := []string{string(l.Kind), string(l.Role), l.Actor, string(l.Outcome)}
		got = append(got, strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " "))
		if bytes.Contains(l.Text, fmt.Appendf(nil, "%x", km.Bytes())) {
			t.Errorf("a key is in %s", l.Text)
		}
	}
	// A device learns that it is refused before its line is written.
	late := "handshake unproven " + meterID + " refused"
	isLate := func(s string) bool { return s == late }
	if n := len(got); n != len(want) || !slices.Contains(got, late) {
		t.Errorf("%d lines, want %d", n, len(want))
	}
	got, want = slices.DeleteFunc(got, isLate), slices.DeleteFunc(want, isLate)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAuditUnwritable takes the log's folder away: what mafd does then is the
// operator's choice, and when it is back, so is the log.
func TestAuditUnwritable(t *testing.T) {
	for _, c := range []struct {
		onFailure, handshakes string
		serves                bool
	}{
		{"continue", "buffered", true},
		{"continue", "durable", true},
		{"refuse", "buffered", false},
		{"refuse", "durable", false},
	} {
		t.Run(c.onFailure+" "+c.handshakes, func(t *testing.T) {
			config := testConfig(shortDir(t))
			config.Audit.OnFailure, config.Audit.Handshakes = c.onFailure, c.handshakes
			m := startMAF(t, config)
			km := m.add(t, meterID, nil)
			certificate := m.certificate(t, cityCSE)
			established, err := m.device(t, "tcp", meterID, km).Handshake(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			folder := filepath.Join(config.State, adminapi.AuditFolder)
			if err := os.Rename(folder, folder+"-away"); err != nil {
				t.Fatal(err)
			}
			// It is looked for once a second, when there is something to write.
			enabled := false
			change := func() error {
				_, err := m.admin.Change(t.Context(), kmID(t, meterID), adminapi.ClientChange{Disabled: &enabled})
				return err
			}
			waitFor(t, "the trouble", func() bool {
				change() // an error is looked at below
				return m.audit.log.Stats().Unwritable
			})

			if _, err := m.keys(t, certificate).Get(t.Context(), established.KcID); (err == nil) != c.serves {
				t.Errorf("key: %v", err)
			}
			if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); (err == nil) != c.serves {
				t.Errorf("handshake: %v", err)
			}
			if err := change(); (err == nil) != c.serves || err != nil && !strings.Contains(err.Error(), "audit.on_failure") {
				t.Errorf("change: %v", err)
			}
			if !strings.Contains(m.log.String(), "audit: no sink can be written") {
				t.Error("the log does not say so")
			}

			if err := os.Rename(folder+"-away", folder); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the end of the trouble", func() bool { return !m.audit.log.Stats().Unwritable })
			if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err != nil {
				t.Errorf("handshake: %v", err)
			}
			m.stop(t)
			handshakes := 0
			for _, l := range auditLogOf(t, folder) {
				if l.Kind == audit.Handshake && l.Outcome == audit.OK {
					handshakes++
				}
			}
			want := 2
			if c.serves {
				want = 3
			}
			if handshakes != want {
				t.Errorf("%d handshakes are in the log, want %d", handshakes, want)
			}
		})
	}
}

// TestAuditStart: with a log that can't be opened, mafd does as it is told.
func TestAuditStart(t *testing.T) {
	config := testConfig(shortDir(t))
	config.Audit.MinFree = 1 << 30 // MiB
	config.Audit.OnFailure = "refuse"
	if d, err := Start(t.Context(), config, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "the audit log can't be written") {
		t.Fatal(d, err)
	}
	config.Audit.OnFailure = "continue"
	m := startMAF(t, config)
	m.add(t, meterID, nil)
	m.stop(t)
	config.Audit.Enabled = false
	m = startMAF(t, config)
	m.add(t, "meter8@maf.example.com", nil)
}
