package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// filterFlags say which clients a command is about.
type filterFlags struct {
	prefix, match, entityB, aeID string
	disabled                     bool
	set                          *pflag.FlagSet
}

func (s *filterFlags) flags(f *pflag.FlagSet) {
	s.set = f
	f.StringVar(&s.prefix, "prefix", "", "only KmIDs that begin with this (fast)")
	f.StringVar(&s.match, "match", "", "only KmIDs that contain this")
	f.StringVar(&s.entityB, "entity-b", "", "only devices that may reach this Entity B, an absolute CSE-ID")
	f.StringVar(&s.aeID, "ae-id", "", "only the device with this AE-ID, in its absolute form")
	f.BoolVar(&s.disabled, "disabled", false, "only disabled devices, or with =false only enabled ones")
}

func (s *filterFlags) filter() (f adminapi.Filter, err error) {
	f.Prefix, f.Match = s.prefix, s.match
	if err := parse("--entity-b", s.entityB, &f.EntityB); err != nil {
		return f, usageError{err}
	}
	if err := parse("--ae-id", s.aeID, &f.AEID); err != nil {
		return f, usageError{err}
	}
	if s.set.Changed("disabled") {
		f.Disabled = &s.disabled
	}
	return f, nil
}

func (a *app) clientList() *cobra.Command {
	var (
		which filterFlags
		limit int
		after string
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List or search the devices, in order of KmID",
		Example: `  maf client list --limit 50
  maf client list --prefix meter-2026 --disabled`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := which.filter()
			if err != nil {
				return err
			}
			var from onem2m.KmID
			if err := parse("--after", after, &from); err != nil {
				return usageError{err}
			}
			return a.list(cmd, filter, from, limit)
		},
	}
	which.flags(cmd.Flags())
	cmd.Flags().IntVar(&limit, "limit", 0, "how many to list at most (default all)")
	cmd.Flags().StringVar(&after, "after", "", "begin after this KmID")
	return cmd
}

func (a *app) list(cmd *cobra.Command, f adminapi.Filter, after onem2m.KmID, limit int) error {
	admin, err := a.admin()
	if err != nil {
		return err
	}
	rows := newTable(a.out.stdout, "KMID", "ENTITY B", "IDENTITY", "LIFETIME", "STATE")
	n := 0
	more := false
	for c, err := range admin.All(cmd.Context(), f, after) {
		if err != nil {
			return err
		}
		if more = n == limit && limit > 0; more {
			break
		}
		n++
		after = c.KmID
		if a.out.json {
			err = a.out.result(c)
		} else {
			err = rows.row(c.KmID.String(), c.EntityB.String(), identity(c), c.Lifetime.String(), state(c))
		}
		if err != nil {
			return err
		}
	}
	switch {
	case n == 0 && f == adminapi.Filter{} && after.IsZero():
		a.out.note(`No clients yet. Add one with "maf client add".`)
	case n == 0:
		a.out.note("No such clients.")
	case !a.out.json:
		if err := rows.flush(); err != nil {
			return err
		}
	}
	if more {
		a.out.note("There are more: --after %s", after)
	}
	return nil
}
