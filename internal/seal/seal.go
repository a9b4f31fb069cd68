// Package seal encrypts the keys in the store.
package seal

// Keyset seals and opens boxes.
type Keyset struct{}

// Create makes a keyset file with one new key; the file must not exist.
func Create(path string) (*Keyset, error) { panic("not yet") }

// Load reads a keyset file.
func Load(path string) (*Keyset, error) { panic("not yet") }

// Seal closes plaintext into a box that opens only with the same associated data.
func (k *Keyset) Seal(plaintext, associatedData []byte) ([]byte, error) { panic("not yet") }

// Open opens a box.
func (k *Keyset) Open(box, associatedData []byte) ([]byte, error) { panic("not yet") }
