package pgtest

import "syscall"

// dieWithParent has a process end when this one does, however that happens.
func dieWithParent(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	a.Pdeathsig = syscall.SIGQUIT
	return a
}
