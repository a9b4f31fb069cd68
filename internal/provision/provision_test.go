package provision

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
)

var someDefaults = Defaults{FQDN: "maf.example.com", EntityB: onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}}

// result is what a reader makes of a file.
type result struct {
	rows []adminapi.ImportRow
	bad  []string
	end  error // other than io.EOF
}

func read(text string, format Format, d Defaults) (r result) {
	rd, err := NewReader(strings.NewReader(text), format, d)
	if err != nil {
		r.end = err
		return r
	}
	defer rd.Close()
	for {
		row, err := rd.Read()
		var bad *BadRow
		switch {
		case err == io.EOF:
			return r
		case errors.As(err, &bad):
			r.bad = append(r.bad, err.Error())
		case err != nil:
			r.end = err
			return r
		default:
			r.rows = append(r.rows, row)
		}
	}
}

const (
	hexKey = "000102030405060708090a0b0c0d0e0f"
	key64  = "AAECAwQFBgcICQoLDA0ODw=="
)

// text writes rows shortly, for comparison.
func (r result) String() string {
	var b strings.Builder
	for _, row := range r.rows {
		line, _ := row.AppendLine(nil)
		b.Write(line)
	}
	for _, bad := range r.bad {
		b.WriteString(bad + "\n")
	}
	if r.end != nil {
		b.WriteString("end: " + r.end.Error() + "\n")
	}
	return b.String()
}

func TestFormats(t *testing.T) {
	const (
		first = `{"kmID":"meter7@maf.example.com","entityB":"//sp.example.com/in-cse","disabled":false,"line":`
		km    = `,"km":"` + key64 + `"}` + "\n"
	)
	for _, c := range []struct {
		name, text string
		format     Format
		want       string
	}{
		{"csv", "kmid,km\nMeter7," + hexKey + "\n", "", first + "2" + km},
		{"csv with quotes", "\xef\xbb\xbf\"kmid\",\"km\",entity_b\r\n\r\n\"Meter7@maf.example.com\" , x\r\n" + "\"Meter7@maf.example.com\",\"" + key64 + "\",\r\n", "",
			first + "4" + km + "line 3: something follows a closing quote\n"},
		{"csv of a spreadsheet", "kmid;disabled;lifetime;ae_id\nmeter7;TRUE;2h;Smeter7\nmeter7;;;\n", "",
			`{"kmID":"meter7@maf.example.com","entityB":"//sp.example.com/in-cse","aeID":"Smeter7","lifetime":"2h","disabled":true,"line":2}` + "\n" +
				first + "3}\n"},
		{"tabs", "kmid\tkm\tae_id\tcse_id\nmeter7\t" + hexKey + "\t\t\n", "", first + "2" + km},
		{"one column", "kmid\nmeter7\n", "", first + "2}\n"},
		{"bad csv", "kmid,km,disabled,lifetime,cse_id\na,b\nb,xyz,,,\nc,,maybe,,\nd,,,soon,\ne,,,,\"\n" + "f,,,,o\"k\n,,,,\nme ter,,,,\ng,,,,/a/b/c\n", "",
			"line 2: it has 2 columns, and the first line 5\n" +
				"line 3: column km: key is neither hexadecimal nor base64 (for 32 octets: 64 hex digits or 44 base64 characters)\n" +
				"line 4: column disabled is neither true nor false\n" +
				"line 5: the lifetime: not a time with its unit, such as \"30m\" or \"24h\"\n" +
				"line 6: a quote is not closed\nline 7: a quote stands inside of a cell\nline 8: it has no KmID\n"},
		{"no columns", "meter7,00", CSV, "end: line 1 does not name the columns; one is kmid, others km, entity_b, ae_id, cse_id, lifetime, disabled\n"},
		{"unknown column", "kmid,key", "", "end: column 2 of line 1 has an unknown name\n"},
		{"column twice", "kmid,km,km", "", "end: line 1 has the column km twice\n"},
		{"empty", "\n \n", "", "end: it is empty\n"},
		{"unknown", "hello", "", "end: its format can't be told by its first line; name it with --format\n"},
		{"someone's", "a:00", "", "end: it looks like a file of pre-shared keys; say whose: --format mosquitto, stunnel or emqx\n"},
		{"too long", "kmid\na\n" + strings.Repeat("x", adminapi.MaxRow), "", `{"kmID":"a@maf.example.com","entityB":"//sp.example.com/in-cse","disabled":false,"line":2}` + "\nend: line 3 is longer than 4096 octets\n"},
		{"jsonl", `{"kmID":"meter7","km":"` + hexKey + `","created":"2026-01-01T00:00:00Z"}` + "\n\n" + ` {"kmid":"meter8"}` + "\n{}\n[]\n" + `{"kmID":"a","kmID":"b"}`, "",
			first + "1" + km + "line 3: it has an unknown member \"kmid\"\nline 4: it has no KmID\nline 5: it is not a JSON object\nline 6: it has the member \"kmID\" twice\n"},
		{"mosquitto", "# comment\nmeter7:" + strings.ToUpper(hexKey) + "\nmeter8:xyz\nmeter9\nmeter9:\nmeter9:00:11\n:00\n", Mosquitto,
			first + "2" + km + "line 3: the key is not hexadecimal\nline 4: it is not identity:key\nline 5: it has no key\nline 6: it has a second colon\nline 7: it has no KmID\n"},
		{"stunnel", "meter7:" + hexKey + "\nmeter7:sixteen octets!!\n", Stunnel,
			first + "1" + km + first + `2,"km":"c2l4dGVlbiBvY3RldHMhIQ=="}` + "\n"},
		{"emqx", "meter7:" + hexKey + "\n", EMQX, first + `1,"km":"MDAwMTAyMDMwNDA1MDYwNzA4MDkwYTBiMGMwZDBlMGY="}` + "\n"},
	} {
		got := read(c.text, c.format, someDefaults).String()
		if c.name == "bad csv" { // the words about identifiers are package onem2m's
			if n := strings.Count(got, "\n"); n != 9 {
				t.Errorf("%d errors:\n%s", n, got)
			}
			got, _, _ = strings.Cut(got, "line 9:")
		}
		if got != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, got, c.want)
		}
	}
	if got := read("kmid\nmeter7\n", "", Defaults{}).String(); !strings.Contains(got, "--fqdn") {
		t.Errorf("without a name: %s", got)
	}
	if got := read("kmid\na@b\n", "", Defaults{}).String(); !strings.Contains(got, "--entity-b") {
		t.Errorf("without an Entity B: %s", got)
	}
}

