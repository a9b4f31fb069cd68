// Package provision reads and writes files of many devices with their master
// keys: what a factory burns, what another MAF exported, and what brokers and
// tunnels keep their pre-shared keys in.
//
// The files are read line by line in one bounded buffer, which is wiped at the
// end; keys never become strings. An error names a line and a column and quotes no
// value: with two columns swapped by mistake, any value may be a key.
package provision

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// A Format is one way to write devices into a file.
type Format string

// The formats.
const (
	CSV       Format = "csv"       // a line that names the columns, then a device on each
	JSONL     Format = "jsonl"     // JSON Lines: a JSON object on each
	Mosquitto Format = "mosquitto" // psk_file: identity:hexadecimal, and # comments
	Stunnel   Format = "stunnel"   // PSKsecrets: identity:hexadecimal, or identity:text
	EMQX      Format = "emqx"      // psk_authentication.init_file: identity:text
)

// ParseFormat reads a format's name.
func ParseFormat(name string) (Format, error) {
	switch f := Format(name); f {
	case CSV, JSONL, Mosquitto, Stunnel, EMQX:
		return f, nil
	}
	return "", fmt.Errorf("the format is csv, jsonl, mosquitto, stunnel or emqx, not %.20q", name)
}

// Defaults are for what a row leaves open.
type Defaults struct {
	FQDN     onem2m.FQDN  // of identities without "@"
	EntityB  onem2m.CSEID // absolute
	Lifetime time.Duration
	Disabled bool
}

// BadRow is why a row can't be read. Those after it can.
type BadRow struct {
	Line int
	Err  error
}

func (e *BadRow) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *BadRow) Unwrap() error { return e.Err }

// fields are a row's values as they are written; empty ones are left open.
type fields struct {
	kmID, entityB, aeID, cseID, lifetime string
	disabled                             *bool
}

// row makes a row of its values.
func (d *Defaults) row(f *fields) (row adminapi.ImportRow, err error) {
	if f.kmID == "" {
		return row, errors.New("it has no KmID")
	}
	if !strings.Contains(f.kmID, "@") {
		if d.FQDN == "" {
			return row, errors.New("the KmID has no @MAF-FQDN, and no default is given (--fqdn)")
		}
		f.kmID += "@" + d.FQDN.String()
	}
	row.EntityB, row.Lifetime, row.Disabled = d.EntityB, adminapi.Duration(d.Lifetime), d.Disabled
	read := func(name, text string, into interface{ UnmarshalText([]byte) error }) {
		if text == "" || err != nil {
			return
		}
		if e := into.UnmarshalText([]byte(text)); e != nil {
			err = fmt.Errorf("%s: %s", name, withoutValue(e))
		}
	}
	read("the KmID", f.kmID, &row.KmID)
	read("the Entity B", f.entityB, &row.EntityB)
	read("the AE-ID", f.aeID, &row.AEID)
	read("the CSE-ID", f.cseID, &row.CSEID)
	read("the lifetime", f.lifetime, &row.Lifetime)
	if f.disabled != nil {
		row.Disabled = *f.disabled
	}
	if err == nil && row.EntityB.IsZero() {
		err = errors.New("it names no Entity B, and no default is given (--entity-b)")
	}
	return row, err
}

// withoutValue returns the text of a parser's error less the value that it begins
// with in quotes.
func withoutValue(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, `" is not`); i >= 0 {
		return text[i+len(`" is `):]
	}
	if i := strings.LastIndex(text, " is not a valid "); i >= 0 {
		return text[i+len(" is "):]
	}
	return "it is not valid"
}
