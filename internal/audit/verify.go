package audit

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A Line is a line of the log, and where it stands.
type Line struct {
	Event
	Text []byte // as it stands; good until the next line
	Hash string
	File string
	N    int // in the file, from 1
}

// A Problem is a place where the log is not as it was written.
type Problem struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Text string `json:"problem"`
}

func (p *Problem) Error() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text) }

// A Report is what Verify found.
type Report struct {
	Files    int       `json:"files"`
	Lines    int       `json:"lines"`
	First    uint64    `json:"first"` // sequence numbers
	Last     uint64    `json:"last"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Head     string    `json:"head"` // the last line's hash
	Problems []Problem `json:"problems"`
	More     int       `json:"moreProblems,omitempty"` // that are not in Problems
	// Dropped events are in no sink, Elsewhere lines in another: the log says
	// so itself.
	Dropped   uint64 `json:"dropped,omitempty"`
	Elsewhere uint64 `json:"elsewhere,omitempty"`
	// Heads says where each of the heads that were asked for stands.
	Heads []Head `json:"heads,omitempty"`
}

// A Head is a hash that was noted elsewhere, and the line that it is of.
type Head struct {
	Hash string `json:"hash"`
	File string `json:"file,omitempty"` // "" when no line has it
	Line int    `json:"line,omitempty"`
	Seq  uint64 `json:"seq,omitempty"`
}

// maxProblems is how many are told one by one.
const maxProblems = 100

// Good reports whether nothing is wrong.
func (r *Report) Good() bool {
	return len(r.Problems) == 0 && !slices.ContainsFunc(r.Heads, func(h Head) bool { return h.File == "" })
}

// Files returns the files of the log that a path names: itself, or all in a
// folder. They are in the order of the log.
func Files(paths ...string) ([]string, error) {
	var all []string
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if !info.IsDir() {
			all = append(all, path)
			continue
		}
		found, err := filepath.Glob(filepath.Join(escapeGlob(path), "audit*.jsonl"))
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%s holds no audit log", path)
		}
		all = append(all, found...)
	}
	return inOrder(all)
}

// escapeGlob makes a path a pattern that it matches alone.
func escapeGlob(path string) string {
	var b bytes.Buffer
	for _, c := range []byte(path) {
		if bytes.IndexByte([]byte(`*?[\`), c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// inOrder sorts files by their first lines.
func inOrder(paths []string) ([]string, error) {
	type file struct {
		path  string
		first uint64
	}
	var files []file
	for _, path := range paths {
		first, err := firstSeq(path)
		if err != nil {
			return nil, err
		}
		files = append(files, file{path, first})
	}
	slices.SortStableFunc(files, func(a, b file) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.path, b.path))
	})
	for i, f := range files {
		paths[i] = f.path
	}
	return slices.Compact(paths), nil
}

// firstSeq returns the number of a file's first line, 0 for a bad one.
func firstSeq(path string) (uint64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for line, err := range readLines(f, path) {
		var bad *Problem
		if errors.As(err, &bad) {
			break
		}
		return line.Seq, err
	}
	return 0, nil
}

// Lines reads files one after the other. A line that can't be read comes as a
// *Problem, and reading goes on; any other error is the last.
func Lines(paths []string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for _, path := range paths {
			f, err := os.Open(path)
			if err != nil {
				yield(Line{}, err)
				return
			}
			for line, err := range readLines(f, path) {
				if !yield(line, err) {
					f.Close()
					return
				}
			}
			f.Close()
		}
	}
}

func readLines(r io.Reader, name string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		in := bufio.NewReaderSize(r, maxLine)
		for n := 1; ; n++ {
			text, err := in.ReadSlice('\n')
			bad := func(what string) bool { return yield(Line{File: name, N: n}, &Problem{name, n, what}) }
			switch {
			case err == io.EOF && len(text) == 0:
				return
			case err == io.EOF:
				bad("the line breaks off")
				return
			case err == bufio.ErrBufferFull:
				for err == bufio.ErrBufferFull {
					_, err = in.ReadSlice('\n')
				}
				if !bad("the line is longer than any that mafd writes") {
					return
				}
				continue
			case err != nil:
				yield(Line{}, fmt.Errorf("%s: %w", name, err))
				return
			}
			text = text[:len(text)-1]
			e, h, err := parseLine(text)
			if err != nil {
				if !bad(err.Error()) {
					return
				}
				continue
			}
			if !yield(Line{e, text, h.String(), name, n}, nil) {
				return
			}
		}
	}
}

// Verify checks the chain of files in the order of the log, and that each head
// is the hash of one of their lines. The error says that they can't be read.
func Verify(paths []string, heads ...string) (*Report, error) {
	v := verifier{report: Report{Files: len(paths), Problems: []Problem{}}}
	for _, head := range heads {
		h, err := parseHash(head)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", head, err)
		}
		v.report.Heads = append(v.report.Heads, Head{Hash: h.String()})
	}
	for line, err := range Lines(paths) {
		var bad *Problem
		switch {
		case errors.As(err, &bad):
			v.report.Lines++
			v.unread++
			v.problem(bad.File, bad.Line, "%s", bad.Text)
		case err != nil:
			return nil, err
		default:
			v.line(&line)
		}
	}
	return &v.report, nil
}

type verifier struct {
	report Report
	last   position
	unread int // lines since last that can't be read
}

func (v *verifier) problem(file string, line int, format string, args ...any) {
	if len(v.report.Problems) == maxProblems {
		v.report.More++
		return
	}
	v.report.Problems = append(v.report.Problems, Problem{file, line, fmt.Sprintf(format, args...)})
}

// line checks one line. After a problem it goes on from what the line says of
// itself, so that each problem is told once.
func (v *verifier) line(l *Line) {
	r := &v.report
	r.Lines++
	if r.First == 0 {
		r.First, r.From = l.Seq, l.Time
	}
	if l.Kind == Gap {
		r.Dropped += l.Count
	}
	v.link(l)
	v.last, v.unread = position{l.Seq, hash([]byte(l.Hash))}, 0
	r.Last, r.To, r.Head = l.Seq, l.Time, l.Hash
	for i := range r.Heads {
		if h := &r.Heads[i]; h.Hash == l.Hash {
			h.File, h.Line, h.Seq = l.File, l.N, l.Seq
		}
	}
}

// link checks a line's place in the chain.
func (v *verifier) link(l *Line) {
	begins := l.N == 1
	if (l.Kind == File) != begins || (l.Prev != "") != begins {
		v.problem(l.File, l.N, "this is not how a file begins or goes on; the beginning is missing, or something was put in")
	}
	if l.Kind == File {
		v.header(l)
		return
	}
	if !v.follows(l, v.last.seq+1) {
		return
	}
	if v.last.seq > 0 && v.unread == 0 && v.last.hash.next(body(l.Text)).String() != l.Hash {
		v.problem(l.File, l.N, "this line or the hash before it was changed")
	}
}

// header checks the first line of a file. It carries the hash before it, so that
// a file can be checked without the one before.
func (v *verifier) header(l *Line) {
	prev, err := parseHash(l.Prev)
	if err != nil {
		return // said already
	}
	if prev.next(body(l.Text)).String() != l.Hash {
		v.problem(l.File, l.N, "this line was changed")
	}
	if v.last.seq == 0 {
		return // what was before is not here; Report.First says so
	}
	v.report.Elsewhere += l.Count
	if !v.follows(l, v.last.seq+1+l.Count) {
		return
	}
	if l.Count == 0 && v.unread == 0 && prev != v.last.hash {
		v.problem(l.File, l.N, "this file does not go on from the one before: one of them is of another log, or was changed")
	}
}

// follows checks a line's number.
func (v *verifier) follows(l *Line, want uint64) bool {
	want += uint64(v.unread)
	switch {
	case v.last.seq == 0, l.Seq == want:
	case l.Seq > want:
		v.problem(l.File, l.N, "%s missing before this line", span(want, l.Seq-1))
	default:
		v.problem(l.File, l.N, "number %d comes after number %d: moved, doubled, or of another log", l.Seq, v.last.seq)
	}
	return v.last.seq == 0 || l.Seq == want
}

func span(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("number %d is", from)
	}
	return fmt.Sprintf("numbers %d to %d are", from, to)
}
