package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/provision"
)

// shownErrors is how many rows' errors are printed. All are in --errors.
const shownErrors = 20

func (a *app) clientImport() *cobra.Command {
	im := &clientImport{app: a}
	var format, fqdn, entityB string
	var lifetime time.Duration
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Add many devices from a file",
		Long: `Add many devices with their master keys from a file, or from standard input ("-").

The file is CSV with a first line that names its columns, or JSON Lines, or what
Mosquitto (psk_file), stunnel (PSKsecrets) or EMQX (init_file) keep their keys in.

An import can be repeated, and so resumed: a device that is there already, with the
same key and configuration, counts as same. One that differs is an error, or is
changed with --update. A row without a key keeps the key of a device that is there.

docs/provisioning.md has the columns and all else.`,
		Example: `  maf client import devices.csv --dry-run
  maf client import devices.csv --errors bad.jsonl
  maf client import psk_file --format mosquitto --fqdn maf.example.com --entity-b //sp.example.com/in-cse`,
		Args: arguments(1, 1, "the file"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if format != "" {
				if im.format, err = provision.ParseFormat(format); err != nil {
					return usageError{err}
				}
			}
			im.defaults.Lifetime = lifetime
			err = errors.Join(
				parse("--fqdn", fqdn, &im.defaults.FQDN),
				parse("--entity-b", entityB, &im.defaults.EntityB))
			if err != nil {
				return usageError{err}
			}
			return im.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "csv, jsonl, mosquitto, stunnel or emqx (default: csv or jsonl, by the first line)")
	f.StringVar(&fqdn, "fqdn", "", "MAF-FQDN of identities that have none")
	f.StringVar(&entityB, "entity-b", "", "Entity B of rows that name none, an absolute CSE-ID")
	f.DurationVar(&lifetime, "lifetime", 0, "lifetime of Kc of rows that have none (default: mafd's, or as it is)")
	f.BoolVar(&im.defaults.Disabled, "disabled", false, "rows that don't say so are of disabled devices")
	f.BoolVar(&im.options.Update, "update", false, "change devices that are there and differ")
	f.BoolVar(&im.options.DryRun, "dry-run", false, "change nothing; say what would be done")
	f.StringVar(&im.errorsTo, "errors", "", "write what is wrong with each row to this new file, as JSON Lines")
	return cmd
}

// clientImport is one run of the command.
type clientImport struct {
	app      *app
	format   provision.Format
	defaults provision.Defaults
	options  adminapi.ImportOptions
	errorsTo string

	progress *progress
	read     atomic.Int64 // octets of the file

	mu      sync.Mutex // the file is read in one goroutine and reported on in another
	summary importSummary
	broken  error         // why reading ended early
	errors  *json.Encoder // nil without --errors
}

// importSummary is the command's result.
type importSummary struct {
	Rows    int  `json:"rows"`
	Added   int  `json:"added"`
	Same    int  `json:"same"`
	Updated int  `json:"updated"`
	Failed  int  `json:"failed"`
	DryRun  bool `json:"dryRun"`
}

func (im *clientImport) run(ctx context.Context, path string) error {
	in, size, err := im.app.open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if im.errorsTo != "" {
		f, err := os.OpenFile(im.errorsTo, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		im.errors = json.NewEncoder(f)
	}
	admin, err := im.app.admin()
	if err != nil {
		return err
	}
	// Before the first row is read, so that nothing is said about the file when
	// there is nobody to take it.
	if _, err := admin.Status(ctx); err != nil {
		return err
	}
	return im.load(ctx, admin, path, in, size)
}

// load reads in and has admin import it.
func (im *clientImport) load(ctx context.Context, admin *adminapi.Admin, name string, in io.Reader, size int64) error {
	im.summary = importSummary{DryRun: im.options.DryRun}
	count := &counted{r: in}
	rows, err := provision.NewReader(count, im.format, im.defaults)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer func() {
		if ctx.Err() == nil { // else it may still be read
			rows.Close()
		}
	}()
	im.progress = im.app.out.progress("devices", size)
	err = admin.Import(ctx, im.options, func(yield func(adminapi.ImportRow) bool) {
		for {
			row, err := rows.Read()
			im.read.Store(count.n)
			var bad *provision.BadRow
			switch {
			case err == io.EOF:
				return
			case errors.As(err, &bad):
				im.note(adminapi.RowError{Line: bad.Line, Code: adminapi.CodeInvalid, Text: bad.Err.Error()})
			case err != nil:
				im.mu.Lock()
				im.broken = fmt.Errorf("%s: %w", name, err)
				im.mu.Unlock()
				return
			case !yield(row):
				return
			}
		}
	}, im.report)
	im.progress.end()
	return im.finish(err)
}

// report takes what mafd says.
func (im *clientImport) report(r adminapi.ImportReport) error {
	for _, e := range r.Errors {
		im.note(e)
	}
	im.mu.Lock()
	s := &im.summary
	s.Added, s.Same, s.Updated = r.Added, r.Same, r.Updated
	s.Rows = s.Added + s.Same + s.Updated + s.Failed
	rows := s.Rows
	im.mu.Unlock()
	im.progress.show(im.read.Load(), rows)
	return nil
}

// note notes what is wrong with one row.
func (im *clientImport) note(e adminapi.RowError) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.summary.Rows++
	im.summary.Failed++
	if im.errors != nil {
		im.errors.Encode(e)
	}
	switch out := im.app.out; {
	case im.summary.Failed > shownErrors:
	case out.json:
		out.writeJSON(out.stderr, e)
	default:
		im.progress.end()
		id := ""
		if e.KmID != "" {
			id = e.KmID + ": "
		}
		out.note("line %d: %s%s", e.Line, id, e.Text)
	}
}

// finish prints the result. err is what the import ended with.
func (im *clientImport) finish(err error) error {
	im.mu.Lock()
	s, broken, out := im.summary, im.broken, im.app.out
	im.mu.Unlock()
	if n := s.Failed - shownErrors; n > 0 && im.errorsTo == "" {
		out.note("... and %d more; --errors FILE has all", n)
	}
	verb := ""
	if s.DryRun {
		verb = "would be "
	}
	if err == nil {
		err = broken
	}
	if err != nil && s.Rows == 0 {
		return err
	}
	printed := out.result(s,
		field{"rows", fmt.Sprint(s.Rows)},
		field{verb + "added", fmt.Sprint(s.Added)},
		field{"same", fmt.Sprint(s.Same)},
		field{verb + "updated", fmt.Sprint(s.Updated)},
		field{"failed", fmt.Sprint(s.Failed)})
	switch {
	case err != nil && s.Added+s.Same+s.Updated > 0:
		known := advise(&cobra.Command{}, err)
		known.err = fmt.Errorf("not to the end: %w", known.err)
		known.hint = "the same again: what was done counts as same"
		return &known
	case err != nil:
		return err
	case printed != nil:
		return printed
	case s.Failed > 0:
		return &advised{fmt.Errorf("%d of %d rows were not taken", s.Failed, s.Rows),
			"the same again with those put right: what was done counts as same", exitFailed}
	}
	return nil
}

// open opens a file to read, or standard input, and says how long it is if that
// is known.
func (a *app) open(path string) (io.ReadCloser, int64, error) {
	if path == "-" {
		return io.NopCloser(a.stdin), 0, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	return f, fileSize(f), nil
}
