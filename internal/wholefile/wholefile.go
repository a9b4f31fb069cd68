// Package wholefile writes files that are there whole or not at all, and makes
// folders that stay, also after a power cut.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// ErrExists is what Create returns when path is taken. errors.Is(err,
// fs.ErrExist) holds too.
var ErrExists = fmt.Errorf("wholefile: %w", fs.ErrExist)

// Write puts data at path with the permissions perm (whatever the umask),
// replacing what was there. When it returns nil, data is on stable storage;
// when it fails or the machine stops, path holds either the old or the new
// content, never a part.
func Write(path string, data []byte, perm fs.FileMode) error {
	return write(path, data, perm, os.Rename)
}

// Create is Write for a path that must not exist yet: of several processes
// that try, one wins and the others get ErrExists.
func Create(path string, data []byte, perm fs.FileMode) error {
	// Unlike rename, link refuses to replace. The temporary name is then
	// removed by write, as after a failure.
	err := write(path, data, perm, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %s", ErrExists, path)
	}
	return err
}

func write(path string, data []byte, perm fs.FileMode, publish func(from, to string) error) error {
	dir := filepath.Dir(path)
	// CreateTemp opens with 0600 and O_EXCL: a link that someone planted
	// under the temporary name is not followed.
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			e.Path = path // nobody knows the temporary name
		}
		return err
	}
	defer os.Remove(f.Name()) // after a rename there is nothing to remove
	if err := fill(f, data, perm); err != nil {
		return err
	}
	if err := publish(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// MkdirAll is os.MkdirAll, with the new folders on stable storage when it returns
// nil: else all that was written into them could go with them.
func MkdirAll(path string, perm fs.FileMode) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := MkdirAll(parent, perm); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, perm); err != nil {
		// Somebody else may have been first.
		if info, statErr := os.Stat(path); statErr != nil || !info.IsDir() {
			return err
		}
	}
	return SyncDir(parent)
}

func fill(f *os.File, data []byte, perm fs.FileMode) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// SyncDir makes the names in dir durable: fsync of a file says nothing about the
// directory entry that leads to it. (Windows doesn't let programs do that.)
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
