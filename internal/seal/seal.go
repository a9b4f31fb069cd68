// Package seal encrypts the keys in the store, so that the store's file, a
// backup of it or a stolen disk tells nobody a key.
//
// A Keyset is a Tink keyset of XChaCha20-Poly1305 keys: its 192-bit random
// nonces need no counter that would have to survive a crash or a restored
// backup, and have no practical limit on how many boxes one key seals (AES-GCM's
// would be 2^32). A box is 45 octets longer than what is in it: 5 that name the
// key in the keyset, the nonce, and the tag.
//
// # The keyset file
//
// The file is a Tink keyset in JSON, in the clear, readable by its owner only.
// It is the root of everything at rest, so it belongs somewhere else than the
// store's backups. Wrapping it with a key from another file on the same machine
// would add a file and no security, so this package doesn't; a key-encryption
// key that lives elsewhere (a KMS, an HSM) is what would.
package seal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/onem2m-maf/maf/internal/wholefile"
)

var (
	// ErrPermissions: somebody besides the owner may read or change the file.
	ErrPermissions = errors.New("seal: the keyset file must be accessible to its owner only (chmod 600)")
	// ErrOpen: the box was not sealed by this keyset for this associated data,
	// or it was changed since. There is no way to know which.
	ErrOpen = errors.New("seal: the box does not open with this keyset and associated data")
)

// Keyset seals and opens boxes. It may be used from any goroutine.
type Keyset struct {
	aead tink.AEAD
}

// Create makes a new keyset and writes it to path, which must not exist yet
// (errors.Is(err, fs.ErrExist) when it does). When it returns nil, the file is
// on stable storage.
func Create(path string) (*Keyset, error) {
	handle, err := keyset.NewHandle(aead.XChaCha20Poly1305KeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	var file bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&file)); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	defer clear(file.Bytes())
	// Only once the file is safe may a box be sealed that needs it.
	if err := wholefile.Create(path, file.Bytes(), 0o600); err != nil {
		return nil, fmt.Errorf("seal: creating the keyset file: %w", err)
	}
	return newKeyset(handle)
}

// Load reads the keyset at path (errors.Is(err, fs.ErrNotExist) when there is
// none). It refuses a file that is open to anybody but its owner.
func Load(path string) (*Keyset, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	defer f.Close()
	// Ask the open file, not the path, which may lead elsewhere by now.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("seal: %s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%w: %s has mode %#o", ErrPermissions, path, uint32(mode))
	}
	handle, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("seal: %s does not hold a keyset: %w", path, err)
	}
	return newKeyset(handle)
}

// maxFile is far beyond any keyset, and keeps a wrong path from filling memory.
const maxFile = 1 << 20

func read(r io.Reader) (*keyset.Handle, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return nil, err
	}
	defer clear(data)
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		// The parser's error may quote the file, which is a secret.
		return nil, errors.New("it is not a Tink keyset in JSON")
	}
	return handle, nil
}

func newKeyset(handle *keyset.Handle) (*Keyset, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("seal: the keyset holds something else than AEAD keys")
	}
	return &Keyset{primitive}, nil
}

// Seal encrypts plaintext into a box that opens only with the same associated
// data.
func (k *Keyset) Seal(plaintext, associatedData []byte) ([]byte, error) {
	box, err := k.aead.Encrypt(plaintext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return box, nil
}

// Open returns what is in the box, or ErrOpen.
func (k *Keyset) Open(box, associatedData []byte) ([]byte, error) {
	plaintext, err := k.aead.Decrypt(box, associatedData)
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}
