package mafd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/internal/wholefile"
)

// Names in the state folder, beside those in adminapi.
const (
	lockName   = "lock"
	storeName  = "maf.db"
	keysetName = "keyset"
	caKeyName  = "ca-key.pem" // with the certificate, so that they can't part
)

// stateDir is the folder that mafd keeps its things in, locked for this
// process.
type stateDir struct {
	path string
	lock *os.File
	// made lists what this start created, with words for people.
	made  [][2]string
	first bool // the key store is among them
}

// openState makes the folder where needed and locks it.
func openState(path string) (*stateDir, error) {
	if err := wholefile.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("%w; name another state folder with -state", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the state folder %s is open to other users (mode %04o), and it holds keys; chmod 0700 it", path, info.Mode().Perm())
	}
	// Only root gets this far in a folder that is not its own.
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return nil, fmt.Errorf("the state folder %s belongs to user %d, who could read its keys; run mafd as its owner, or name another folder with -state", path, owner)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("the state folder is not this user's: %w; run mafd as its owner, or name another folder with -state", err)
	}
	if err != nil {
		return nil, err
	}
	// The kernel drops the lock with the process, however that ends.
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another mafd runs on the state folder %s; stop it, or name another folder with -state", path)
		}
		return nil, fmt.Errorf("locking %s: %w", lock.Name(), err)
	}
	return &stateDir{path: path, lock: lock}, nil
}

// file returns where a file of that name is; a whole path stays what it is.
func (s *stateDir) file(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(s.path, name)
}

// missing reports whether a file is not there, and notes that it will be made.
func (s *stateDir) missing(name, what string) (bool, error) {
	_, err := os.Lstat(s.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		s.made = append(s.made, [2]string{name, what})
		return true, nil
	}
	return false, err
}

// close gives the folder up.
func (s *stateDir) close() { s.lock.Close() }

// authority reads mafd's own certificate authority, or makes it.
func (s *stateDir) authority(now time.Time) (*pki.Authority, error) {
	path := s.file(caKeyName)
	absent, err := s.missing(caKeyName, "a certificate authority for the key API, private")
	if err != nil {
		return nil, err
	}
	if absent {
		if err := s.makeAuthority(path, now); err != nil {
			return nil, err
		}
	}
	private, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(private)
	ca, err := pki.Parse(private)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup, or remove it and issue all Entity B certificates anew", path, err)
	}
	return ca, s.publish(ca)
}

// publish sees to the public copy of the authority's certificate. It comes from
// the private file, which alone counts, and may have come from a backup.
func (s *stateDir) publish(ca *pki.Authority) error {
	if _, err := s.missing(adminapi.CAName, "its certificate, for those who ask the key API"); err != nil {
		return err
	}
	path := s.file(adminapi.CAName)
	if public, err := os.ReadFile(path); err == nil && bytes.Equal(public, ca.CertificatePEM()) {
		return nil
	}
	return wholefile.Write(path, ca.CertificatePEM(), 0o644)
}

// written is about when this was written, so no clock that is right is before it.
var written = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func (s *stateDir) makeAuthority(path string, now time.Time) error {
	// Many machines begin in 1970 until they have found a time server.
	if now.Before(written) {
		return fmt.Errorf("this machine's clock says %s, and a certificate authority made now would be over when it is set; set it first", now.Format(time.DateTime))
	}
	ca, err := pki.New("mafd on "+hostname(), now)
	if err != nil {
		return err
	}
	private, err := ca.Marshal()
	if err != nil {
		return err
	}
	defer clear(private)
	return wholefile.Create(path, private, 0o600)
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "an unnamed machine"
	}
	return name
}

// writeRuntime tells where this daemon is found.
func (s *stateDir) writeRuntime(r adminapi.Runtime) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return wholefile.Write(s.file(adminapi.RuntimeName), append(data, '\n'), 0o600)
}

// removeRuntime undoes it. What stays after a crash misleads nobody for long:
// the next start replaces it.
func (s *stateDir) removeRuntime() { os.Remove(s.file(adminapi.RuntimeName)) }
