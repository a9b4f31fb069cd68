//go:build unix && !linux

package mafd

import "golang.org/x/sys/unix"

// harden keeps keys in this process: no core dumps, and no file that others can
// read.
func harden() error {
	unix.Umask(0o077)
	return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}
