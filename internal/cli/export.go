package cli

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/provision"
)

func (a *app) clientExport() *cobra.Command {
	var (
		which       filterFlags
		format, out string
		withKm      bool
	)
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the devices into a file that can be imported",
		Long: `Write the devices to standard output, or into a new file that only its owner can
read, as CSV or JSON Lines: what "maf client import" reads.

Master keys are in it with --with-km only, and only when mafd's configuration allows
that (admin.allow_key_export). mafd logs it.`,
		Example: `  maf client export --out devices.csv
  maf client export --format jsonl --prefix meter-2026`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := which.filter()
			if err != nil {
				return err
			}
			if format == "" {
				format = string(provision.CSV)
				if a.out.json {
					format = string(provision.JSONL)
				}
			}
			w := a.out.stdout
			var file *keyFile
			if out != "" {
				if file, err = newKeyFile(out); err != nil {
					return err
				}
				defer file.abandon()
				w = file.f
			}
			rows, err := provision.NewWriter(w, provision.Format(format), withKm)
			if err != nil {
				return usageError{err}
			}
			admin, err := a.admin()
			if err != nil {
				return err
			}
			progress := a.out.progress("devices", 0)
			if file == nil && isTerminal(w) {
				progress.w = nil // the devices themselves show
			}
			n := 0
			for row, err := range admin.Export(cmd.Context(), filter, withKm) {
				if err == nil {
					err = rows.Write(&row)
					row.Km.Wipe()
				}
				if err != nil {
					progress.end()
					return err
				}
				n++
				progress.show(0, n)
			}
			progress.end()
			err = rows.Close()
			if file != nil {
				err = file.close(err)
			}
			if err == nil && w != io.Discard {
				a.out.note("%d devices.", n)
			}
			return err
		},
	}
	f := cmd.Flags()
	which.flags(f)
	f.StringVar(&format, "format", "", "csv or jsonl (default csv, with --json jsonl)")
	f.StringVar(&out, "out", "", "write to this new file")
	f.BoolVar(&withKm, "with-km", false, "with the master keys")
	return cmd
}