// TestErrorsQuoteNothing: whatever is in the wrong column, it does not show.
func TestErrorsQuoteNothing(t *testing.T) {
	const key = "sEcReT+0123456789abcdefghijklmnopqrstuvwxyz="
	for _, column := range []string{colKmID, colKm, colEntityB, colAEID, colCSEID, colLifetime, colDisabled} {
		text := "kmid," + column + "\nmeter7," + key + "!\n"
		if column == colKmID {
			text = "kmid\n" + key + "!\n"
		}
		r := read(text, "", someDefaults)
		if len(r.bad) != 1 || strings.Contains(r.String(), "sEcReT") {
			t.Errorf("column %s: %s", column, r)
		}
	}
	for _, text := range []string{`{"kmID":"` + key + `!"}`, `{"` + key + `!":1}`, `{"lifetime":"` + key + `","kmID":"a"}`, `{"km":"` + key + `!"}`} {
		if r := read(text, JSONL, someDefaults); len(r.bad) != 1 || strings.Contains(r.String(), key) {
			t.Errorf("%s: %s", text, r)
		}
	}
	for _, f := range []Format{Mosquitto, Stunnel, EMQX} {
		if r := read(key+" !:meter7", f, someDefaults); len(r.bad) != 1 || strings.Contains(r.String(), "sEcReT") {
			t.Errorf("%s: %s", f, r)
		}
	}
}

