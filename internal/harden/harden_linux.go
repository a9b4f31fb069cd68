package harden

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Process turns core dumps off, and keeps debuggers and readers of
// /proc/PID/mem out that run as the same user. Call it before the first key
// comes into memory. Programs that this one starts inherit the limit on core
// dumps, but not the rest.
func Process() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	// RLIMIT_CORE doesn't bind a core_pattern that pipes; this does.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	return nil
}
