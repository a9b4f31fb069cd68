package mafd

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/pki"
)

func TestStateIsLocked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v %v", info.Mode(), err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "another mafd runs") {
		t.Errorf("a second mafd on the same state: %v", err)
	}
	s.close()
	s, err = openState(dir)
	if err != nil {
		t.Fatalf("after the first has gone: %v", err)
	}
	s.close()
}

func TestStateOpenToOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "chmod 0700") {
		t.Errorf("got %v", err)
	}
}

// TestStateOfAnotherUser: the error says what to do.
func TestStateOfAnotherUser(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("left out: root may write everywhere")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "-state") {
		t.Errorf("got %v", err)
	}
}

// TestStateOfOrdinaryUser: root's mafd keeps no keys in somebody's folder.
func TestStateOfOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("left out: only root can give a folder away")
	}
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("got %v", err)
	}
}

// TestClockNotSet: an authority is made once, for years, so not in 1970.
func TestClockNotSet(t *testing.T) {
	s, err := openState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if _, err := s.authority(time.Unix(60, 0)); err == nil || !strings.Contains(err.Error(), "clock says 1970-01-01") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(s.file(caKeyName)); err == nil {
		t.Error("an authority was made")
	}
}

// TestClockSetBack: the key API's certificate is made anew when the clock shows
// that it was made in what is the future now.
func TestClockSetBack(t *testing.T) {
	ca, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	clock := time.Now().Add(5 * 365 * 24 * time.Hour)
	own := &ownCertificate{ca: ca, names: []string{"localhost"}, now: func() time.Time { return clock }}
	get := func() *x509.Certificate {
		t.Helper()
		cert, err := own.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		if clock.Before(cert.Leaf.NotBefore) || clock.After(cert.Leaf.NotAfter) {
			t.Errorf("at %v it is good from %v to %v", clock, cert.Leaf.NotBefore, cert.Leaf.NotAfter)
		}
		return cert.Leaf
	}
	wrong := get()
	clock = time.Now()
	right := get()
	if right.Equal(wrong) {
		t.Error("it is the same certificate")
	}
	clock = clock.Add(serverCertLife/2 - time.Hour)
	if !get().Equal(right) {
		t.Error("it was made anew for nothing")
	}
	clock = clock.Add(2 * time.Hour)
	if get().Equal(right) {
		t.Error("it was not made anew in time")
	}
}

// TestAuthorityStays: the authority made at the first start is the one of all
// later starts, and a public copy that was lost or is another's comes back.
func TestAuthorityStays(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	first, err := s.authority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.made) != 2 {
		t.Errorf("made: %v", s.made)
	}
	for what, spoil := range map[string]func(path string) error{
		"lost":      os.Remove,
		"another's": func(path string) error { return os.WriteFile(path, []byte("another's"), 0o600) },
	} {
		if err := spoil(filepath.Join(dir, "ca.pem")); err != nil {
			t.Fatal(err)
		}
		again, err := s.authority(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		public, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
		if err != nil || string(public) != string(first.CertificatePEM()) || string(public) != string(again.CertificatePEM()) {
			t.Errorf("%s: the authority changed (%v)", what, err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, caKeyName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v %v", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, caKeyName), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.authority(time.Now()); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("a broken authority: %v", err)
	}
}

// TestStoreWithoutKeyset: a new keyset beside an old store would turn every key
// into garbage.
func TestStoreWithoutKeyset(t *testing.T) {
	s, err := openState(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := os.WriteFile(s.file(storeName), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.database(t.Context(), StoreConfig{}, KeysetConfig{}, watcher{}); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(s.file(keysetName)); err == nil {
		t.Error("a keyset was made")
	}
}
