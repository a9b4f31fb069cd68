//go:build unix

package sqlstore

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// lock takes the store for this process, until the returned file is closed or
// the process ends, however it ends.
//
// It is a file of its own: SQLite has its own locks on the database, which
// POSIX would drop when any descriptor of that file were closed.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w (%s is locked)", ErrLocked, path)
	}
	return nil, fmt.Errorf("locking %s: %w", path, err)
}
