package cli

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/audit"
)

func (a *app) auditCommand() *cobra.Command {
	return group("audit", "Check and read mafd's audit log", a.auditVerify(), a.auditShow())
}

// auditFiles returns the files of the log that is named, or of this machine's
// mafd.
func auditFiles(args []string) ([]string, error) {
	if len(args) == 0 {
		state, err := adminapi.DefaultState()
		if err != nil {
			return nil, err
		}
		args = []string{filepath.Join(state, adminapi.AuditFolder)}
	}
	files, err := audit.Files(args...)
	if err != nil {
		return nil, &advised{err, "name the folder of the audit log, which audit.folder in mafd's configuration says", exitFailed}
	}
	return files, nil
}

func (a *app) auditVerify() *cobra.Command {
	var heads []string
	cmd := &cobra.Command{
		Use:   "verify [FOLDER or FILE]...",
		Short: "Find out whether the audit log was changed",
		Long: `Find out whether the audit log was changed: each line's hash covers the line and
the hash before it. What it finds is told with file and line.

Who can write the log can also write all of it anew, or leave off its end. So give
the hash of a line, a head, that was noted elsewhere: mafd's own log has them
("audit head"), and what goes to syslog ends in them. Up to that line, the log is
then the one that the head was taken from.`,
		Example: `  maf audit verify /var/lib/mafd/audit
  maf audit verify /var/lib/mafd/audit --head 5f0c...`,
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := auditFiles(args)
			if err != nil {
				return err
			}
			r, err := audit.Verify(files, heads...)
			if err != nil {
				return err
			}
			if err := a.out.result(r, auditFields(r)...); err != nil {
				return err
			}
			return verdict(r)
		},
	}
	cmd.Flags().StringArrayVar(&heads, "head", nil, "hash that must be that of a line; may be given several times")
	return cmd
}

func auditFields(r *audit.Report) []field {
	var fields []field
	for _, p := range r.Problems {
		fields = append(fields, field{"problem", p.Error()})
	}
	if r.More > 0 {
		fields = append(fields, field{"problem", fmt.Sprintf("and %d more", r.More)})
	}
	fields = append(fields,
		field{"files", fmt.Sprint(r.Files)},
		field{"lines", fmt.Sprintf("%d, numbers %d to %d", r.Lines, r.First, r.Last)},
		field{"from", stamp(r.From)},
		field{"to", stamp(r.To)},
		field{"head", r.Head})
	if r.First > 1 {
		fields = append(fields, field{"before", fmt.Sprintf("numbers 1 to %d are not in these files", r.First-1)})
	}
	if r.Elsewhere > 0 {
		fields = append(fields, field{"elsewhere", fmt.Sprintf("%d lines went to syslog only, as the file could not be written", r.Elsewhere)})
	}
	if r.Dropped > 0 {
		fields = append(fields, field{"dropped", fmt.Sprintf("%d events, as nothing could be written", r.Dropped)})
	}
	for _, h := range r.Heads {
		where := "is no line's hash"
		if h.File != "" {
			where = fmt.Sprintf("is at %s:%d, number %d", h.File, h.Line, h.Seq)
		}
		fields = append(fields, field{"head " + h.Hash[:8] + "...", where})
	}
	return fields
}

// verdict is the error that verify ends with.
func verdict(r *audit.Report) error {
	if n := len(r.Problems) + r.More; n > 0 {
		return fmt.Errorf("the audit log is not as mafd wrote it: problems found: %d", n)
	}
	if !r.Good() {
		return errors.New("the audit log is not the one that the head was taken from, or its end is missing")
	}
	return nil
}

func (a *app) auditShow() *cobra.Command {
	var kind, actor, subject, outcome string
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "show [FOLDER or FILE]...",
		Short: "Show what the audit log says",
		Long: `Show what the audit log says, without checking it ("maf audit verify" does). With
--json the lines come as they are in the file.`,
		Example: `  maf audit show /var/lib/mafd/audit --event key.release --since 24h
  maf audit show /var/lib/mafd/audit --actor meter7@maf.example.com`,
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := auditFiles(args)
			if err != nil {
				return err
			}
			var from time.Time
			if since > 0 {
				from = time.Now().Add(-since)
			}
			return a.showLines(files, func(l *audit.Line) bool {
				return (kind == "" || string(l.Kind) == kind || strings.HasPrefix(string(l.Kind), kind+".")) &&
					(actor == "" || l.Actor == actor) &&
					(subject == "" || l.Subject == subject) &&
					(outcome == "" || string(l.Outcome) == outcome) &&
					!l.Time.Before(from)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&kind, "event", "", "only this event (key.release), or these (key)")
	f.StringVar(&actor, "actor", "", "only what this KmID, CSE-ID or user (uid:0) did")
	f.StringVar(&subject, "subject", "", "only what was done to this KmID, KcID or CSE-ID")
	f.StringVar(&outcome, "outcome", "", "only this outcome: intended, ok, refused or failed")
	f.DurationVar(&since, "since", 0, "only what is not older than this")
	return cmd
}

// showLines prints those lines that are wanted.
func (a *app) showLines(files []string, wanted func(*audit.Line) bool) error {
	rows := newTable(a.out.stdout, "NUMBER", "TIME", "EVENT", "BY", "ON", "FOR", "OUTCOME", "REASON")
	bad, shown := 0, 0
	for l, err := range audit.Lines(files) {
		var problem *audit.Problem
		switch {
		case errors.As(err, &problem):
			bad++
			continue
		case err != nil:
			return err
		case !wanted(&l):
			continue
		}
		shown++
		if a.out.json {
			_, err = fmt.Fprintf(a.out.stdout, "%s\n", l.Text)
		} else {
			err = rows.row(fmt.Sprint(l.Seq), stamp(l.Time), string(l.Kind), shownText(by(&l)), shownText(l.Subject),
				shownText(l.EntityB), string(l.Outcome), shownText(why(&l)))
		}
		if err != nil {
			return err
		}
	}
	if shown > 0 && !a.out.json {
		if err := rows.flush(); err != nil {
			return err
		}
	}
	if bad > 0 {
		return &advised{fmt.Errorf("lines that could not be read: %d", bad), "maf audit verify", exitFailed}
	}
	if shown == 0 {
		a.out.note("No such lines.")
	}
	return nil
}

// by names who did it, and how sure that is.
func by(l *audit.Line) string {
	switch {
	case l.Role == audit.Unproven && l.Actor == "":
		return "somebody"
	case l.Role == audit.Unproven:
		return l.Actor + "?"
	case l.Actor == "":
		return string(l.Role)
	}
	return l.Actor
}

func why(l *audit.Line) string {
	if l.Count > 0 {
		return strings.TrimSpace(fmt.Sprintf("%s (%d)", l.Reason, l.Count))
	}
	return l.Reason
}

// shownText keeps what strangers sent from the terminal.
func shownText(s string) string {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return quote(s)
		}
	}
	return s
}
