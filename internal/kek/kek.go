// Package kek provides the key-encryption keys that the keyset file can be
// encrypted with: 32 octets from a file or a systemd credential, or a key that
// never leaves a service with the interface of Vault's transit engine.
//
// Each is a seal.KEK: an AEAD of Tink's, whose String names it for people.
package kek

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
)

// Size is how many octets a key in a file has.
const Size = 32

// ErrPermissions: somebody besides the owner may read or change the key's file.
var ErrPermissions = errors.New("the key-encryption key must be accessible to its owner only (chmod 600)")

// Local is a key-encryption key in this process's memory. Encryption is
// XChaCha20-Poly1305, whose random nonces have no practical limit.
type Local struct {
	aead *subtle.XChaCha20Poly1305
	name string
}

// File reads a key from a file: exactly 32 octets, and nobody's but its owner's.
//
//	(umask 077; head -c 32 /dev/urandom > kek)
func File(path string) (*Local, error) {
	return read(path, "file", 0o077)
}

// Credential reads a key from a systemd credential (LoadCredential= and
// LoadCredentialEncrypted=), which is a file in the folder that systemd names in
// $CREDENTIALS_DIRECTORY.
func Credential(folder, name string) (*Local, error) {
	if folder == "" {
		return nil, fmt.Errorf("there is no credential %q: $CREDENTIALS_DIRECTORY is not set, as systemd does for a service with LoadCredential=", name)
	}
	if name == "." || name == ".." || filepath.Base(name) != name {
		return nil, fmt.Errorf("%q is not a credential's name", name)
	}
	// Where the service's user is let in by an access control list, that list's
	// mask shows as the group's permissions.
	return read(filepath.Join(folder, name), "credential "+name, 0o037)
}

func read(path, name string, forbidden fs.FileMode) (*Local, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the key-encryption key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); !mode.IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	} else if mode.Perm()&forbidden != 0 {
		return nil, fmt.Errorf("%w: %s has mode %#o", ErrPermissions, path, uint32(mode.Perm()))
	}
	key := make([]byte, Size+1)
	defer clear(key)
	// One octet more is too many. A key with a line's end was not made as it
	// should be: hexadecimal, most likely, of which 32 octets are half a key.
	if n, err := io.ReadFull(f, key); !errors.Is(err, io.ErrUnexpectedEOF) || n != Size {
		return nil, fmt.Errorf("%s does not hold %d octets: make it with head -c %[2]d /dev/urandom", path, Size)
	}
	aead, err := subtle.NewXChaCha20Poly1305(key[:Size:Size])
	if err != nil {
		return nil, err
	}
	return &Local{aead, name}, nil
}

// EncryptWithContext implements seal.KEK.
func (l *Local) EncryptWithContext(_ context.Context, plaintext, associatedData []byte) ([]byte, error) {
	return l.aead.Encrypt(plaintext, associatedData)
}

// DecryptWithContext implements seal.KEK.
func (l *Local) DecryptWithContext(_ context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	return l.aead.Decrypt(ciphertext, associatedData)
}

// String returns where the key comes from.
func (l *Local) String() string { return l.name }

// Format keeps fmt from looking into the key.
func (l *Local) Format(f fmt.State, _ rune) { io.WriteString(f, l.name) }
