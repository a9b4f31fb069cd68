package leaks

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// suiteKeys are the keys that the project's tests use, as they stand in them, save
// for those that are plain English. Those that are drawn at random look like keys;
// see looksLikeKey.
var suiteKeys = []struct {
	file, text string
	key        []byte
}{
	{"tlspsk/tlspsk_test.go", `"0123456789abcdef0123456789abcdef"`, []byte("0123456789abcdef0123456789abcdef")},
	{"internal/interop/matrix_test.go", `"0123456789abcdef"`, []byte("0123456789abcdef")},
	{"internal/peers/peers_test.go", "000102030405060708090a0b0c0d0e0f", sequence(16)},
	{"internal/cli/testdata/script/handshake.txtar", "000102030405060708090a0b0c0d0e0f", sequence(16)},
	{"saef/example_test.go", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", sequence(32)},
	{"saef/maf_test.go", `bytes.Repeat([]byte("m"), 32)`, bytes.Repeat([]byte("m"), 32)},
	{"saef/device_test.go", `bytes.Repeat([]byte("c"), 32)`, bytes.Repeat([]byte("c"), 32)},
	{"internal/keyapi/keyserver/keyserver_test.go", `bytes.Repeat([]byte("k"), 32)`, bytes.Repeat([]byte("k"), 32)},
}

func sequence(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// looksLikeKey matches 32 octets in hexadecimal or base64: every Kc, and every Km
// that the MAF draws or a test does. Nothing else that the tests print is of that
// length but the hashes of the audit log; an identifier of a Kc is half as long.
var looksLikeKey = regexp.MustCompile(`\b[0-9A-Fa-f]{64}\b|(^|[^0-9A-Za-z+/])[0-9A-Za-z+/]{43}=`)

// shownOnPurpose matches a line of maf's that shows a key because it was asked to.
var shownOnPurpose = regexp.MustCompile(`^ *K[mc] +[0-9a-f]{64}\n$`)

// auditHash matches a hash of the audit log, which is as long as a key in
// hexadecimal.
var auditHash = regexp.MustCompile(`("hash":"|"head":"|\bhead +)[0-9a-f]{64}\b`)

// suiteOutput names the file with the output of "go test -v ./...".
const suiteOutput = "MAF_SUITE_OUTPUT"

// TestSuiteOutput searches what all the project's tests printed, and the programs
// that they started, for keys.
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
	shown := 0
	for line := range strings.Lines(string(output)) {
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "> "):
			continue // scripts are shown as they are run, and give keys to commands
		case shownOnPurpose.MatchString(line):
			shown++
		case looksLikeKey.MatchString(auditHash.ReplaceAllString(line, "")):
			t.Errorf("this looks like a key: %s", line)
		}
		lines = append(lines, line)
	}
	if shown == 0 {
		t.Error("not even what is shown on purpose is there")
	}
	if len(lines) < 1000 {
		t.Errorf("%s has %d lines; that is not the whole suite", path, len(lines))
	}
	secrets.check(t, path, []byte(strings.Join(lines, "")))
}
