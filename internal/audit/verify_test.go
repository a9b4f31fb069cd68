package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var example = Event{
	Kind: Release, Role: EntityB, Actor: "//sp.example.com/in-cse", Subject: "AAECAwQFBgcICQoLDA0ODw==@maf.example.com",
	EntityB: "//sp.example.com/in-cse", Remote: "192.0.2.7:40123", Outcome: OK,
}

// logOf returns a log's lines, with the first of a file at the beginning.
func logOf(n int) [][]byte {
	p := position{hash: zeroHash}
	var lines [][]byte
	for i := range n {
		e := example
		e.Time = time.Date(2026, 5, 4, 3, 2, i, 0, time.UTC)
		if i == 0 {
			e = Event{Time: e.Time, Kind: File, Role: System, Subject: FileName, Outcome: OK, Prev: zeroHash.String()}
		}
		lines = append(lines, p.append(nil, &e))
	}
	return lines
}

func verifyText(t *testing.T, text []byte, heads ...string) *Report {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Verify([]string{path}, heads...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestTamper: what can be done to a log, and what Verify says.
func TestTamper(t *testing.T) {
	const n = 10
	head := verifyText(t, bytes.Join(logOf(n), nil)).Head
	replace := func(line []byte, old, new string) []byte {
		if !bytes.Contains(line, []byte(old)) {
			t.Fatalf("no %s in %s", old, line)
		}
		return bytes.Replace(line, []byte(old), []byte(new), 1)
	}
	tests := []struct {
		name string
		do   func(lines [][]byte) [][]byte
		want []string // problems, "line: text"; nil when good
	}{
		{"nothing", func(l [][]byte) [][]byte { return l }, nil},
		{"a value changed", func(l [][]byte) [][]byte { l[4] = replace(l[4], "192.0.2.7", "192.0.2.8"); return l },
			[]string{"5: this line or the hash before it was changed"}},
		{"a time changed", func(l [][]byte) [][]byte { l[4] = replace(l[4], "03:02:04", "03:02:03"); return l },
			[]string{"5: this line or the hash before it was changed"}},
		{"a hash changed", func(l [][]byte) [][]byte {
			h := l[4][len(l[4])-4]
			l[4][len(l[4])-4] = map[bool]byte{true: '1', false: '0'}[h == '0']
			return l
		}, []string{"5: this line or the hash before it was changed", "6: this line or the hash before it was changed"}},
		{"a line chained anew", func(l [][]byte) [][]byte {
			_, before, _ := parseLine(bytes.TrimSpace(l[3]))
			e, _, _ := parseLine(bytes.TrimSpace(l[4]))
			e.Outcome = Refused
			l[4] = (&position{4, before}).append(nil, &e)
			return l
		}, []string{"6: this line or the hash before it was changed"}},
		{"a line removed", func(l [][]byte) [][]byte { return slices.Delete(l, 4, 5) },
			[]string{"5: number 5 is missing before this line"}},
		{"lines removed", func(l [][]byte) [][]byte { return slices.Delete(l, 4, 7) },
			[]string{"5: numbers 5 to 7 are missing before this line"}},
		{"a line doubled", func(l [][]byte) [][]byte { return slices.Insert(l, 4, l[3]) },
			[]string{"5: number 4 comes after number 4: moved, doubled, or of another log"}},
		{"lines swapped", func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l },
			[]string{"5: number 5 is missing before this line", "6: number 5 comes after number 6: moved, doubled, or of another log",
				"7: number 6 is missing before this line"}},
		{"a line put in", func(l [][]byte) [][]byte { return slices.Insert(l, 4, []byte("{}\n")) },
			[]string{"5: its time is not one", "6: number 5 comes after number 4: moved, doubled, or of another log"}},
		{"another spelling", func(l [][]byte) [][]byte { l[4] = replace(l[4], `{"seq"`, `{ "seq"`); return l },
			[]string{"5: this is not how mafd writes lines"}},
		{"another member", func(l [][]byte) [][]byte { l[4] = replace(l[4], `,"outcome"`, `,"x":1,"outcome"`); return l },
			[]string{"5: this is not how mafd writes lines"}},
		{"a torn line in the middle", func(l [][]byte) [][]byte { l[4] = l[4][:20]; return l },
			[]string{"5: this is not a line of JSON", "6: number 6 is missing before this line"}}, // the tear swallowed it
		{"a long line", func(l [][]byte) [][]byte { l[4] = append(bytes.Repeat([]byte("x"), 3*maxLine), '\n'); return l },
			[]string{"5: the line is longer than any that mafd writes"}},
		{"a torn end", func(l [][]byte) [][]byte { l[n-1] = l[n-1][:20]; return l },
			[]string{"10: the line breaks off"}},
		{"the beginning removed", func(l [][]byte) [][]byte { return l[2:] },
			[]string{"1: this is not how a file begins or goes on"}},
		{"a first line in the middle", func(l [][]byte) [][]byte { return slices.Insert(l, 4, l[0]) },
			[]string{"5: this is not how a file begins or goes on", "5: number 1 comes after number 4", "6: numbers 2 to 4 are missing"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := verifyText(t, bytes.Join(test.do(logOf(n)), nil))
			for i := range max(len(test.want), len(r.Problems)) {
				var got, want string
				if i < len(r.Problems) {
					got = fmt.Sprintf("%d: %s", r.Problems[i].Line, r.Problems[i].Text)
				}
				if i < len(test.want) {
					want = test.want[i]
				}
				if want == "" || !strings.HasPrefix(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}

	t.Run("the end removed", func(t *testing.T) {
		text := bytes.Join(logOf(n)[:n-2], nil)
		if r := verifyText(t, text); !r.Good() || r.Last != n-2 {
			t.Errorf("without a head it can't be seen, but: %+v", r)
		}
		if r := verifyText(t, text, head); r.Good() {
			t.Error("not found with the head")
		}
	})
	t.Run("written anew", func(t *testing.T) {
		p := position{hash: zeroHash}
		var text []byte
		for i, line := range logOf(n) {
			e, _, err := parseLine(bytes.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			if i == 4 {
				e.Actor = "//sp.example.com/innocent"
			}
			text = p.append(text, &e)
		}
		if r := verifyText(t, text); !r.Good() {
			t.Errorf("the hash has a key? %+v", r)
		}
		if r := verifyText(t, text, head); r.Good() {
			t.Error("not found with the head")
		}
	})
	t.Run("the head", func(t *testing.T) {
		r := verifyText(t, bytes.Join(logOf(n), nil), head)
		if !r.Good() || r.Heads[0].Seq != n || r.Heads[0].Line != n {
			t.Errorf("%+v", r)
		}
	})
}

// TestTamperFiles: what can be done to several files.
func TestTamperFiles(t *testing.T) {
	c := config(t)
	c.File.MaxSize = 1500
	l := open(t, c)
	commit(t, l, 30)
	l.Close()
	files, err := Files(c.File.Folder)
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	tests := []struct {
		name  string
		files []string
		good  bool
	}{
		{"all", files, true},
		{"in another order", append(slices.Clone(files[3:]), files[:3]...), true}, // Files sorts
		{"the first missing", files[1:], true},                                    // First says so
		{"one in the middle missing", slices.Delete(slices.Clone(files), 2, 3), false},
		{"one twice", append(slices.Clone(files), files[1]), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sorted, err := Files(slices.Clone(test.files)...)
			if err != nil {
				t.Fatal(err)
			}
			r, err := Verify(sorted)
			if err != nil || r.Good() != test.good {
				t.Errorf("%+v, %v", r, err)
			}
			if first := r.First == 1; first != (test.files[0] == files[0] || len(test.files) == len(files)) {
				t.Errorf("the first is %d", r.First)
			}
		})
	}
}

// TestHostileText: what strangers send is ASCII on one line, and bounded.
func TestHostileText(t *testing.T) {
	e := example
	for _, text := range []string{"\n\r\x1b[31m\x00\x7f\"\\</script>", "ä€😀\u202e", "\xff\xfe", strings.Repeat("\x01", 10*maxText)} {
		e.Actor, e.Reason = text, text
		line := (&position{hash: zeroHash}).append(nil, &e)
		if len(line) > maxLine {
			t.Errorf("%d octets", len(line))
		}
		for _, c := range line[:len(line)-1] {
			if c < ' ' || c > '~' {
				t.Fatalf("%q", line)
			}
		}
		if _, _, err := parseLine(line[:len(line)-1]); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// FuzzVerify: no text makes the reader of logs fail but with an error, and what
// it takes as a line is what would be written.
func FuzzVerify(f *testing.F) {
	f.Add(bytes.Join(logOf(3), nil))
	f.Add([]byte(`{"seq":1,"time":"2026-05-04T03:02:01.000000Z","hash":"` + zeroHash.String() + "\"}\n"))
	f.Add([]byte("{\"seq\":18446744073709551615}\n\n\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		v := verifier{}
		for line, err := range readLines(bytes.NewReader(text), "fuzz") {
			if err != nil {
				continue
			}
			again := appendHash(line.appendBody(nil), hash([]byte(line.Hash)))
			if !bytes.Equal(again, append(bytes.Clone(line.Text), '\n')) {
				t.Errorf("%q was read as %q", line.Text, again)
			}
			v.line(&line)
		}
	})
}
