package docs

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/cli"
	"github.com/onem2m-maf/maf/internal/gateway"
	"github.com/onem2m-maf/maf/internal/mafd"
)

// TestCommands: every command of maf, mafd and mafgw that a document shows or names is
// there, with the flags that it is shown with.
func TestCommands(t *testing.T) {
	checked := 0
	for document, lines := range commandLines(t) {
		for _, line := range lines {
			switch words := strings.Fields(strings.TrimPrefix(line, "sudo ")); words[0] {
			case "maf":
				checkMaf(t, document, words[1:])
			case "mafd":
				checkServer(t, document, words, mafd.Main)
			case "mafgw":
				checkServer(t, document, words, gateway.Main)
			default:
				continue
			}
			checked++
		}
	}
	if checked < 10 {
		t.Errorf("only %d commands were found in all documents", checked)
	}
}

var quoted = regexp.MustCompile(`"((?:maf|mafd|mafgw) [^"]+)"`)

// commandLines returns what may be command lines in each document: lines of
// examples, continued ones joined, and what is in backquotes or, in a comment of
// a configuration, in quotes.
func commandLines(t *testing.T) map[string][]string {
	lines := make(map[string][]string)
	for _, document := range documents(t) {
		text := read(t, document)
		found := spans(text)
		for _, b := range blocks(text) {
			joined := strings.ReplaceAll(b.text, "\\\n", " ")
			found = append(found, strings.Split(strings.TrimSpace(joined), "\n")...)
		}
		lines[document] = slices.DeleteFunc(found, func(line string) bool { return strings.TrimSpace(line) == "" })
	}
	for _, config := range []string{"docs/mafd.toml", "docs/mafgw.toml"} {
		for line := range strings.Lines(read(t, config)) {
			line = strings.TrimPrefix(line, "#")
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				lines[config] = append(lines[config], m[1])
			}
			if strings.HasPrefix(line, "     maf") {
				line, _, _ = strings.Cut(line, "(")
				lines[config] = append(lines[config], line)
			}
		}
	}
	return lines
}

var (
	subcommand = regexp.MustCompile(`^[a-z][a-z-]*$`)
	flag       = regexp.MustCompile(`^--?[a-z]`)
)

func checkMaf(t *testing.T, document string, words []string) {
	n := slices.IndexFunc(words, func(w string) bool { return !subcommand.MatchString(w) })
	if n < 0 {
		n = len(words)
	}
	var out, failure bytes.Buffer
	code := cli.Main(t.Context(), append(slices.Clone(words[:n]), "--help"), strings.NewReader(""), &out, &failure)
	// cobra shows the help of what it knows of a command's words.
	usage := strings.Join(append([]string{"  maf"}, words[:n]...), " ")
	if code != 0 || !strings.Contains(out.String(), "\n"+usage) {
		t.Errorf("%s: there is no command maf %s", document, strings.Join(words, " "))
		return
	}
	checkFlags(t, document, "maf", words, out.String())
}

func checkServer(t *testing.T, document string, words []string, main func([]string, io.Writer, io.Writer) int) {
	var out, help bytes.Buffer
	if code := main([]string{"-help"}, &out, &help); code != 0 {
		t.Fatalf("%s -help: %d", words[0], code)
	}
	checkFlags(t, document, words[0], words[1:], help.String())
}

func checkFlags(t *testing.T, document, program string, words []string, help string) {
	for _, word := range words {
		name, _, _ := strings.Cut(word, "=")
		if flag.MatchString(word) && name != "--help" && !regexp.MustCompile(`(?m)(^|\s)`+name+`\b`).MatchString(help) {
			t.Errorf("%s: %s has no flag %s in %s", document, program, name, strings.Join(words, " "))
		}
	}
}
