package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/wholefile"
)

// FileName is the name of the file that is written. Those before it have the
// number of their first line in their names.
const FileName = "audit.jsonl"

// FileConfig is where and how a log's files are kept.
type FileConfig struct {
	Folder string
	// MaxSize is how large a file gets, about, before the next one begins.
	MaxSize int64
	// MinFree is how much of the disk is left to others: with less, the file
	// counts as one that can't be written. The key store may be on the same
	// disk, and a full one would stop it.
	MinFree int64
}

// checkEvery is how often the disk and the file's name are looked at.
const checkEvery = time.Second

// A logFile is the file that a log is written to. Only the log's goroutine uses
// it. An error leaves it as it was, or so that ready repairs it.
type logFile struct {
	FileConfig
	path string

	f     handle // nil: a new file must be begun
	first uint64 // number of its first line
	size  int64  // as far as it is good
	torn  bool   // there may be more than that in it
	// missed is how many lines were written elsewhere since f's last.
	missed  uint64
	checked time.Time

	// What tests replace.
	create func(path string) (handle, error)
	free   func(folder string) (int64, error)
}

// A handle is what logFile needs of an *os.File.
type handle interface {
	io.WriteCloser
	Sync() error
	Truncate(size int64) error
	Stat() (fs.FileInfo, error)
}

func newLogFile(c FileConfig) *logFile {
	return &logFile{FileConfig: c, path: filepath.Join(c.Folder, FileName), create: createFile, free: freeSpace}
}

// A found is what an earlier mafd left.
type found struct {
	last position // zero when there was nothing
	note string   // for people
}

// recover finds the end of the log and repairs it as far as that is possible
// without a loss: what a crash tore was never promised to anybody.
func (l *logFile) recover() (found, error) {
	if err := wholefile.MkdirAll(l.Folder, 0o700); err != nil {
		return found{}, err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return l.before("there is no " + FileName)
	}
	if err != nil {
		return found{}, err
	}
	at, size, end, err := tail(f)
	if err != nil {
		f.Close()
		return found{}, err
	}
	first, err := firstSeq(l.path)
	if err != nil {
		f.Close()
		return found{}, err
	}
	switch {
	case end == 0: // not one whole line: a file that was just begun
		f.Close()
		if err := os.Remove(l.path); err != nil {
			return found{}, err
		}
		return l.before(fmt.Sprintf("removed %d octets without a whole line", size))
	case at.seq == 0:
		f.Close()
		return l.damaged(first)
	}
	l.f, l.first, l.size, l.torn = f, first, end, end < size
	note := "goes on"
	if l.torn {
		note = fmt.Sprintf("goes on; removed a torn line of %d octets", size-end)
	}
	return found{at, note}, l.repair()
}

// before finds the end of the log in the files before the current one, which is
// not there.
func (l *logFile) before(why string) (found, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(l.Folder), "audit-*.jsonl"))
	if err != nil || len(names) == 0 {
		return found{note: "a new log begins: " + why}, err
	}
	newest := slices.Max(names)
	f, err := os.Open(newest)
	if err != nil {
		return found{}, err
	}
	defer f.Close()
	at, _, _, err := tail(f)
	if err != nil {
		return found{}, err
	}
	if at.seq == 0 {
		return found{note: fmt.Sprintf("a new log begins: %s, and the end of %s is damaged", why, filepath.Base(newest))}, nil
	}
	return found{at, fmt.Sprintf("goes on from %s: %s", filepath.Base(newest), why)}, nil
}

// damaged puts a file away whose end is not a line of ours. Its octets are
// evidence, so nothing is removed.
func (l *logFile) damaged(first uint64) (found, error) {
	name := fmt.Sprintf("audit-%020d-damaged-%d.jsonl", first, time.Now().Unix())
	if err := l.rename(name); err != nil {
		return found{}, err
	}
	return found{note: "a new log begins: the end of the one before is damaged; it is in " + name}, nil
}

