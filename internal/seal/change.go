package seal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/wholefile"
)

// ErrDowngrade: a file that was encrypted is now in the clear.
var ErrDowngrade = errors.New("seal: the keyset file was encrypted and is now in the clear; whoever did that means it by a restart")

// Add brings a new key into the keyset. It opens boxes from now on, and seals
// none until it is promoted.
func (k *Keyset) Add(ctx context.Context) (added Key, err error) {
	err = k.change(ctx, func(m *keyset.Manager, r *ring) ([]Key, error) {
		id, err := m.Add(aead.XChaCha20Poly1305KeyTemplate())
		if err != nil {
			return nil, err
		}
		added = Key{ID: KeyID(id), Created: now()}
		return append(r.keys, added), nil
	})
	return added, err
}

// Promote makes a key the one that seals, or returns ErrNoKey. When it returns
// nil, everything that this process seals from now on is sealed with it.
func (k *Keyset) Promote(ctx context.Context, id KeyID) error {
	return k.change(ctx, func(m *keyset.Manager, r *ring) ([]Key, error) {
		if _, ok := r.find(id); !ok {
			return nil, fmt.Errorf("%w: %d", ErrNoKey, id)
		}
		for i := range r.keys {
			key := &r.keys[i]
			if key.Primary && key.ID != id {
				key.Demoted = now()
			} else if key.ID == id {
				key.Demoted = time.Time{}
			}
		}
		return r.keys, m.SetPrimary(uint32(id))
	})
}

// Retire destroys a key: what is sealed with it opens nevermore. It returns
// ErrNoKey, or ErrPrimary for the key that seals.
func (k *Keyset) Retire(ctx context.Context, id KeyID) error {
	return k.change(ctx, func(m *keyset.Manager, r *ring) ([]Key, error) {
		switch key, ok := r.find(id); {
		case !ok:
			return nil, fmt.Errorf("%w: %d", ErrNoKey, id)
		case key.Primary:
			return nil, fmt.Errorf("%w: %d", ErrPrimary, id)
		}
		return slices.DeleteFunc(r.keys, func(key Key) bool { return key.ID == id }), m.Delete(uint32(id))
	})
}

// Protect writes the file anew, encrypted with File.KEK, or in the clear where
// that is nil.
func (k *Keyset) Protect(ctx context.Context) error {
	return k.change(ctx, func(_ *keyset.Manager, r *ring) ([]Key, error) { return r.keys, nil })
}

// change does one change to the file. Steps 2 to 4 are one to all processes that
// share it.
func (k *Keyset) change(ctx context.Context, edit func(*keyset.Manager, *ring) ([]Key, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	// 1. Keep others out.
	unlock, err := lock(k.file.Path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	// 2. Begin with what is in the file now, which another process may have
	//    changed. A file that was put in its place by hand must not be blessed.
	if _, err := k.refresh(ctx); err != nil {
		return err
	}
	old := k.ring.Load()
	manager := keyset.NewManagerFromHandle(old.handle)
	keys, err := edit(manager, &ring{keys: slices.Clone(old.keys)})
	if err != nil {
		return err
	}
	handle, err := manager.Handle()
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	// 3. Make the new text, and see that it opens.
	dates := make([]keyDates, len(keys))
	for i, key := range keys {
		dates[i] = keyDates{key.ID, key.Created, key.Demoted}
	}
	data, r, err := k.file.marshal(ctx, handle, dates)
	if err != nil {
		return err
	}
	defer clear(data)
	// 4. Write it. After an error either text may be there: Refresh finds out.
	if err := wholefile.Write(k.file.Path, data, 0o600); err != nil {
		return fmt.Errorf("seal: writing the keyset file: %w", err)
	}
	// 5. Only now, when it can't be lost, may anything be sealed with it.
	k.ring.Store(r)
	if info, err := os.Stat(k.file.Path); err == nil {
		k.seen = info
	}
	return nil
}

// Refresh reads the file again if it was changed since it was last read, and
// reports whether it was. After an error the keyset is what it was.
func (k *Keyset) Refresh(ctx context.Context) (changed bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.refresh(ctx)
}

// refresh needs mu.
func (k *Keyset) refresh(ctx context.Context) (changed bool, err error) {
	info, err := os.Stat(k.file.Path)
	if err != nil {
		return false, fmt.Errorf("seal: %w", err)
	}
	if sameState(info, k.seen) {
		return false, nil
	}
	r, seen, err := k.file.read(ctx)
	if err != nil {
		return false, err
	}
	if k.ring.Load().kek != "" && r.kek == "" {
		// Somebody who can write to the folder, and has no key, could make this
		// process seal with keys of his own.
		return false, ErrDowngrade
	}
	k.ring.Store(r)
	k.seen = seen
	return true, nil
}

// sameState reports whether nothing was written between the two: each writer
// puts a new file in the old one's place.
func sameState(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// lock waits for the lock that all processes take which change the keyset file.
// It is a file of its own, since the keyset's is replaced by each change.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("seal: locking %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
