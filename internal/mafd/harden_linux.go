package mafd

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// harden keeps keys in this process: no core dumps, no debugger or /proc/PID/mem
// of another process of the same user, and no file that others can read.
func harden() error {
	unix.Umask(0o077)
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	// RLIMIT_CORE doesn't bind a core_pattern that pipes; this does.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	return nil
}
