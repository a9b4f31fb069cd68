package policy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/onem2m"
)

func openFile(t testing.TB, path string) *File {
	t.Helper()
	m, err := OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func load(t testing.TB, m *File) []Claim {
	t.Helper()
	claims, err := m.Load()
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

func aClaim(i int) Claim {
	return Claim{kmID(fmt.Sprintf("m%d", i)), here(fmt.Sprintf("Cm%d", i))}
}

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "learned")
	m := openFile(t, path)
	if claims := load(t, m); len(claims) != 0 {
		t.Errorf("a new file holds %v", claims)
	}
	var want []Claim
	for i := range 3 {
		want = append(want, aClaim(i))
		if err := m.Add(aClaim(i)); err != nil {
			t.Fatal(err)
		}
	}
	if got := load(t, m); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := load(t, openFile(t, path)); !slices.Equal(got, want) {
		t.Errorf("after a restart: got %v, want %v", got, want)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// However few of a write's octets are on the disk when the machine stops: what
// was added before is there, what comes after is written, and nothing else.
func TestFileCutShort(t *testing.T) {
	path := filepath.Join(t.TempDir(), "learned")
	m := openFile(t, path)
	if err := m.Add(aClaim(0)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first := formatClaim(aClaim(1))
	batch := first + formatClaim(aClaim(2))
	for cut := range len(batch) + 1 {
		if cut%7 != 0 && cut != len(first)-1 && cut != len(first) && cut != len(batch)-1 && cut != len(batch) {
			continue // each takes a few fsyncs
		}
		for name, tail := range map[string]string{
			"cut":          batch[:cut],
			"zeros":        batch[:cut] + strings.Repeat("\x00", len(batch)-cut),
			"partly zeros": batch[:cut] + strings.Repeat("\x00", min(1, len(batch)-cut)) + batch[min(cut+1, len(batch)):],
		} {
			if err := os.WriteFile(path, append(bytes.Clone(before), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			m := openFile(t, path)
			if err := m.Add(aClaim(3)); err != nil {
				t.Fatal(err)
			}
			whole := strings.Count(batch[:cut], "\n")
			if name == "cut" && (cut == len(first)-1 || cut == len(batch)-1) {
				whole++ // all but the line's end is there
			}
			want := []Claim{aClaim(0), aClaim(1), aClaim(2)}[:1+whole]
			if got := load(t, openFile(t, path)); !slices.Equal(got, append(want, aClaim(3))) {
				t.Fatalf("%s at %d: got %v", name, cut, got)
			}
			m.Close()
		}
	}
}

func TestFileDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "learned")
	var text strings.Builder
	text.WriteString(fileHeader)
	for i := 0; text.Len() < 2*maxBatch; i++ {
		text.WriteString(formatClaim(aClaim(i)))
	}
	for name, content := range map[string]string{
		"early line": strings.Replace(text.String(), "Cm3 ", "Cm4 ", 1),
		"late line":  fileHeader + formatClaim(aClaim(0)) + strings.Replace(formatClaim(aClaim(1)), "Cm1", "CM1", 1) + formatClaim(aClaim(2)),
		"empty line": fileHeader + formatClaim(aClaim(0)) + "\n" + formatClaim(aClaim(2)),
		"CRLF":       fileHeader + strings.ReplaceAll(formatClaim(aClaim(0))+formatClaim(aClaim(1)), "\n", "\r\n"),
		"header":     strings.Replace(text.String(), "1", "2", 1),
		"empty":      "",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenFile(path); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != content {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

// A write that fails is undone, and later ones do not stand behind its rest.
func TestFileWriteFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "learned")
	m := openFile(t, path)
	if err := m.Add(aClaim(0)); err != nil {
		t.Fatal(err)
	}
	good := m.f
	readOnly, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	m.f = readOnly
	if err := m.Add(aClaim(1)); err == nil {
		t.Error("written to a file that cannot be")
	}
	m.f = good
	if err := m.Add(aClaim(2)); err == nil {
		t.Error("written where a part of a line may stand")
	}
	if got := load(t, openFile(t, path)); !slices.Equal(got, []Claim{aClaim(0)}) {
		t.Errorf("got %v", got)
	}
}

func TestFileConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "learned")
	m := openFile(t, path)
	const n = 2000
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := m.Add(aClaim(i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	seen := make(map[Claim]bool)
	for _, c := range load(t, openFile(t, path)) {
		seen[c] = true
	}
	if len(seen) != n {
		t.Errorf("%d of %d kept", len(seen), n)
	}
}

func FuzzParseClaim(f *testing.F) {
	f.Add(strings.TrimSuffix(formatClaim(aClaim(7)), "\n"))
	f.Add(strings.TrimSuffix(formatClaim(Claim{kmID("a"), onem2m.AEID{SP: sp, Stem: "S12"}}), "\n"))
	f.Add("meter7@maf.example.com Cmeter7 00000000")
	f.Fuzz(func(t *testing.T, line string) {
		if c, err := parseClaim(line); err == nil && formatClaim(c) != line+"\n" {
			t.Errorf("%q becomes %q", line, formatClaim(c))
		}
	})
}

// One fsync is shared by the registrations that come together.
func BenchmarkFileAdd(b *testing.B) {
	m := openFile(b, filepath.Join(b.TempDir(), "learned"))
	b.SetParallelism(50)
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if err := m.Add(aClaim(i)); err != nil {
				b.Error(err)
			}
		}
	})
}