// TestWiped: what was read is not left in the reader.
func TestWiped(t *testing.T) {
	rd, err := NewReader(strings.NewReader("kmid,km\nmeter7,"+hexKey+"\n"), "", someDefaults)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rd.Read(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(rd.buf[:cap(rd.buf)], []byte(hexKey)) {
		t.Fatal("the buffer is not where the key is: the test can't fail")
	}
	rd.Close()
	if bytes.Contains(rd.buf[:cap(rd.buf)], []byte("0")) {
		t.Error("Close left the key")
	}
}

// write writes rows in a format.
func write(t testing.TB, format Format, rows []adminapi.ImportRow) string {
	t.Helper()
	var b strings.Builder
	w, err := NewWriter(&b, format, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		if err := w.Write(&row); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsAny(w.buf[:cap(w.buf)], "0:") {
		t.Error("Close left rows in the buffer")
	}
	return b.String()
}

// equal compares two rows in all but their lines.
func equal(a, b adminapi.ImportRow) bool {
	sameKm := a.Km.Equal(b.Km.Key)
	a.Km, b.Km = adminapi.Key{}, adminapi.Key{}
	return sameKm && a.Client == b.Client
}

// roundTrip demands that rows come back from each format that is written.
func roundTrip(t testing.TB, rows []adminapi.ImportRow) {
	t.Helper()
	if len(rows) == 0 {
		return // an empty file of JSON Lines is none
	}
	for _, format := range []Format{CSV, JSONL} {
		text := write(t, format, rows)
		back := read(text, "", Defaults{Lifetime: 0})
		if len(back.rows) != len(rows) || back.bad != nil || back.end != nil {
			t.Fatalf("%s: of %d rows come back %s from %s", format, len(rows), back, text)
		}
		for i := range rows {
			if !equal(rows[i], back.rows[i]) {
				t.Errorf("%s: row %d comes back otherwise: %s", format, i, back)
			}
		}
	}
}

func TestRoundTrip(t *testing.T) {
	r := read("kmid,km,ae_id,cse_id,lifetime,disabled\na,"+hexKey+",//sp/Sa,,90m,true\nb,"+hexKey+",,/mn-cse,,\nc,,/in/Cc,,1s,false\n", "", someDefaults)
	if len(r.rows) != 3 {
		t.Fatal(r)
	}
	roundTrip(t, r.rows)
	many := make([]adminapi.ImportRow, 5000)
	for i := range many {
		many[i] = r.rows[0]
		many[i].Lifetime = adminapi.Duration(time.Duration(i) * time.Second)
	}
	roundTrip(t, many)
	if _, err := NewWriter(io.Discard, Mosquitto, true); err == nil {
		t.Error("a psk_file is written")
	}
}

// FuzzRead: no file makes a reader panic or go on for ever, and the rows that it
// reads come back from what is written of them.
func FuzzRead(f *testing.F) {
	for _, format := range []Format{"", CSV, JSONL, Mosquitto, Stunnel, EMQX} {
		f.Add("kmid,km,entity_b,ae_id,cse_id,lifetime,disabled\na,"+hexKey+",//sp/b,/Sa,,1h,true\n\"a\",\"\"\"\",,,,,\n", string(format))
		f.Add(`{"kmID":"a","km":"`+key64+`","entityB":"//sp/b","aeID":"Sa","lifetime":"1h","disabled":true}`, string(format))
		f.Add("# x\nmeter7:"+hexKey+"\n", string(format))
	}
	f.Fuzz(func(t *testing.T, text, format string) {
		if _, err := ParseFormat(format); err != nil && format != "" {
			return
		}
		r := read(text, Format(format), someDefaults)
		if n := strings.Count(text, "\n") + 1; len(r.rows)+len(r.bad) > n {
			t.Fatalf("%d rows of %d lines", len(r.rows)+len(r.bad), n)
		}
		var rows []adminapi.ImportRow
		for _, row := range r.rows {
			if id, err := onem2m.ParseKmID(row.KmID.String()); err != nil || id != row.KmID {
				t.Errorf("a device is called %q (%v)", row.KmID, err)
			}
			if row.Km.Len() < 512 {
				rows = append(rows, row)
			}
		}
		roundTrip(t, rows)
	})
}
