package demo

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The play itself is in internal/cli's script tests, with the real programs.

// TestFindMafd: the one beside maf comes first; then, in the source tree, one
// is built; then one in $PATH.
func TestFindMafd(t *testing.T) {
	dir := t.TempDir()
	find := func(o Options) (string, error) {
		o.Maf, o.Progress = filepath.Join(dir, "bin", "maf"), io.Discard
		return findMafd(t.Context(), o, dir)
	}
	if path, err := find(Options{Mafd: "/named"}); err != nil || path != "/named" {
		t.Errorf("named: %q %v", path, err)
	}
	if _, err := exec.LookPath("go"); err == nil && !testing.Short() {
		path, err := find(Options{})
		if err != nil || path != filepath.Join(dir, "mafd") {
			t.Fatalf("built: %q %v", path, err)
		}
		if out, err := exec.Command(path, "-version").Output(); err != nil || !strings.HasPrefix(string(out), "devel") {
			t.Errorf("what was built says %q %v", out, err)
		}
	}

	program := func(elements ...string) string {
		t.Helper()
		path := filepath.Join(append([]string{dir}, elements...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Chdir(dir) // no source tree
	t.Setenv("PATH", "")
	if path, err := find(Options{}); err != ErrNoMafd {
		t.Errorf("nowhere: %q %v", path, err)
	}
	t.Setenv("PATH", filepath.Join(dir, "path"))
	want := program("path", "mafd")
	if path, err := find(Options{}); err != nil || path != want {
		t.Errorf("in $PATH: %q %v", path, err)
	}
	want = program("bin", "mafd")
	if path, err := find(Options{}); err != nil || path != want {
		t.Errorf("beside: %q %v", path, err)
	}
}

func TestNarrator(t *testing.T) {
	var out bytes.Buffer
	n := newNarrator(Options{Out: &out, Colour: true})
	n.chapter("Title")
	n.command(outcome{Command: []string{"maf", "x"}, Stdin: "in\n", Stderr: "bad\n", Exit: 1})
	want := "\n\x1b[1m1. Title\x1b[0m\n\n\x1b[36m   $ echo \"in\" | maf x\x1b[0m\n\x1b[31m     bad\x1b[0m\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
	long := "$ maf connect 127.0.0.1:41135 --as meter7@maf.localhost --maf 127.0.0.1:44875 --km-file meter7.key --kc-file meter7.kc"
	wrapped := wrap(long)
	if strings.ReplaceAll(wrapped, " \\\n    ", " ") != long {
		t.Errorf("wrapping changes the command: %s", wrapped)
	}
	for line := range strings.Lines(wrapped) {
		if len(line) > 100 || strings.HasSuffix(line, "--as \\\n") {
			t.Errorf("wrapped badly: %q", line)
		}
	}
}
