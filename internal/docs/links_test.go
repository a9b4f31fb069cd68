package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
)

// TestLinks: every link within the repository leads to a file that is there, and
// to a heading in it.
func TestLinks(t *testing.T) {
	for _, document := range documents(t) {
		text := prose(read(t, document))
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := document
			if file != "" {
				target = path.Join(path.Dir(document), file)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s: %v", document, m[1], err)
			} else if anchor != "" && !anchors(read(t, target))[anchor] {
				t.Errorf("%s links to %s, and there is no such heading", document, m[1])
			}
		}
	}
}

// anchors returns the names under which the headings of a text can be linked to.
func anchors(markdown string) map[string]bool {
	names := make(map[string]bool)
	for _, m := range heading.FindAllStringSubmatch(prose(markdown), -1) {
		name := strings.ToLower(strings.ReplaceAll(m[1], " ", "-"))
		names[regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(name, "")] = true
	}
	return names
}

// TestPaths: a path of ours that a document names in its text exists.
func TestPaths(t *testing.T) {
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	folders := make(map[string]bool)
	for _, e := range entries {
		folders[e.Name()] = e.IsDir()
	}
	checked := 0
	for _, document := range documents(t) {
		for _, span := range spans(read(t, document)) {
			name := strings.TrimPrefix(span, "./")
			first, _, below := strings.Cut(name, "/")
			if !below || !folders[first] || strings.ContainsAny(name, " @") {
				continue
			}
			checked++
			// A pattern, such as docs/*.md, is to match something.
			if found, err := filepath.Glob(filepath.Join(root, name)); err != nil || len(found) == 0 {
				t.Errorf("%s names %s, which does not exist", document, span)
			}
		}
	}
	if checked == 0 {
		t.Error("no path was found in any document: this test tests nothing")
	}
}
