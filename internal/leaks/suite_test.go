package leaks

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// suiteKeys are the keys that the project's tests use, as they stand in them, save
// for those that are drawn at random or are plain English.
var suiteKeys = []struct {
	file, text string
	key        []byte
}{
	{"tlspsk/tlspsk_test.go", `"0123456789abcdef0123456789abcdef"`, []byte("0123456789abcdef0123456789abcdef")},
	{"internal/interop/matrix_test.go", `"0123456789abcdef"`, []byte("0123456789abcdef")},
	{"internal/peers/peers_test.go", "000102030405060708090a0b0c0d0e0f", sequence(16)},
	{"internal/cost/cost_test.go", "000102030405060708090a0b0c0d0e0f", sequence(16)},
	{"internal/cli/testdata/script/handshake.txtar", "000102030405060708090a0b0c0d0e0f", sequence(16)},
	{"saef/example_test.go", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", sequence(32)},
	{"saef/maf_test.go", `bytes.Repeat([]byte("m"), 32)`, bytes.Repeat([]byte("m"), 32)},
}

func sequence(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// suiteOutput names the file with the output of "go test -v ./...".
const suiteOutput = "MAF_SUITE_OUTPUT"

// TestSuiteOutput searches what all the project's tests printed for their keys.
func TestSuiteOutput(t *testing.T) {
	secrets := newFinder()
	for _, k := range suiteKeys {
		source, err := os.ReadFile(filepath.Join("../..", k.file))
		if err != nil || !bytes.Contains(source, []byte(k.text)) {
			t.Errorf("%s does not have its key %s any more (%v): this test looks for the wrong one", k.file, k.text, err)
		}
		secrets.add("key of "+k.file, k.key)
	}
	path := os.Getenv(suiteOutput)
	if path == "" {
		t.Skip(suiteOutput + " does not name a file with the output of go test -v ./...")
	}
	output, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(output)) {
		// Scripts are shown as they are run, and give keys to commands.
		if !strings.HasPrefix(strings.TrimSpace(line), "> ") {
			lines = append(lines, line)
		}
	}
	if len(lines) < 1000 {
		t.Errorf("%s has %d lines; that is not the whole suite", path, len(lines))
	}
	secrets.check(t, path, []byte(strings.Join(lines, "")))
}
