package mafd

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxConfigSize bounds what is read as a configuration: a wrong -config, such
// as /dev/zero, ends with a message and not with memory.
const maxConfigSize = 1 << 20

// A Problem is one thing wrong with a configuration.
type Problem struct {
	Line int    // in the file; 0 when no line is to blame
	Key  string // dotted, such as "handshake.timeout"; "" when no key is to blame
	Text string // what is wrong and what to do
}

// ConfigError is everything wrong with a configuration, in order of line.
type ConfigError struct {
	File     string // "" when there is none
	Problems []Problem
}

// Error returns one problem per line, the way compilers do.
func (e *ConfigError) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		file := cmp.Or(e.File, "configuration")
		if p.Line > 0 {
			fmt.Fprintf(&b, "%s:%d: ", file, p.Line)
		} else {
			fmt.Fprintf(&b, "%s: ", file)
		}
		if p.Key != "" {
			fmt.Fprintf(&b, "%s ", p.Key)
		}
		b.WriteString(p.Text)
	}
	return b.String()
}

// LoadFile reads the configuration file at path over c. Relative paths in it
// are relative to its folder. Call Validate afterwards.
func (c *Config) LoadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfigSize+1))
	if err != nil {
		return err
	}
	problems := []Problem{{Text: "is larger than 1 MiB; is it the right file?"}}
	if len(data) <= maxConfigSize {
		problems = c.parse(data, filepath.Dir(path))
	}
	if len(problems) > 0 {
		return &ConfigError{path, problems}
	}
	return nil
}

// Validate checks c as a whole. file, for messages, may be empty.
func (c *Config) Validate(file string) error {
	if problems := c.problems(); len(problems) > 0 {
		return &ConfigError{file, problems}
	}
	return nil
}

// parse reads a configuration text over c and returns all that is wrong with
// it. When the text is sound it goes on to check c as a whole, since only here
// are line numbers known.
func (c *Config) parse(data []byte, dir string) []Problem {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return []Problem{syntaxProblem(err)}
	}
	var problems []Problem
	settings := c.settings()
	for key, value := range flatten(tree, settings) {
		set, ok := settings[key]
		if !ok {
			problems = append(problems, Problem{Key: key, Text: unknownKey(key, slices.Collect(maps.Keys(settings)))})
		} else if err := set(value, dir); err != nil {
			problems = append(problems, Problem{Key: key, Text: err.Error()})
		}
	}
	if len(problems) == 0 && c.State != "" { // an unset state folder is the caller's to fill in
		problems = c.problems()
	}
	lines := keyLines(data)
	for i := range problems {
		problems[i].Line = lines.of(problems[i].Key)
	}
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Key, b.Key))
	})
	return problems
}

func syntaxProblem(err error) Problem {
	var at *toml.DecodeError
	if !errors.As(err, &at) {
		return Problem{Text: err.Error()}
	}
	line, _ := at.Position()
	return Problem{Line: line, Text: "is not valid TOML: " + strings.TrimPrefix(at.Error(), "toml: ")}
}

// flatten turns nested tables into dotted keys. A table that no setting lies
// in stays one entry, so that an unknown table is one problem and not many.
func flatten(tree map[string]any, settings map[string]setter) map[string]any {
	flat := make(map[string]any)
	var walk func(prefix string, table map[string]any)
	walk = func(prefix string, table map[string]any) {
		for name, value := range table {
			key := prefix + name
			if inner, ok := value.(map[string]any); ok && hasPrefix(settings, key+".") {
				walk(key+".", inner)
			} else {
				flat[key] = value
			}
		}
	}
	walk("", tree)
	return flat
}

func hasPrefix(settings map[string]setter, prefix string) bool {
	for key := range settings {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// unknownKey says what to write instead of key.
func unknownKey(key string, known []string) string {
	slices.Sort(known)
	best, bestDistance := "", len(key)
	for _, k := range known {
		// The last part alone also counts: a key in the wrong table.
		distance := min(editDistance(key, k), 1+editDistance(lastPart(key), lastPart(k)))
		if distance < bestDistance {
			best, bestDistance = k, distance
		}
	}
	if bestDistance > max(2, len(key)/3) {
		return "is not a key that mafd knows; docs/mafd.toml lists them all"
	}
	return "is not a key that mafd knows; did you mean " + best + "?"
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// editDistance is Levenshtein's: how many characters to insert, remove or
// change to make b of a.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// lineIndex knows on which line a key or table first appears.
type lineIndex map[string]int

// of returns the line of key, or of the nearest table around it (an inline
// table is one line), or 0.
func (x lineIndex) of(key string) int {
	for key != "" {
		if line, ok := x[key]; ok {
			return line
		}
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
	}
	return 0
}

// keyLines indexes a text that is known to be valid TOML.
func keyLines(data []byte) lineIndex {
	index := make(lineIndex)
	var parser unstable.Parser
	parser.Reset(data)
	table := ""
	for parser.NextExpression() {
		node := parser.Expression()
		name, line := table, 0
		if node.Kind == unstable.Table || node.Kind == unstable.ArrayTable {
			name = ""
		}
		for parts := node.Key(); parts.Next(); {
			part := parts.Node()
			if line == 0 {
				line = parser.Shape(part.Raw).Start.Line
			}
			name = strings.TrimPrefix(name+"."+string(part.Data), ".")
		}
		if node.Kind != unstable.KeyValue {
			table = name
		}
		if _, ok := index[name]; !ok {
			index[name] = line
		}
	}
	return index
}
