package adminapi

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"

	"github.com/onem2m-maf/maf/onem2m"
)

// MaxRow bounds one line of an import or an export.
const MaxRow = 4 << 10

// ImportRow is a client that shall be there. Without a lifetime it keeps the one
// that it has, or gets mafd's default; without Km it keeps the one that it has.
type ImportRow struct {
	NewClient
	// Line is where the row stands in the caller's file, for the answer to name.
	// Zero stands for its number in the request.
	Line int `json:"line,omitzero"`
}

// AppendLine appends the row as a line of JSON. All that is left of its Km is in
// the result, which can be cleared; json.Marshal has buffers of its own.
func (r ImportRow) AppendLine(b []byte) ([]byte, error) {
	km := r.Km
	r.Km = Key{}
	rest, err := json.Marshal(r)
	if err != nil {
		return b, err
	}
	b = append(b, rest...)
	if !km.IsZero() {
		b = append(b[:len(b)-1], `,"km":"`...)
		b = base64.StdEncoding.AppendEncode(b, km.Bytes())
		b = append(b, `"}`...)
	}
	return append(b, '\n'), nil
}

// ImportOptions say what an import may do.
type ImportOptions struct {
	Update bool // change clients that are there and differ
	DryRun bool // change nothing, and say what would be done
}

func (o ImportOptions) query() string {
	return url.Values{
		"update": {strconv.FormatBool(o.Update)},
		"dryRun": {strconv.FormatBool(o.DryRun)},
	}.Encode()
}

// ImportReport tells what became of the rows so far. Each report has the sums of
// all rows and the failures since the one before. The last has End, or else Failure.
type ImportReport struct {
	Rows    int        `json:"rows"` // all that were looked at: the sum of the others
	Added   int        `json:"added"`
	Same    int        `json:"same"` // were there, just so
	Updated int        `json:"updated"`
	Failed  int        `json:"failed"`
	Errors  []RowError `json:"errors,omitempty"`
	End     bool       `json:"end,omitempty"`
	Failure *Error     `json:"failure,omitempty"` // why mafd gave up
}

// RowError is why a row was not taken.
type RowError struct {
	Line int    `json:"line"`
	KmID string `json:"kmID,omitempty"` // as far as it could be read
	Code Code   `json:"code"`
	Text string `json:"error"`
}

// Import has mafd make sure that a client is there for each row, and calls report
// as it comes along. Rows are asked for as fast as mafd takes them, and Km of each
// is wiped once it is sent. Rows that report told of are on stable storage, also
// when Import fails; those after them may be or not. So an import that was broken
// off is done again from the start: what is there counts as Same. When ctx ends, a
// row may still be asked for after Import has returned.
func (a *Admin) Import(ctx context.Context, o ImportOptions, rows iter.Seq[ImportRow], report func(ImportReport) error) error {
	body, feed := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed.CloseWithError(send(feed, rows))
	}()
	// The rows are the caller's, who may take them back now; but one from a terminal
	// may be long in coming.
	defer func() {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}()
	defer body.Close()

	return a.stream(ctx, "POST", "/v1/clients:import?"+o.query(), body, func(answer io.Reader) error {
		d := json.NewDecoder(answer)
		for {
			var r ImportReport
			if err := d.Decode(&r); err != nil {
				return brokenOff(err)
			}
			if err := report(r); err != nil {
				return err
			}
			switch {
			case r.Failure != nil:
				return r.Failure
			case r.End:
				return nil
			}
		}
	})
}

// send writes the rows to w.
func send(w io.Writer, rows iter.Seq[ImportRow]) error {
	buf := make([]byte, 0, 64<<10)
	full := cap(buf) - MaxRow
	defer func() { clear(buf[:cap(buf)]) }()
	for row := range rows {
		var err error
		buf, err = row.AppendLine(buf)
		row.Km.Wipe()
		if err != nil {
			return err
		}
		if len(buf) > full {
			if _, err := w.Write(buf); err != nil {
				return err
			}
			clear(buf)
			buf = buf[:0]
		}
	}
	_, err := w.Write(buf)
	return err
}

// Export fetches all clients that the filter lets through, in order of KmID: as
// All does, but in one go, and with Km when withKm is set and mafd allows it. The
// keys are the caller's, to be wiped. An error is the last element; without one
// the export is complete.
func (a *Admin) Export(ctx context.Context, f Filter, withKm bool) iter.Seq2[ImportRow, error] {
	return func(yield func(ImportRow, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		query := f.query()
		query.Set("km", strconv.FormatBool(withKm))
		stopped := errors.New("stopped")
		err := a.stream(ctx, "GET", "/v1/clients:export?"+query.Encode(), nil, func(answer io.Reader) error {
			buf := make([]byte, 0, MaxRow) // not a json.Decoder's, which nobody clears
			defer func() { clear(buf[:cap(buf)]) }()
			lines := bufio.NewScanner(answer)
			lines.Buffer(buf, MaxRow)
			for lines.Scan() {
				var row ImportRow
				if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
					return fmt.Errorf("reading mafd's answer: %w", err)
				}
				if !yield(row, nil) {
					return stopped
				}
			}
			if lines.Err() != nil {
				return brokenOff(lines.Err())
			}
			return nil
		})
		if err != nil && err != stopped {
			yield(ImportRow{}, err)
		}
	}
}

func brokenOff(err error) error {
	if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("mafd broke off in the middle; its log may say why")
	}
	return fmt.Errorf("reading mafd's answer: %w", err)
}

// stream makes a request that may take as long as it takes, and has read read the
// answer.
func (a *Admin) stream(ctx context.Context, method, path string, body io.Reader, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://mafd"+path, body)
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", linesType)
	}
	endless := http.Client{Transport: a.http.Transport}
	resp, err := endless.Do(req)
	if err != nil {
		return a.unreachable(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		if err != nil {
			return fmt.Errorf("reading mafd's answer: %w", err)
		}
		return refusal(resp.StatusCode, data)
	}
	return read(resp.Body)
}

// linesType is the type of a body with one JSON object on each line.
const linesType = "application/x-ndjson"

// Filter says which clients a list shall have: those of which all is true that is
// set here.
type Filter struct {
	Prefix   string       // the KmID begins with it
	Match    string       // the KmID contains it
	EntityB  onem2m.CSEID // absolute
	AEID     onem2m.AEID  // absolute
	Disabled *bool
}

func (f Filter) query() url.Values {
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("prefix", f.Prefix)
	set("match", f.Match)
	set("entityB", f.EntityB.String())
	set("aeID", f.AEID.String())
	if f.Disabled != nil {
		set("disabled", strconv.FormatBool(*f.Disabled))
	}
	return query
}
