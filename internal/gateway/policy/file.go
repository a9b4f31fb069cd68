package policy

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"strings"
	"sync"

	"github.com/onem2m-maf/maf/internal/wholefile"
	"github.com/onem2m-maf/maf/onem2m"
)

// A File is a Memory in a file of text, one claim a line:
//
//	meter7@maf.example.com //sp.example.com/in-cse/Cmeter7 1a2b3c4d
//
// The last word is the CRC-32 (IEEE) of what is before it and its space. Lines
// are only ever added, so the file is as long as its claims are many; to take
// one back, stop the gateway and delete the line.
//
// Adding is one write and one fsync, shared by the claims that come while the
// last ones are written. One process may use the file at a time.
type File struct {
	path string

	mu      sync.Mutex
	f       *os.File
	size    int64  // octets that are whole lines on stable storage
	err     error  // once the file's end cannot be told any more
	waiting *batch // the claims to be written next, nil when there are none
	writing bool   // flush runs, and will write waiting next
}

// A batch is lines that are written together.
type batch struct {
	lines []byte
	done  chan struct{} // closed when err is set
	err   error
}

const (
	fileHeader = "AE-IDs learned by mafgw, version 1\n"
	maxBatch   = 64 << 10
)

// OpenFile opens the file at path, and makes it when there is none.
func OpenFile(path string) (*File, error) {
	err := wholefile.Create(path, []byte(fileHeader), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	m := &File{path: path, f: f}
	if _, err := m.Load(); err != nil {
		f.Close()
		return nil, err
	}
	return m, nil
}

// Close closes the file. No other method may be called then.
func (m *File) Close() error { return m.f.Close() }

// Load implements Memory. A last write that the machine's end cut short is
// undone: nobody was told that it succeeded. Any other damage is an error: what
// follows it would be lost, and free for others.
func (m *File) Load() ([]Claim, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text, err := os.ReadFile(m.path)
	if err != nil {
		return nil, err
	}
	rest, ok := bytes.CutPrefix(text, []byte(fileHeader))
	if !ok {
		return nil, fmt.Errorf("%s: not a file of learned AE-IDs", m.path)
	}
	claims, rest := readClaims(rest)
	good := int64(len(text) - len(rest))
	if m.writing { // what is being written stands there, in part or whole
		return claims, nil
	}
	if !isCutShort(rest) {
		return nil, fmt.Errorf("%s: damaged at octet %d: a line there is not as it was written; correct it, or remove it with what follows that is not needed", m.path, good)
	}
	if last, err := parseClaim(string(rest)); err == nil { // an editor's work, or a cut before the line's end
		if _, err := m.f.WriteAt([]byte("\n"), int64(len(text))); err != nil {
			return nil, err
		}
		claims, good, rest = append(claims, last), int64(len(text))+1, nil
	}
	if len(rest) > 0 {
		if err := m.cut(good); err != nil {
			return nil, err
		}
	}
	m.size = good
	return claims, nil
}

// readClaims reads whole lines until one is none.
func readClaims(text []byte) (claims []Claim, rest []byte) {
	for {
		line, after, whole := bytes.Cut(text, []byte("\n"))
		claim, err := parseClaim(string(line))
		if !whole || err != nil {
			return claims, text
		}
		claims, text = append(claims, claim), after
	}
}

// isCutShort reports whether what is no claim at the file's end can be what is
// left of one write: the beginning of a line, or what has zeros where the disk did
// not get to.
func isCutShort(rest []byte) bool {
	return len(rest) <= maxBatch && (bytes.IndexByte(rest, '\n') < 0 || bytes.IndexByte(rest, 0) >= 0)
}

// cut makes the file size octets long.
func (m *File) cut(size int64) error {
	if err := m.f.Truncate(size); err != nil {
		return err
	}
	return m.f.Sync()
}

// Add implements Memory.
func (m *File) Add(c Claim) error {
	line := formatClaim(c)
	m.mu.Lock()
	for m.waiting != nil && len(m.waiting.lines)+len(line) > maxBatch {
		full := m.waiting
		m.mu.Unlock()
		<-full.done
		m.mu.Lock()
	}
	if m.waiting == nil {
		m.waiting = &batch{done: make(chan struct{})}
	}
	b := m.waiting
	b.lines = append(b.lines, line...)
	if !m.writing {
		m.writing = true
		go m.flush()
	}
	m.mu.Unlock()
	<-b.done
	return b.err
}

// flush writes batches until none is waiting.
func (m *File) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.waiting != nil {
		b := m.waiting
		m.waiting = nil
		if b.err = m.err; b.err == nil {
			m.write(b)
		}
		close(b.done)
	}
	m.writing = false
}

// write puts one batch on stable storage. m.mu is held, but not meanwhile.
func (m *File) write(b *batch) {
	at := m.size
	m.mu.Unlock()
	_, err := m.f.WriteAt(b.lines, at)
	if err == nil {
		err = m.f.Sync()
	}
	m.mu.Lock()
	if b.err = err; err == nil {
		m.size += int64(len(b.lines))
		return
	}
	if err := m.cut(at); err != nil {
		// A part of a line may stand at the end now, and more may not follow it.
		m.err = fmt.Errorf("%s: unusable until the gateway starts again: %w", m.path, err)
	}
}

func formatClaim(c Claim) string {
	text := c.KmID.String() + " " + c.AEID.String()
	return fmt.Sprintf("%s %08x\n", text, crc32.ChecksumIEEE([]byte(text)))
}

// parseClaim is the inverse of formatClaim, without the line's end.
func parseClaim(line string) (Claim, error) {
	km, rest, _ := strings.Cut(line, " ")
	ae, _, _ := strings.Cut(rest, " ")
	var c Claim
	var err error
	if c.KmID, err = onem2m.ParseKmID(km); err != nil {
		return Claim{}, err
	}
	if c.AEID, err = onem2m.ParseAEID(ae); err != nil {
		return Claim{}, err
	}
	if !c.AEID.IsAbsolute() || formatClaim(c) != line+"\n" {
		return Claim{}, errors.New("not a claim")
	}
	return c, nil
}
