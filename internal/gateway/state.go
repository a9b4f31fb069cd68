package gateway

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/wholefile"
	"github.com/onem2m-maf/maf/saef"
)

// Names in the state folder.
const (
	lockName   = "lock"
	keyName    = "key"
	claimsName = "ae-ids"
)

const keyLen = 32

// stateDir is what the gateway keeps, locked for this process.
type stateDir struct {
	lock   *os.File
	claims *policy.File
	// key is what request identifiers and the addresses that stand for devices
	// are made with. Whoever has it can make the CSE's notifications go elsewhere.
	key saef.Secret
}

// openState makes the folder where needed, locks and reads it.
func openState(path string) (_ *stateDir, err error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("%w; name another state folder", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the state folder %s is open to other users (mode %04o), and it holds a key; chmod 0700 it", path, info.Mode().Perm())
	}
	s := &stateDir{}
	if s.lock, err = os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.lock.Close()
		}
	}()
	// The kernel drops the lock with the process, however that ends.
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another mafgw runs on the state folder %s; stop it, or give this one a folder of its own", path)
	}
	if s.key, err = readKey(filepath.Join(path, keyName)); err != nil {
		return nil, err
	}
	if s.claims, err = policy.OpenFile(filepath.Join(path, claimsName)); err != nil {
		return nil, err
	}
	return s, nil
}

// readKey reads the key, or makes it.
func readKey(path string) (saef.Secret, error) {
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, keyLen)
		rand.Read(key)
		err = wholefile.Create(path, key, 0o600)
	}
	defer clear(key)
	switch {
	case err != nil:
		return saef.Secret{}, err
	case len(key) != keyLen:
		return saef.Secret{}, fmt.Errorf("%s has %d octets and not %d; restore it from a backup, or remove it: then devices that gave an address have to give it again", path, len(key), keyLen)
	}
	return saef.NewSecret(key), nil
}

// derive returns a key for one purpose.
func (s *stateDir) derive(purpose string) (saef.Secret, error) {
	key, err := hkdf.Expand(sha256.New, s.key.Bytes(), "mafgw "+purpose, keyLen)
	defer clear(key)
	return saef.NewSecret(key), err
}

func (s *stateDir) close() error {
	return errors.Join(s.claims.Close(), s.lock.Close())
}
