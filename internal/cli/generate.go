package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/provision"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// maxGenerate is how many devices one file gets.
const maxGenerate = 10_000_000

// batch is a number of devices to be made.
type batch struct {
	count, first  int
	prefix        string
	fqdn          onem2m.FQDN
	entityB       onem2m.CSEID
	lifetime      time.Duration
	disabled      bool
	format        provision.Format
	file          string
	fqdnText, bID string
}

func (a *app) clientGenerate() *cobra.Command {
	b := &batch{}
	var format string
	cmd := &cobra.Command{
		Use:   "generate --count N --prefix NAME --fqdn MAF-FQDN --entity-b CSE-ID --out FILE",
		Short: "Make keys for many devices, and a file for the factory",
		Long: `Make devices NAME000001, NAME000002 and so on with a master key of 32 octets each,
write them into a new file that only its owner can read, and add them to mafd.

The file is the only place where the keys are to be seen. It is whole and on disk
before mafd gets the first: if that fails half-way, "maf client import FILE" goes on.
When one of the names is taken, nothing is done.`,
		Example: `  maf client generate --count 10000 --prefix meter- --fqdn maf.example.com \
      --entity-b //sp.example.com/in-cse --out batch-7.csv`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			b.format = provision.Format(format)
			err := errors.Join(parse("--fqdn", b.fqdnText, &b.fqdn), parse("--entity-b", b.bID, &b.entityB))
			if err == nil {
				err = b.check()
			}
			if err != nil {
				return usageError{err}
			}
			return a.generate(cmd.Context(), b)
		},
	}
	f := cmd.Flags()
	f.IntVar(&b.count, "count", 0, "how many")
	f.IntVar(&b.first, "first", 1, "the first one's number")
	f.StringVar(&b.prefix, "prefix", "", "what their names begin with")
	f.StringVar(&b.fqdnText, "fqdn", "", "the MAF-FQDN in their KmIDs")
	f.StringVar(&b.bID, "entity-b", "", "absolute CSE-ID of the one Entity B that they may reach")
	f.DurationVar(&b.lifetime, "lifetime", 0, "how long each Kc is good for (default: mafd's)")
	f.BoolVar(&b.disabled, "disabled", false, "don't let them in yet")
	f.StringVar(&b.file, "out", "", "the new file")
	f.StringVar(&format, "format", string(provision.CSV), "csv or jsonl")
	for _, name := range []string{"count", "prefix", "fqdn", "entity-b", "out"} {
		cmd.MarkFlagRequired(name)
	}
	return cmd
}

// check finds what is wrong before there is a file.
func (b *batch) check() error {
	if b.count < 1 || b.count > maxGenerate || b.first < 0 || b.first > maxGenerate*100 {
		return fmt.Errorf("--count is from 1 to %d, and --first from 0 to %d", maxGenerate, maxGenerate*100)
	}
	if b.format != provision.CSV && b.format != provision.JSONL {
		return errors.New("--format is csv or jsonl")
	}
	number := fmt.Sprintf("%06d", b.first+b.count-1)
	id, err := onem2m.ParseKmID(b.prefix + number + "@" + b.fqdn.String())
	if err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	b.prefix = strings.TrimSuffix(id.Relative, number) // in lower case
	if !b.entityB.IsAbsolute() {
		return errors.New("--entity-b is not absolute, such as //sp.example.com/in-cse")
	}
	return nil
}

// id is the KmID with a number, which has six digits so that names sort.
func (b *batch) id(n int) onem2m.KmID {
	return onem2m.KmID{Relative: fmt.Sprintf("%s%06d", b.prefix, n), FQDN: b.fqdn}
}

func (a *app) generate(ctx context.Context, b *batch) error {
	admin, err := a.admin()
	if err != nil {
		return err
	}
	if _, err := admin.Status(ctx); err != nil { // rather than leave a file that nobody knows
		return err
	}
	file, err := newKeyFile(b.file)
	if err != nil {
		return err
	}
	defer file.abandon()
	if err := file.close(b.write(file)); err != nil {
		return err
	}
	// The names first, all of them, for a taken one would stand in the file with a
	// key that isn't its key.
	if err := a.noneTaken(ctx, admin, b.file); err != nil {
		os.Remove(b.file)
		return err
	}
	if err := a.register(ctx, admin, b.file); err != nil {
		return &advised{fmt.Errorf("%s is written, but not all in it is added: %w", b.file, err),
			"maf client import " + b.file, exitFailed}
	}
	first, last := b.id(b.first), b.id(b.first+b.count-1)
	return a.out.result(struct {
		Added int         `json:"added"`
		First onem2m.KmID `json:"first"`
		Last  onem2m.KmID `json:"last"`
		File  string      `json:"file"`
	}{b.count, first, last, b.file},
		field{"added", fmt.Sprint(b.count)},
		field{"first", first.String()},
		field{"last", last.String()},
		field{"file", b.file})
}

// write writes the devices with new keys.
func (b *batch) write(file *keyFile) error {
	w, err := provision.NewWriter(file.f, b.format, true)
	if err != nil {
		return err
	}
	key := make([]byte, 32)
	defer clear(key)
	for n := b.first; n < b.first+b.count; n++ {
		rand.Read(key) // never fails
		row := adminapi.ImportRow{NewClient: adminapi.NewClient{
			Client: adminapi.Client{KmID: b.id(n), EntityB: b.entityB, Lifetime: adminapi.Duration(b.lifetime), Disabled: b.disabled},
			Km:     adminapi.Key{Key: secret.Own(key)},
		}}
		if err := w.Write(&row); err != nil {
			return err
		}
	}
	return w.Close()
}

// noneTaken fails when mafd would refuse a row of the file, or has it already.
func (a *app) noneTaken(ctx context.Context, admin *adminapi.Admin, file string) error {
	return a.importFile(ctx, admin, file, adminapi.ImportOptions{DryRun: true}, func(r adminapi.ImportReport) error {
		if len(r.Errors) > 0 {
			e := r.Errors[0]
			if e.Code == adminapi.CodeDiffers {
				e.Text = "there is a client of that KmID already; --first can begin after it"
			}
			return &advised{fmt.Errorf("%s: %s", e.KmID, e.Text), "", exitRefused}
		}
		return nil
	})
}

// register has mafd add all rows of the file.
func (a *app) register(ctx context.Context, admin *adminapi.Admin, file string) error {
	return a.importFile(ctx, admin, file, adminapi.ImportOptions{}, func(r adminapi.ImportReport) error {
		if len(r.Errors) > 0 {
			return fmt.Errorf("%s: %s", r.Errors[0].KmID, r.Errors[0].Text)
		}
		return nil
	})
}

// importFile has mafd import a file that we have written.
func (a *app) importFile(ctx context.Context, admin *adminapi.Admin, file string, o adminapi.ImportOptions, report func(adminapi.ImportReport) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	rows, err := provision.NewReader(f, "", provision.Defaults{})
	if err != nil {
		return err
	}
	defer func() {
		if ctx.Err() == nil { // else it may still be read
			rows.Close()
		}
	}()
	progress := a.out.progress("devices", 0)
	defer progress.end()
	var broken error
	err = admin.Import(ctx, o, func(yield func(adminapi.ImportRow) bool) {
		for {
			row, err := rows.Read()
			if err == io.EOF {
				return
			}
			if err != nil {
				broken = fmt.Errorf("%s: %w", file, err)
				return
			}
			if !yield(row) {
				return
			}
		}
	}, func(r adminapi.ImportReport) error {
		progress.show(0, r.Rows)
		return report(r)
	})
	if err == nil {
		err = broken
	}
	return err
}
