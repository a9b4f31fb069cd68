// Package configfile reads the configuration files of the programs: TOML, in
// which each key has a setter, so that an unknown key is an error, and every
// problem is told with its line and what to do.
package configfile

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

// maxSize bounds what is read as a configuration: a wrong -config, such as
// /dev/zero, ends with a message and not with memory.
const maxSize = 1 << 20

// A Problem is one thing wrong with a configuration.
type Problem struct {
	Line int    // in the file; 0 when no line is to blame
	Key  string // dotted, such as "handshake.timeout"; "" when no key is to blame
	Text string // what is wrong and what to do
}

// Error is everything wrong with a configuration, in order of line.
type Error struct {
	File     string // "" when there is none
	Problems []Problem
}

// Error returns one problem per line, the way compilers do.
func (e *Error) Error() string {
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

// Check returns an *Error of the problems, nil when there are none.
func Check(file string, problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	return &Error{file, problems}
}

// A Spec is what one program's configuration file may hold.
type Spec struct {
	Program string // for messages, such as "mafd"
	Manual  string // where every key is described, such as "docs/mafd.toml"
	// Settings names every key, with what reads its value.
	Settings map[string]Setter
	// Whole, when not nil, says what is wrong with the configuration as a whole.
	// It is asked when each setting is sound by itself, since only here are line
	// numbers known.
	Whole func() []Problem
}

// ReadFile reads the file at path. Relative paths in it are relative to its
// folder. What is wrong with its text is an *Error.
func (s Spec) ReadFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return err
	}
	problems := []Problem{{Text: "is larger than 1 MiB; is it the right file?"}}
	if len(data) <= maxSize {
		problems = s.Parse(data, filepath.Dir(path))
	}
	return Check(path, problems)
}

// Parse reads a text, in which relative paths start at dir, and returns all
// that is wrong with it.
func (s Spec) Parse(data []byte, dir string) []Problem {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return []Problem{syntaxProblem(err)}
	}
	var problems []Problem
	for key, value := range flatten(tree, s.Settings) {
		set, ok := s.Settings[key]
		if !ok {
			problems = append(problems, Problem{Key: key, Text: s.unknownKey(key)})
		} else if err := set(value, dir); err != nil {
			problems = append(problems, Problem{Key: key, Text: err.Error()})
		}
	}
	if len(problems) == 0 && s.Whole != nil {
		problems = s.Whole()
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

// Shown returns the keys and tables that stand in a text, which must be valid
// TOML, with the line where each first appears.
func Shown(data []byte) map[string]int { return keyLines(data) }

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
func flatten(tree map[string]any, settings map[string]Setter) map[string]any {
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

func hasPrefix(settings map[string]Setter, prefix string) bool {
	for key := range settings {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// unknownKey says what to write instead of key.
func (s Spec) unknownKey(key string) string {
	known := slices.Sorted(maps.Keys(s.Settings))
	best, bestDistance := "", len(key)
	for _, k := range known {
		// The last part alone also counts: a key in the wrong table.
		distance := min(editDistance(key, k), 1+editDistance(lastPart(key), lastPart(k)))
		if distance < bestDistance {
			best, bestDistance = k, distance
		}
	}
	if bestDistance > max(2, len(key)/3) {
		return "is not a key that " + s.Program + " knows; " + s.Manual + " lists them all"
	}
	return "is not a key that " + s.Program + " knows; did you mean " + best + "?"
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
