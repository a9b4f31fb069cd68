package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func config(t testing.TB) Config {
	return Config{
		File:  FileConfig{Folder: t.TempDir(), MaxSize: 1 << 20},
		Queue: 1000,
		Log:   slog.New(slog.DiscardHandler),
	}
}

func open(t testing.TB, c Config) *Log {
	t.Helper()
	l, err := Open(c, Event{Subject: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func commit(t testing.TB, l *Log, n int) {
	t.Helper()
	for range n {
		if err := l.Commit(t.Context(), example); err != nil {
			t.Fatal(err)
		}
	}
}

// verify reports on a folder's log and demands that it is good.
func verify(t testing.TB, folder string, heads ...string) *Report {
	t.Helper()
	files, err := Files(folder)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Verify(files, heads...)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Good() {
		t.Fatalf("%+v", r)
	}
	return r
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func kinds(t testing.TB, folder string, kind Kind) (found []Event) {
	t.Helper()
	files, err := Files(folder)
	if err != nil {
		t.Fatal(err)
	}
	for line, err := range Lines(files) {
		if err != nil {
			t.Fatal(err)
		}
		if line.Kind == kind {
			found = append(found, line.Event)
		}
	}
	return found
}

// TestRestart: a log goes on after Close, over several files, and all heads are
// in it.
func TestRestart(t *testing.T) {
	c := config(t)
	c.File.MaxSize = 2000
	var heads []string
	for range 5 {
		l := open(t, c)
		commit(t, l, 10)
		heads = append(heads, l.Stats().Head)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := verify(t, c.File.Folder, heads...)
	// Start, Stop and ten each time, and the first line of each file.
	if r.First != 1 || r.Lines != 5*12+r.Files || r.Last != uint64(r.Lines) || r.Files < 5 {
		t.Errorf("%+v", r)
	}
	starts := kinds(t, c.File.Folder, Start)
	if len(starts) != 5 || !strings.HasPrefix(starts[0].Reason, "a new log begins") || starts[4].Reason != "goes on" {
		t.Errorf("starts: %+v", starts)
	}
	if len(kinds(t, c.File.Folder, Stop)) != 5 {
		t.Error("no stops")
	}
}

// TestConcurrent: many who record and commit; nothing is lost or out of order.
func TestConcurrent(t *testing.T) {
	c := config(t)
	c.Refuse, c.Queue = true, 7 // back-pressure
	c.File.MaxSize = 20_000
	l := open(t, c)
	var wg sync.WaitGroup
	const who, each = 8, 100
	for i := range who {
		wg.Go(func() {
			for n := range each {
				e := example
				e.Count = uint64(n + 1)
				e.Subject = fmt.Sprint(i)
				do := l.Record
				if n%10 == 0 {
					do = l.Commit
				}
				if err := do(t.Context(), e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	l.Close()
	verify(t, c.File.Folder)
	last := make(map[string]uint64)
	for _, e := range kinds(t, c.File.Folder, example.Kind) {
		if e.Count != last[e.Subject]+1 {
			t.Fatalf("%s: %d after %d", e.Subject, e.Count, last[e.Subject])
		}
		last[e.Subject] = e.Count
	}
	if len(last) != who || last["0"] != each {
		t.Errorf("%v", last)
	}
}

// TestMovedAway: a program that rotates logs takes the file away, and may leave
// an empty one.
func TestMovedAway(t *testing.T) {
	c := config(t)
	l := open(t, c)
	current := filepath.Join(c.File.Folder, FileName)
	for i, empty := range []bool{false, true} {
		commit(t, l, 3)
		if err := os.Rename(current, filepath.Join(c.File.Folder, fmt.Sprintf("audit-moved-%d.jsonl", i))); err != nil {
			t.Fatal(err)
		}
		if empty {
			if err := os.WriteFile(current, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "a new file", func() bool {
			commit(t, l, 1)
			info, err := os.Stat(current)
			return err == nil && info.Size() > 0
		})
	}
	l.Close()
	if r := verify(t, c.File.Folder); r.Files != 3 || r.First != 1 {
		t.Errorf("%+v", r)
	}
}

// TestTorn: whatever part of the last writes is left, the log goes on from the
// last whole line, and the start says what was found.
func TestTorn(t *testing.T) {
	c := config(t)
	l := open(t, c)
	commit(t, l, 2)
	l.Close()
	current := filepath.Join(c.File.Folder, FileName)
	whole, err := os.ReadFile(current)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	lastLine := lines[len(lines)-2]
	tests := []struct {
		name  string
		left  []byte
		found string
	}{
		{"all", whole, "goes on"},
		{"no end of line", whole[:len(whole)-1], fmt.Sprintf("goes on; removed a torn line of %d octets", len(lastLine)-1)},
		{"half a line", whole[:len(whole)-100], fmt.Sprintf("goes on; removed a torn line of %d octets", len(lastLine)-100)},
		{"zeros", append(bytes.Clone(whole), make([]byte, 50)...), "goes on; removed a torn line of 50 octets"},
		{"one line", lines[0], "goes on"},
		{"half of the first line", lines[0][:10], "a new log begins: removed 10 octets without a whole line"},
		{"empty", nil, "a new log begins: removed 0 octets without a whole line"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := config(t)
			if err := os.WriteFile(filepath.Join(c.File.Folder, FileName), test.left, 0o600); err != nil {
				t.Fatal(err)
			}
			l := open(t, c)
			commit(t, l, 1)
			l.Close()
			verify(t, c.File.Folder)
			starts := kinds(t, c.File.Folder, Start)
			if got := starts[len(starts)-1].Reason; got != test.found {
				t.Errorf("found %q, want %q", got, test.found)
			}
		})
	}
}

// TestDamagedEnd: an end that is not ours is kept, and told.
func TestDamagedEnd(t *testing.T) {
	c := config(t)
	l := open(t, c)
	commit(t, l, 2)
	l.Close()
	current := filepath.Join(c.File.Folder, FileName)
	f, err := os.OpenFile(current, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("no line of ours\n")
	f.Close()
	l = open(t, c)
	commit(t, l, 1)
	l.Close()
	if starts := kindsOf(t, current, Start); len(starts) != 1 || !strings.Contains(starts[0].Reason, "is damaged; it is in audit-0") {
		t.Errorf("%+v", starts)
	}
	files, err := Files(c.File.Folder)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if r, err := Verify(files); err != nil || r.Good() {
		t.Errorf("%+v, %v", r, err)
	}
}

func kindsOf(t testing.TB, file string, kind Kind) []Event {
	t.Helper()
	folder := t.TempDir()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, FileName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return kinds(t, folder, kind)
}

// A fullDisk writes a part of what it should, and then fails, as long as full is
// set.
type fullDisk struct {
	*os.File
	state *diskState
}

type diskState struct {
	full       atomic.Bool
	noSync     atomic.Bool // fsync fails, after all was written
	noTruncate atomic.Bool
}

func (d *diskState) create(path string) (handle, error) {
	h, err := createFile(path)
	if err != nil {
		return nil, err
	}
	return &fullDisk{h.(*os.File), d}, nil
}

func (f *fullDisk) Write(b []byte) (int, error) {
	if !f.state.full.Load() {
		return f.File.Write(b)
	}
	n, _ := f.File.Write(b[:len(b)/2])
	return n, syscall.ENOSPC
}

func (f *fullDisk) Sync() error {
	if f.state.noSync.Load() {
		return syscall.EIO
	}
	return f.File.Sync()
}

func (f *fullDisk) Truncate(n int64) error {
	if f.state.noTruncate.Load() {
		return syscall.EIO
	}
	return f.File.Truncate(n)
}

// failing opens a log on a disk that can fail.
func failing(t *testing.T, c Config) (*Log, *diskState) {
	t.Helper()
	disk := new(diskState)
	l := newLog(c)
	l.file.create = disk.create
	if err := l.start(Event{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, disk
}

// TestFullDiskContinue: service goes on, what the queue holds is written later,
// and the rest is counted.
func TestFullDiskContinue(t *testing.T) {
	c := config(t)
	c.Queue = 10
	l, disk := failing(t, c)
	commit(t, l, 3)
	disk.full.Store(true)
	disk.noTruncate.Store(true)
	commit(t, l, 1) // returns, though it isn't written
	eventually(t, "trouble", func() bool { return l.Stats().Unwritable })
	commit(t, l, 50)
	s := l.Stats()
	if s.Dropped == 0 || s.Waiting != 10 {
		t.Errorf("%+v", s)
	}
	if l.Ready() != nil {
		t.Error("not ready")
	}
	disk.noTruncate.Store(false)
	disk.full.Store(false)
	eventually(t, "the end of the trouble", func() bool { s := l.Stats(); return !s.Unwritable && s.Waiting == 0 })
	commit(t, l, 1)
	l.Close()
	r := verify(t, c.File.Folder)
	if listed := len(kinds(t, c.File.Folder, example.Kind)); r.Dropped == 0 || listed+int(r.Dropped) != 3+1+50+1 {
		t.Errorf("%d listed, %d dropped", listed, r.Dropped)
	}
}

// TestFullDiskRefuse: nothing is let through that isn't recorded.
func TestFullDiskRefuse(t *testing.T) {
	c := config(t)
	c.Refuse = true
	l, disk := failing(t, c)
	commit(t, l, 3)
	disk.full.Store(true)
	if err := l.Commit(t.Context(), example); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	for _, err := range []error{l.Ready(), l.Record(t.Context(), example), l.Commit(t.Context(), example)} {
		if !errors.Is(err, ErrUnavailable) {
			t.Error(err)
		}
	}
	disk.full.Store(false)
	eventually(t, "the end of the trouble", func() bool { return l.Ready() == nil })
	commit(t, l, 1)
	l.Close()
	if r := verify(t, c.File.Folder); r.Dropped != 0 {
		t.Errorf("%+v", r)
	}
	if n := len(kinds(t, c.File.Folder, example.Kind)); n != 5 {
		t.Errorf("%d events, want 5", n)
	}
}

// TestFsyncFails: what was not synced is written again, once.
func TestFsyncFails(t *testing.T) {
	c := config(t)
	c.Refuse = true
	l, disk := failing(t, c)
	disk.noSync.Store(true)
	if err := l.Commit(t.Context(), example); !errors.Is(err, ErrUnavailable) {
		t.Fatal(err)
	}
	disk.noSync.Store(false)
	eventually(t, "the end of the trouble", func() bool { return l.Ready() == nil })
	l.Close()
	verify(t, c.File.Folder)
	if n := len(kinds(t, c.File.Folder, example.Kind)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// TestMinFree: the log leaves room to others.
func TestMinFree(t *testing.T) {
	c := config(t)
	c.File.MinFree = 1 << 62
	c.Refuse = true
	if l, err := Open(c, Event{}); !errors.Is(err, ErrUnavailable) {
		t.Fatal(l, err)
	}
	c.Refuse = false
	l := open(t, c)
	commit(t, l, 1)
	if !l.Stats().Unwritable {
		t.Error("it writes")
	}
}

// TestBackPressure: who comes when the queue is full waits, and no longer than
// its context allows.
func TestBackPressure(t *testing.T) {
	l := newLog(Config{Queue: 1, Refuse: true, Log: slog.New(slog.DiscardHandler)}) // nobody writes
	if err := l.Record(t.Context(), example); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if err := l.Record(ctx, example); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if s := l.Stats(); s.Waiting != 1 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// TestStuck: a disk that neither works nor fails stops no service that is to go
// on.
func TestStuck(t *testing.T) {
	l := newLog(Config{Queue: 1, Log: slog.New(slog.DiscardHandler)}) // nobody writes
	for range 5 {
		if err := l.Record(t.Context(), example); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.Stats(); s.Waiting != 1 || s.Dropped != 4 {
		t.Errorf("%+v", s)
	}
}

func TestNil(t *testing.T) {
	var l *Log
	if err := errors.Join(l.Record(t.Context(), example), l.Commit(t.Context(), example), l.Ready(), l.Close()); err != nil {
		t.Error(err)
	}
}

// TestHeads: mafd's own log has the head at the start and at the end.
func TestHeads(t *testing.T) {
	var text bytes.Buffer // read after Close only
	c := config(t)
	c.Log = slog.New(slog.NewTextHandler(&text, nil))
	l := open(t, c)
	commit(t, l, 3)
	l.Close()
	r := verify(t, c.File.Folder)
	if !strings.Contains(text.String(), fmt.Sprintf(`msg="audit head" seq=%d hash=%s`, r.Last, r.Head)) {
		t.Errorf("no head %d in\n%s", r.Last, text.String())
	}
}
