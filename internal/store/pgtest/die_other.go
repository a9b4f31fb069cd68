//go:build unix && !linux

package pgtest

import "syscall"

// dieWithParent does nothing where there is no such thing: a test that is killed
// leaves its server behind.
func dieWithParent(a *syscall.SysProcAttr) *syscall.SysProcAttr { return a }