// tail returns the last line's position, zero if that is not a line of ours; the
// file's size, and where its last whole line ends.
func tail(f *os.File) (at position, size, end int64, err error) {
	if size, err = f.Seek(0, io.SeekEnd); err != nil {
		return at, 0, 0, err
	}
	// A torn line and a whole one.
	from := max(0, size-2*maxLine)
	b := make([]byte, size-from)
	if _, err = f.ReadAt(b, from); err != nil && err != io.EOF {
		return at, 0, 0, err
	}
	n := bytes.LastIndexByte(b, '\n')
	if n < 0 && from > 0 {
		return at, size, size, nil // what is this?
	}
	b = b[:n+1]
	end = from + int64(len(b))
	b = bytes.TrimSuffix(b, []byte("\n"))
	e, h, err := parseLine(b[bytes.LastIndexByte(b, '\n')+1:])
	if err != nil {
		return position{}, size, end, nil
	}
	return position{e.Seq, h}, size, end, nil
}

// ready makes the file fit for writing. It returns true when a file was begun,
// which must get a line of kind File first; number is what that line's will be.
func (l *logFile) ready(number uint64, now time.Time) (begun bool, err error) {
	if now.Sub(l.checked).Abs() >= checkEvery {
		if err := l.check(); err != nil {
			return false, err
		}
		l.checked = now
	}
	if l.f != nil && l.size > 0 && (l.size >= l.MaxSize || l.missed > 0) {
		if err := l.putAway(); err != nil {
			return false, err
		}
	}
	if l.f == nil {
		return true, l.begin(number)
	}
	if err := l.repair(); err != nil {
		return false, err
	}
	return l.size == 0, nil // a first line failed
}

// check looks at what others do.
func (l *logFile) check() error {
	free, err := l.free(l.Folder)
	if err != nil {
		return err
	}
	if free < l.MinFree {
		return fmt.Errorf("only %d MiB are free on the disk of %s, and %d are left to others", free>>20, l.Folder, l.MinFree>>20)
	}
	if l.f == nil {
		return nil
	}
	// Somebody who rotates logs moved it away: the log goes on in a new file.
	ours, err := l.f.Stat()
	if err != nil {
		return err
	}
	named, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(ours, named) {
		err = l.close()
	}
	return err
}

// putAway ends the file and gives it the name of those that are done.
func (l *logFile) putAway() error {
	if err := l.repair(); err != nil {
		return err
	}
	if err := l.rename(fmt.Sprintf("audit-%020d.jsonl", l.first)); err != nil {
		return err
	}
	return errors.Join(l.close(), wholefile.SyncDir(l.Folder))
}

// rename gives the current file another name, which must be free.
func (l *logFile) rename(name string) error {
	path := filepath.Join(l.Folder, name)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already", path)
	}
	return os.Rename(l.path, path)
}

func (l *logFile) begin(number uint64) error {
	f, err := l.create(l.path)
	if errors.Is(err, errOther) {
		// Somebody put it there, or it could not be read when mafd started.
		if err := l.rename(fmt.Sprintf("audit-found-%d.jsonl", time.Now().UnixNano())); err != nil {
			return err
		}
		f, err = l.create(l.path)
	}
	if err != nil {
		return err
	}
	l.f, l.first, l.size, l.torn = f, number, 0, false
	return nil
}

var errOther = errors.New("the file is there already, and not this mafd's")

// createFile makes a file, as its folder will know after a crash too. It may be
// there, empty: programs that rotate logs make one.
func createFile(path string) (handle, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > 0 {
		err = errOther
	}
	if err == nil {
		err = wholefile.SyncDir(filepath.Dir(path))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// repair removes what a failed write left.
func (l *logFile) repair() error {
	if !l.torn {
		return nil
	}
	if err := l.f.Truncate(l.size); err != nil {
		return err
	}
	l.torn = false
	return nil
}

// write appends whole lines, and sees them to the disk if sync is set.
func (l *logFile) write(lines []byte, sync bool) error {
	l.torn = true
	_, err := l.f.Write(lines)
	if err == nil && sync {
		// After a failed fsync the kernel may have dropped the pages that it did
		// not write. So all of these lines are written again, not synced again.
		err = l.f.Sync()
	}
	if err != nil {
		l.repair() // or later
		return err
	}
	l.size += int64(len(lines))
	l.torn = false
	return nil
}

func (l *logFile) sync() error {
	if l.f == nil {
		return nil
	}
	return l.f.Sync()
}

func (l *logFile) close() error {
	if l.f == nil {
		return nil
	}
	err := errors.Join(l.f.Sync(), l.f.Close())
	l.f = nil
	return err
}

func freeSpace(folder string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(folder, &s); err != nil {
		return 0, fmt.Errorf("looking for free space in %s: %w", folder, err)
	}
	return int64(min(s.Bavail, 1<<40)) * int64(s.Bsize), nil
}
