package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
	"unicode/utf8"
)

// output prints results and errors by the rules of docs/cli-output.md.
type output struct {
	stdout, stderr io.Writer
	json           bool
	colour         bool
}

func newOutput(stdout, stderr io.Writer) *output {
	return &output{stdout: stdout, stderr: stderr, colour: isTerminal(stdout) && os.Getenv("NO_COLOR") == ""}
}

// isTerminal reports whether w is a terminal (or another character device,
// where colours hurt nobody).
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// field is one line of a result for people.
type field struct{ name, value string }

// result prints v as JSON, or the fields, those with a value, for people.
func (o *output) result(v any, fields ...field) error {
	if o.json {
		return o.writeJSON(o.stdout, v)
	}
	width := 0
	for _, f := range fields {
		width = max(width, len(f.name))
	}
	var b strings.Builder
	for _, f := range fields {
		if f.value != "" {
			fmt.Fprintf(&b, "%-*s  %s\n", width, f.name, f.value)
		}
	}
	_, err := io.WriteString(o.stdout, b.String())
	return err
}

func (o *output) writeJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// note tells people something beside the result.
func (o *output) note(format string, args ...any) {
	if !o.json {
		fmt.Fprintf(o.stderr, format+"\n", args...)
	}
}

// log returns the log of a command that runs until it is stopped, on standard
// error.
func (o *output) log() *slog.Logger {
	if o.json {
		return slog.New(slog.NewJSONHandler(o.stderr, nil))
	}
	return slog.New(slog.NewTextHandler(o.stderr, nil))
}

// failure prints an error and returns the exit code.
func (o *output) failure(a advised) int {
	if o.json {
		o.writeJSON(o.stderr, struct {
			Error string `json:"error"`
			Hint  string `json:"hint,omitempty"`
			Exit  int    `json:"exit"`
		}{a.Error(), a.hint, a.exit})
		return a.exit
	}
	fmt.Fprintf(o.stderr, "maf: %v\n", a.err)
	if a.hint != "" {
		fmt.Fprintf(o.stderr, "  try: %s\n", a.hint)
	}
	return a.exit
}

// A table prints rows of equal length in columns. It holds back some rows to
// find the columns' widths and prints the others as they come: a list of a
// million clients starts at once and needs no memory.
type table struct {
	w      io.Writer
	rows   [][]string // held back, the heading first
	widths []int      // nil while rows are held back
}

// heldBack is how many rows decide about the widths.
const heldBack = 200

func newTable(w io.Writer, heading ...string) *table {
	return &table{w: w, rows: [][]string{heading}}
}

func (t *table) row(cells ...string) error {
	if t.widths != nil {
		return t.print(cells)
	}
	t.rows = append(t.rows, cells)
	if len(t.rows) > heldBack {
		return t.flush()
	}
	return nil
}

// flush prints what was held back. Call it after the last row.
func (t *table) flush() error {
	if t.widths != nil {
		return nil
	}
	t.widths = make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range t.rows {
		if err := t.print(row); err != nil {
			return err
		}
	}
	t.rows = nil
	return nil
}

func (t *table) print(cells []string) error {
	var b strings.Builder
	for i, cell := range cells {
		if i < len(cells)-1 { // no blanks at the end of a line
			cell = fmt.Sprintf("%-*s  ", t.widths[i], cell)
		}
		b.WriteString(cell)
	}
	b.WriteByte('\n')
	_, err := io.WriteString(t.w, b.String())
	return err
}

// stamp shows a time to people.
func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}
