package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// Exit codes, see docs/cli-output.md.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
	exitRefused     = 4
)

// usageError is a wrong command line.
type usageError struct{ error }

// advised is an error with what to do about it and the exit code it ends with.
type advised struct {
	err  error
	hint string // may be empty
	exit int
}

func (e *advised) Error() string { return e.err.Error() }
func (e *advised) Unwrap() error { return e.err }

// advise finds words and exit code for the error that a command ended with:
// inside they are typed, here is the edge.
func advise(cmd *cobra.Command, err error) advised {
	var known *advised
	var usage usageError
	var refusal *adminapi.Error
	switch {
	case errors.As(err, &known):
		return *known
	case errors.As(err, &usage):
		return advised{err, cmd.CommandPath() + " --help", exitUsage}
	case cobraUsage(err) != nil:
		return advised{cobraUsage(err), cmd.CommandPath() + " --help", exitUsage}
	case errors.Is(err, adminapi.ErrNotRunning):
		return advised{err, `is mafd running? Start it with "mafd", or name its socket with --socket or $` + adminapi.SocketVariable, exitUnreachable}
	case errors.Is(err, adminapi.ErrNoAccess):
		return advised{err, "run maf as the user that mafd runs as, or as root", exitUnreachable}
	case errors.As(err, &refusal):
		return advised{err, refusalHint(refusal.Code), exitRefused}
	case errors.Is(err, context.Canceled):
		return advised{errors.New("interrupted"), "", exitFailed}
	default:
		return advised{err, "", exitFailed}
	}
}

func refusalHint(code adminapi.Code) string {
	switch code {
	case adminapi.CodeExists:
		return `"maf client show" tells about it; to give it a new key, remove it first`
	case adminapi.CodeNotFound:
		return `"maf client list" shows all there are`
	}
	return ""
}

// cobraUsage says in our words what cobra complains about a command line, which
// it does in plain text; nil for other errors.
func cobraUsage(err error) error {
	text := err.Error()
	if names, ok := strings.CutPrefix(text, "required flag(s) "); ok {
		names, _ = strings.CutSuffix(names, " not set")
		return fmt.Errorf("missing: --%s", strings.ReplaceAll(strings.ReplaceAll(names, `"`, ""), ", ", ", --"))
	}
	if strings.HasPrefix(text, "if any flags in the group") {
		_, names, _ := strings.Cut(text, "; [")
		names, _, _ = strings.Cut(names, "]")
		return fmt.Errorf("give only one of --%s", strings.ReplaceAll(names, " ", " and --"))
	}
	return nil
}

// quote makes a text from outside safe for a terminal, and short.
func quote(s string) string {
	const most = 120
	if len(s) > most {
		return fmt.Sprintf("%+q...", s[:most])
	}
	return fmt.Sprintf("%+q", s)
}
