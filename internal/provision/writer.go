package provision

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// A Writer writes rows as a Reader reads them.
type Writer struct {
	w      io.Writer
	format Format
	withKm bool
	buf    []byte // never grows: what it left behind could not be cleared
}

// Format keeps fmt from looking into the buffer, which has keys in it.
func (w *Writer) Format(f fmt.State, _ rune) { io.WriteString(f, "provision.Writer") }

// NewWriter begins a file of CSV or JSON Lines. withKm is whether the rows have
// keys.
func NewWriter(w io.Writer, format Format, withKm bool) (*Writer, error) {
	wr := &Writer{w, format, withKm, make([]byte, 0, 64<<10)}
	switch format {
	case CSV:
		km := ""
		if withKm {
			km = "," + colKm
		}
		wr.buf = fmt.Appendf(wr.buf, "%s%s,%s,%s,%s,%s,%s\n", colKmID, km, colEntityB, colAEID, colCSEID, colLifetime, colDisabled)
		return wr, nil
	case JSONL:
		return wr, nil
	}
	return nil, fmt.Errorf("devices are written as csv or jsonl, not %s", format)
}

// Write writes one row, sooner or later. Its Km stays the caller's.
func (w *Writer) Write(row *adminapi.ImportRow) (err error) {
	if len(w.buf) > cap(w.buf)-adminapi.MaxRow {
		if err := w.flush(); err != nil {
			return err
		}
	}
	b := w.buf
	if w.format == JSONL {
		line := *row
		line.Line = 0 // of another file
		if b, err = line.AppendLine(b); err != nil {
			return err
		}
	} else {
		// No identifier has a comma or a quote.
		b = append(b, row.KmID.String()...)
		if w.withKm {
			b = append(b, ',')
			b = hex.AppendEncode(b, row.Km.Bytes())
		}
		lifetime := ""
		if row.Lifetime != 0 {
			lifetime = row.Lifetime.String()
		}
		for _, cell := range []string{row.EntityB.String(), row.AEID.String(), row.CSEID.String(), lifetime, strconv.FormatBool(row.Disabled)} {
			b = append(b, ',')
			b = append(b, cell...)
		}
		b = append(b, '\n')
	}
	w.buf = b
	return nil
}

func (w *Writer) flush() error {
	_, err := w.w.Write(w.buf)
	clear(w.buf)
	w.buf = w.buf[:0]
	return err
}

// Close writes what is left. It does not close the file.
func (w *Writer) Close() error { return w.flush() }
