package adminserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/strictjson"
	"github.com/onem2m-maf/maf/onem2m"
)

const (
	// importBatch is how many rows are worked on at once. They share one write to
	// the disk, which handshakes that come meanwhile share, too: so an import
	// makes them wait for some hundred rows and never for the import.
	importBatch = 256

	// linesType is the type of a body with one JSON object on each line.
	linesType = "application/x-ndjson"

	// How long a caller may take to give more rows, from a pipe perhaps, and to
	// take what it asked for.
	importPatience = 10 * time.Minute
	streamPatience = time.Minute
)

// importer is one import under way. What it holds does not grow: the rows of one
// batch. A caller that gives more is held up by the socket.
type importer struct {
	s      *server
	ctx    context.Context
	lines  *bufio.Scanner
	n      int                 // lines read
	next   *adminapi.ImportRow // read already, and not for the batch before
	update bool
	dryRun bool
	report adminapi.ImportReport
}

func (s *server) importClients(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	query := r.URL.Query()
	update, err1 := readBool(query, "update")
	dryRun, err2 := readBool(query, "dryRun")
	if err := errors.Join(err1, err2); err != nil {
		s.refuse(w, r, err)
		return
	}
	im := &importer{s: s, ctx: r.Context(), lines: bufio.NewScanner(r.Body), update: update, dryRun: dryRun}
	buf := make([]byte, 0, adminapi.MaxRow)
	defer func() { clear(buf[:cap(buf)]) }()
	im.lines.Buffer(buf, adminapi.MaxRow)

	// Reports go out while rows come in. Those who answer in tests may not know
	// of deadlines; the errors show at the next read or write anyhow.
	control := http.NewResponseController(w)
	control.EnableFullDuplex()
	w.Header().Set("Content-Type", linesType)
	for !im.report.End && im.report.Failure == nil {
		control.SetReadDeadline(time.Now().Add(importPatience))
		im.step()
		control.SetWriteDeadline(time.Now().Add(streamPatience))
		if json.NewEncoder(w).Encode(im.report) != nil {
			break // the caller went away
		}
		control.Flush()
	}
	s.Log.Info("clients imported", "added", im.report.Added, "same", im.report.Same, "updated", im.report.Updated,
		"failed", im.report.Failed, "dry run", dryRun, "to the end", im.report.End)
}

// step reads a batch of rows, works on it, and makes the report.
func (im *importer) step() {
	im.report.Errors = nil
	batch, end := im.read()
	errs := make([]error, len(batch))
	outcomes := make([]authority.Outcome, len(batch))
	var wg sync.WaitGroup
	for i := range batch {
		wg.Go(func() {
			outcomes[i], errs[i] = im.do(&batch[i])
			batch[i].Km.Wipe()
		})
	}
	wg.Wait()
	ourFault := 0
	for i, err := range errs {
		if err != nil {
			e := refusal(err)
			if e.Code == adminapi.CodeInternal {
				if ourFault++; ourFault == 1 {
					im.s.Log.Error("importing a client failed", "KmID", batch[i].KmID.String(), "error", err.Error())
				}
			}
			im.fail(batch[i].Line, batch[i].KmID, e)
			continue
		}
		im.count(outcomes[i])
	}
	switch err := im.lines.Err(); {
	case len(batch) > 0 && ourFault == len(batch):
		im.report.Failure = refusal(errs[0]) // the store is down; others would fare no better
	case !end:
	case errors.Is(err, bufio.ErrTooLong):
		im.report.Failure = invalid(fmt.Sprintf("line %d is longer than %d octets", im.n+1, adminapi.MaxRow))
	case err != nil:
		im.report.Failure = invalid("the request broke off: " + err.Error())
	default:
		im.report.End = true
	}
}

// read returns the rows of the next batch, and whether they are the last.
// Lines that are no rows are in the report.
func (im *importer) read() (batch []adminapi.ImportRow, end bool) {
	ids := make(map[onem2m.KmID]bool, importBatch)
	for len(batch)+len(im.report.Errors) < importBatch {
		row, ok := im.readRow()
		switch {
		case !ok:
			return batch, true
		case row == nil:
			continue
		case ids[row.KmID]:
			im.next = row // of the same client's rows the first goes first
			return batch, false
		}
		ids[row.KmID] = true
		batch = append(batch, *row)
	}
	return batch, false
}

// readRow reads a line. It returns nil when the line is no row, and false after
// the last.
func (im *importer) readRow() (*adminapi.ImportRow, bool) {
	if row := im.next; row != nil {
		im.next = nil
		return row, true
	}
	if !im.lines.Scan() {
		return nil, false
	}
	im.n++
	line := im.lines.Bytes()
	if len(bytes.TrimSpace(line)) == 0 {
		return nil, true
	}
	var row adminapi.ImportRow
	err := strictjson.Unmarshal(line, &row)
	clear(line)
	if row.Line == 0 {
		row.Line = im.n
	}
	if err != nil {
		row.Km.Wipe()
		im.fail(row.Line, row.KmID, invalid(err.Error()))
		return nil, true
	}
	return &row, true
}

// do does what one row asks for.
func (im *importer) do(row *adminapi.ImportRow) (authority.Outcome, error) {
	life := time.Duration(row.Lifetime)
	if life != 0 {
		if err := im.s.checkLifetime(life); err != nil {
			return 0, err
		}
	}
	return im.s.Clients.ImportClient(im.ctx, authority.Import{
		Client: authority.Client{
			KmID: row.KmID, IdB: row.EntityB, AEID: row.AEID, CSEID: row.CSEID,
			Lifetime: life, Disabled: row.Disabled,
		},
		DefaultLifetime: im.s.DefaultLifetime,
		Km:              row.Km.Key,
		Update:          im.update,
		DryRun:          im.dryRun,
	})
}

func (im *importer) count(o authority.Outcome) {
	im.report.Rows++
	switch o {
	case authority.Added:
		im.report.Added++
	case authority.Same:
		im.report.Same++
	case authority.Updated:
		im.report.Updated++
	}
}

func (im *importer) fail(line int, id onem2m.KmID, e *adminapi.Error) {
	im.report.Rows++
	im.report.Failed++
	im.report.Errors = append(im.report.Errors, adminapi.RowError{Line: line, KmID: id.String(), Code: e.Code, Text: e.Text})
}
