package provision

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/onem2m-maf/maf/internal/secret"
)

// The columns of CSV (RFC 4180). encoding/csv would make strings of the keys; and
// a row that may go on in the next line, as it may there, turns one missing quote
// into one huge row.
const (
	colKmID     = "kmid"
	colKm       = "km"
	colEntityB  = "entity_b"
	colAEID     = "ae_id"
	colCSEID    = "cse_id"
	colLifetime = "lifetime"
	colDisabled = "disabled"
)

func isColumn(name string) bool {
	switch name {
	case colKmID, colKm, colEntityB, colAEID, colCSEID, colLifetime, colDisabled:
		return true
	}
	return false
}

// A table knows the columns of a file.
type table struct {
	columns   []string
	separator byte
	cells     [][]byte // for the next row
}

// separator returns what stands between the columns in a heading: a comma, or
// what a spreadsheet writes in countries that have the comma in numbers; 0 when
// the line is no heading.
func separator(heading []byte) byte {
	for _, sep := range []byte(",;\t") {
		for cell := range bytes.SplitSeq(heading, []byte{sep}) {
			if string(bytes.Trim(cell, `" `)) == colKmID && bytes.IndexByte(heading, sep) >= 0 {
				return sep
			}
		}
	}
	if string(heading) == colKmID {
		return ','
	}
	return 0
}

func readHeading(line []byte) (*table, error) {
	t := &table{separator: separator(line)}
	if t.separator == 0 {
		return nil, fmt.Errorf("line 1 does not name the columns; one is %s, others %s", colKmID,
			strings.Join([]string{colKm, colEntityB, colAEID, colCSEID, colLifetime, colDisabled}, ", "))
	}
	if err := t.split(line); err != nil {
		return nil, fmt.Errorf("line 1: %w", err)
	}
	seen := make(map[string]bool)
	for i, cell := range t.cells {
		name := string(cell)
		if !isColumn(name) {
			return nil, fmt.Errorf("column %d of line 1 has an unknown name", i+1)
		}
		if seen[name] {
			return nil, fmt.Errorf("line 1 has the column %s twice", name)
		}
		seen[name] = true
		t.columns = append(t.columns, name)
	}
	return t, nil
}

// split cuts a line into t.cells, which are parts of it. It takes quotes out in
// place.
func (t *table) split(line []byte) error {
	t.cells = t.cells[:0]
	for {
		var cell []byte
		if len(line) > 0 && line[0] == '"' {
			n, m := 1, 0 // read, written
			for {
				if n == len(line) {
					return errors.New("a quote is not closed")
				}
				c := line[n]
				n++
				if c == '"' {
					if n == len(line) || line[n] != '"' {
						break
					}
					n++
				}
				line[m] = c
				m++
			}
			cell, line = line[:m], line[n:]
			if len(line) > 0 && line[0] != t.separator {
				return errors.New("something follows a closing quote")
			}
		} else {
			n := bytes.IndexByte(line, t.separator)
			if n < 0 {
				n = len(line)
			}
			cell, line = bytes.TrimSpace(line[:n]), line[n:]
			if bytes.IndexByte(cell, '"') >= 0 {
				return errors.New("a quote stands inside of a cell")
			}
		}
		t.cells = append(t.cells, cell)
		if len(line) == 0 {
			return nil
		}
		line = line[1:]
	}
}

func (t *table) read(line []byte, f *fields) (km secret.Key, err error) {
	if err := t.split(line); err != nil {
		return km, err
	}
	if len(t.cells) != len(t.columns) {
		return km, fmt.Errorf("it has %d columns, and the first line %d", len(t.cells), len(t.columns))
	}
	for i, name := range t.columns {
		cell := t.cells[i]
		if len(cell) == 0 {
			continue
		}
		switch name {
		case colKmID:
			f.kmID = string(cell)
		case colKm:
			if km, err = secret.Parse(cell); err != nil {
				return km, fmt.Errorf("column km: %w", err)
			}
		case colEntityB:
			f.entityB = string(cell)
		case colAEID:
			f.aeID = string(cell)
		case colCSEID:
			f.cseID = string(cell)
		case colLifetime:
			f.lifetime = string(cell)
		case colDisabled:
			on := bytes.EqualFold(cell, []byte("true")) // spreadsheets write TRUE
			if !on && !bytes.EqualFold(cell, []byte("false")) {
				return km, errors.New("column disabled is neither true nor false")
			}
			f.disabled = &on
		}
	}
	return km, nil
}
