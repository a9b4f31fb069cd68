//go:build unix && !linux

package harden

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Process turns core dumps off. Call it before the first key comes into memory.
func Process() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turning core dumps off: %w", err)
	}
	return nil
}
