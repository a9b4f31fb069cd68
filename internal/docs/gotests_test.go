package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testName    = regexp.MustCompile(`\b(?:Test|Fuzz|Benchmark)[A-Z]\w*`)
	declaration = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
)

// TestTestNames: every test that a document names exists. A name may be the
// beginning of several, as with "go test -run".
func TestTestNames(t *testing.T) {
	declared := testsDeclared(t)
	for _, document := range documents(t) {
		for _, name := range testName.FindAllString(read(t, document), -1) {
			if !slices.ContainsFunc(declared, func(d string) bool { return strings.HasPrefix(d, name) }) {
				t.Errorf("%s names %s, and there is no such test", document, name)
			}
		}
	}
}

func testsDeclared(t *testing.T) []string {
	var names []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

var packagePath = regexp.MustCompile(`\s\./([\w/]*\w)(?:\s|$)`)

// TestGoCommands: the packages that a "go" command in a document names exist.
func TestGoCommands(t *testing.T) {
	for document, lines := range commandLines(t) {
		for _, line := range lines {
			if !strings.Contains(line, "go test") && !strings.Contains(line, "go run") {
				continue
			}
			for _, m := range packagePath.FindAllStringSubmatch(line, -1) {
				if found, _ := filepath.Glob(filepath.Join(root, m[1], "*.go")); len(found) == 0 {
					t.Errorf("%s: there is no package ./%s in: %s", document, m[1], line)
				}
			}
		}
	}
}
