// Package seal encrypts the keys in the store, so that the store's file, a
// backup of it or a stolen disk tells nobody a key.
//
// A Keyset is a Tink keyset of XChaCha20-Poly1305 keys: its 192-bit random
// nonces need no counter that would have to survive a crash or a restored
// backup, and have no practical limit on how many boxes one key seals (AES-GCM's
// would be 2^32). A box is 45 octets longer than what is in it: 5 that name the
// key in the keyset, the nonce, and the tag.
//
// # Rotation
//
// One key of the set, the primary, seals; all of them open. Add brings a new key
// in, Promote makes it the primary, and when nothing in the store is sealed with
// an old key any more, Retire destroys that. Each change is on stable storage
// before it counts: nothing is ever sealed with a key that a power cut could
// take away.
//
// Several processes may share the file. Each looks at it when it meets a box of
// a key that it does not know, and when Refresh is called, so that a change made
// by one reaches the others.
//
// # The keyset file
//
// The file is the root of everything at rest, so it belongs somewhere else than
// the store's backups. It is readable by its owner only, and, where File.KEK is
// set, encrypted with a key that lives elsewhere (package kek).
package seal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

var (
	// ErrPermissions: somebody besides the owner may read or change the file.
	ErrPermissions = errors.New("seal: the keyset file must be accessible to its owner only (chmod 600)")
	// ErrOpen: the box was not sealed by this keyset for this associated data,
	// or it was changed since. There is no way to know which.
	ErrOpen = errors.New("seal: the box does not open with this keyset and associated data")
	// ErrNoKey: the keyset has no key of that ID.
	ErrNoKey = errors.New("seal: there is no such key in the keyset")
	// ErrPrimary: the key can't be retired, since it is what seals.
	ErrPrimary = errors.New("seal: the key is the primary")
)

// KeyID names a key of a keyset.
type KeyID uint32

// BoxKey returns which key of its keyset a box names. Whoever writes a box may
// write any name into it: only Open tells whether it is true.
func BoxKey(box []byte) (id KeyID, ok bool) {
	if len(box) < PrefixLength || box[0] != 1 { // Tink's "TINK" prefix
		return 0, false
	}
	return KeyID(binary.BigEndian.Uint32(box[1:])), true
}

// PrefixLength is how many octets at its beginning name a box's key.
const PrefixLength = 5

// Key tells about one key of a keyset.
type Key struct {
	ID      KeyID
	Primary bool
	Created time.Time // zero when the file does not tell
	// Demoted is when the key stopped being the primary; zero when it never was,
	// and when the file does not tell.
	Demoted time.Time
}

// Keyset seals and opens boxes. It may be used from any goroutine.
type Keyset struct {
	file File
	ring atomic.Pointer[ring]

	mu     sync.Mutex  // one file operation at a time
	seen   fs.FileInfo // of the file that ring is of; guarded by mu
	failed time.Time   // when Open last failed to read a changed file; guarded by mu
}

// ring is a keyset as one state of the file holds it. It does not change.
type ring struct {
	handle *keyset.Handle
	aead   tink.AEAD
	keys   []Key
	kek    string // what the file was encrypted with, "" for nothing
}

func newRing(handle *keyset.Handle, dates []keyDates, kek string) (*ring, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, errors.New("the keyset holds something else than AEAD keys")
	}
	r := &ring{handle: handle, aead: primitive, kek: kek}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return nil, err
		}
		key := Key{ID: KeyID(entry.KeyID()), Primary: entry.IsPrimary()}
		for _, d := range dates {
			if d.ID == key.ID {
				key.Created, key.Demoted = d.Created, d.Demoted
			}
		}
		r.keys = append(r.keys, key)
	}
	return r, nil
}

func (r *ring) find(id KeyID) (Key, bool) {
	for _, k := range r.keys {
		if k.ID == id {
			return k, true
		}
	}
	return Key{}, false
}

// Seal encrypts plaintext into a box that opens only with the same associated
// data.
func (k *Keyset) Seal(plaintext, associatedData []byte) ([]byte, error) {
	box, err := k.ring.Load().aead.Encrypt(plaintext, associatedData)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return box, nil
}

// Open returns what is in the box, or ErrOpen.
func (k *Keyset) Open(box, associatedData []byte) ([]byte, error) {
	r := k.ring.Load()
	plaintext, err := r.aead.Decrypt(box, associatedData)
	if err != nil && k.learn(box, r) {
		plaintext, err = k.ring.Load().aead.Decrypt(box, associatedData)
	}
	if err != nil {
		return nil, ErrOpen
	}
	return plaintext, nil
}

// learn looks into the file for the key that a box names and r does not have:
// another process may have added it and sealed with it since. It reports whether
// the keyset has changed.
func (k *Keyset) learn(box []byte, r *ring) bool {
	id, ok := BoxKey(box)
	if _, known := r.find(id); !ok || known {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	// Many may come at once, and a key service that does not answer must not
	// make each of them wait for it.
	if k.ring.Load() == r && time.Since(k.failed) > time.Second {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if _, err := k.refresh(ctx); err != nil {
			k.failed = time.Now()
		}
	}
	return k.ring.Load() != r
}

// Current reports whether the box names the key that seals now.
func (k *Keyset) Current(box []byte) bool {
	id, ok := BoxKey(box)
	return ok && id == k.Primary()
}

// Primary returns the key that seals now.
func (k *Keyset) Primary() KeyID {
	for _, key := range k.ring.Load().keys {
		if key.Primary {
			return key.ID
		}
	}
	return 0 // Tink lets no keyset be without
}

// Keys tells about all keys, the oldest first.
func (k *Keyset) Keys() []Key { return k.ring.Load().keys }

// Protection says what the file is encrypted with, "" for nothing.
func (k *Keyset) Protection() string { return k.ring.Load().kek }

// Configured says what Protect will encrypt the file with, "" for nothing.
func (k *Keyset) Configured() string {
	if k.file.KEK == nil {
		return ""
	}
	return k.file.KEK.String()
}
