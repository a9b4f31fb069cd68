package mafd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

// TestAuthorityStays: the authority made at the first start is the one of all
// later starts, and a lost public copy comes back.
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
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	again, err := s.authority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil || string(public) != string(first.CertificatePEM()) || string(public) != string(again.CertificatePEM()) {
		t.Errorf("the authority changed (%v)", err)
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
	if _, err := s.database(t.Context()); err == nil || !strings.Contains(err.Error(), "restore it from a backup") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(s.file(keysetName)); err == nil {
		t.Error("a keyset was made")
	}
}
