package matrix

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"

	"github.com/onem2m-maf/maf/onem2m"
)

//go:embed testdata/matrix.txt
var table string

// A line is one line of the table: a class of forms, or one form, of one peer.
type line struct {
	cells  []string // one for each operation
	clause string
	used   bool
}

// Rows returns the whole table: every one of Peers with every one of Forms and
// each operation. A combination that no line covers is an error, and so is a
// line that covers none.
func Rows() ([]Row, error) {
	lines, err := parse(table)
	if err != nil {
		return nil, err
	}
	var rows []Row
	for _, peer := range Peers() {
		for _, form := range Forms() {
			l := lines[peer.Name+" "+strconv.Quote(form.From)]
			if l == nil || !form.HasFrom {
				l = lines[peer.Name+" "+form.Class]
			}
			if l == nil {
				return nil, fmt.Errorf("matrix: nothing says what %s gets with From %q (class %s)", peer.Name, form.From, form.Class)
			}
			l.used = true
			for i, op := range peer.Operations() {
				row := Row{Peer: peer, Form: form, Operation: op, Clause: l.clause}
				if err := row.verdict(l.cells[i]); err != nil {
					return nil, err
				}
				rows = append(rows, row)
			}
		}
	}
	for key, l := range lines {
		if !l.used {
			return nil, fmt.Errorf("matrix: the line %s is about no peer or form", key)
		}
	}
	return rows, nil
}

// verdict reads one cell.
func (r *Row) verdict(cell string) error {
	if cell == "same" {
		r.Origin = r.Form.From
		return nil
	}
	if origin, ok := strings.CutPrefix(cell, "="); ok {
		r.Origin = origin
		return nil
	}
	n, err := strconv.Atoi(cell)
	if err != nil || n < 4000 {
		return fmt.Errorf("matrix: %v: %q is no verdict", r, cell)
	}
	r.Status = onem2m.ResponseStatusCode(n)
	return nil
}

// parse reads the table's lines, by peer and by form or class.
func parse(text string) (map[string]*line, error) {
	operations := Peer{}.Operations()
	lines := make(map[string]*line)
	peer := ""
	for n, s := range strings.Split(text, "\n") {
		s, _, _ = strings.Cut(s, "##")
		words := strings.Fields(s)
		switch {
		case len(words) == 0:
			continue
		case words[0] == "peer" && len(words) == 2:
			peer = words[1]
			continue
		case len(words) < 1+len(operations)+1:
			return nil, fmt.Errorf("matrix: line %d is too short", n+1)
		}
		key := peer + " " + words[0]
		if lines[key] != nil {
			return nil, fmt.Errorf("matrix: line %d says %s again", n+1, key)
		}
		lines[key] = &line{
			cells:  words[1 : 1+len(operations)],
			clause: strings.Join(words[1+len(operations):], " "),
		}
	}
	return lines, nil
}
