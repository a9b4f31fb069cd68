// Package docs holds the tests of the documents: what they tell to run runs,
// and what they name exists.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository, as seen from here.
const root = "../.."

// documents returns the paths of all Markdown files, from the root.
func documents(t *testing.T) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			name, err := filepath.Rel(root, path)
			found = append(found, filepath.ToSlash(name))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) < 5 {
		t.Fatalf("only %q: is the root elsewhere?", found)
	}
	return found
}

// read returns a file's text.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A block is an example in a document.
type block struct {
	line     int    // where it begins
	language string // of a fenced block; "shell" for an indented one, by our convention
	text     string
}

// blocks returns the examples in a Markdown text, in order.
func blocks(markdown string) []block {
	var all []block
	var open *block
	fenced := false
	for i, line := range strings.Split(markdown, "\n") {
		indented, isIndented := strings.CutPrefix(line, "    ")
		language, isFence := strings.CutPrefix(line, "```")
		switch {
		case fenced && isFence:
			open, fenced = nil, false
		case fenced:
			open.text += line + "\n"
		case isFence:
			all = append(all, block{line: i + 1, language: language})
			open, fenced = &all[len(all)-1], true
		case !isIndented:
			open = nil
		case open == nil:
			all = append(all, block{i + 1, "shell", indented + "\n"})
			open = &all[len(all)-1]
		default:
			open.text += indented + "\n"
		}
	}
	return all
}

// prose is a Markdown text less its examples.
func prose(markdown string) string {
	var b strings.Builder
	fenced := false
	for line := range strings.Lines(markdown) {
		switch {
		case strings.HasPrefix(line, "```"):
			fenced = !fenced
		case !fenced && !strings.HasPrefix(line, "    "):
			b.WriteString(line)
		}
	}
	return b.String()
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// spans returns what stands between single backquotes in a Markdown text.
func spans(markdown string) []string {
	var all []string
	for _, m := range codeSpan.FindAllStringSubmatch(prose(markdown), -1) {
		all = append(all, strings.ReplaceAll(m[1], "\n", " "))
	}
	return all
}
