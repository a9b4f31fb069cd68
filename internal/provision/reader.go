package provision

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/strictjson"
)

// A Reader reads the rows of a file. It is not for concurrent use.
type Reader struct {
	lines    *bufio.Scanner
	buf      []byte
	n        int    // the number of line
	line     []byte // read and not yet used, nil when there is none
	format   Format
	defaults Defaults
	table    *table // for CSV
}

// NewReader begins to read r. Without a format it goes by the first line. Close
// the Reader in any case.
func NewReader(r io.Reader, format Format, d Defaults) (*Reader, error) {
	rd := &Reader{lines: bufio.NewScanner(r), buf: make([]byte, 0, adminapi.MaxRow), format: format, defaults: d}
	rd.lines.Buffer(rd.buf, adminapi.MaxRow)
	if err := rd.begin(); err != nil {
		rd.Close()
		return nil, err
	}
	return rd, nil
}

// begin reads the first line, and what it tells.
func (r *Reader) begin() (err error) {
	first, err := r.next()
	if err == io.EOF {
		return errors.New("it is empty")
	}
	if err != nil {
		return err
	}
	first = bytes.TrimPrefix(first, []byte("\xef\xbb\xbf")) // as spreadsheets begin files
	if r.format == "" {
		if r.format, err = detect(first); err != nil {
			return err
		}
	}
	if r.format == CSV {
		r.table, err = readHeading(first)
		return err
	}
	r.line = first
	return nil
}

// detect tells CSV and JSON Lines by the first line. The others look alike and
// mean different keys: a hexadecimal one is as long again for EMQX, which takes
// its digits for the key.
func detect(first []byte) (Format, error) {
	switch {
	case bytes.TrimSpace(first)[0] == '{':
		return JSONL, nil
	case separator(first) != 0:
		return CSV, nil
	case first[0] == '#', bytes.IndexByte(first, ':') > 0:
		return "", errors.New("it looks like a file of pre-shared keys; say whose: --format mosquitto, stunnel or emqx")
	}
	return "", errors.New("its format can't be told by its first line; name it with --format")
}

// Format is the one that the file has.
func (r *Reader) Format() Format { return r.format }

// Close wipes what was read of the file.
func (r *Reader) Close() { clear(r.buf[:cap(r.buf)]) }

// Read returns the next row, or io.EOF after the last. After a *BadRow go on; any
// other error is the end. The row's Km is the caller's, to be wiped.
func (r *Reader) Read() (adminapi.ImportRow, error) {
	line := r.line
	r.line = nil
	if line == nil {
		var err error
		if line, err = r.next(); err != nil {
			return adminapi.ImportRow{}, err
		}
	}
	row, km, err := r.parse(line)
	if err != nil {
		km.Wipe()
		return adminapi.ImportRow{}, &BadRow{r.n, err}
	}
	row.Km.Key, row.Line = km, r.n
	return row, nil
}

// next returns the next line that is not empty.
func (r *Reader) next() ([]byte, error) {
	for r.lines.Scan() {
		r.n++
		line := r.lines.Bytes()
		blank := len(bytes.TrimSpace(line)) == 0
		comment := r.format == Mosquitto && bytes.HasPrefix(line, []byte("#"))
		if !blank && !comment {
			return bytes.TrimSuffix(line, []byte("\r")), nil
		}
	}
	switch err := r.lines.Err(); {
	case err == nil:
		return nil, io.EOF
	case errors.Is(err, bufio.ErrTooLong):
		return nil, fmt.Errorf("line %d is longer than %d octets", r.n+1, adminapi.MaxRow)
	default:
		return nil, err
	}
}

// parse reads one line. There may be a key with an error, too.
func (r *Reader) parse(line []byte) (row adminapi.ImportRow, km secret.Key, err error) {
	var f fields
	switch r.format {
	case CSV:
		km, err = r.table.read(line, &f)
	case JSONL:
		km, err = readObject(line, &f)
	default:
		km, err = readPSK(r.format, line, &f)
	}
	if err == nil {
		row, err = r.defaults.row(&f)
	}
	return row, km, err
}

// object is a line of JSON: adminapi.ImportRow's members, with the identifiers as
// they are written. What else a list or an export has is taken and left aside.
type object struct {
	KmID     string       `json:"kmID"`
	Km       adminapi.Key `json:"km"`
	EntityB  string       `json:"entityB"`
	AEID     string       `json:"aeID"`
	CSEID    string       `json:"cseID"`
	Lifetime string       `json:"lifetime"`
	Disabled *bool        `json:"disabled"`
	Created  string       `json:"created"`
}

func readObject(line []byte, f *fields) (secret.Key, error) {
	var o object
	err := strictjson.Unmarshal(line, &o)
	*f = fields{o.KmID, o.EntityB, o.AEID, o.CSEID, o.Lifetime, o.Disabled}
	return o.Km.Key, err
}
