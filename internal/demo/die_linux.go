package demo

import (
	"os/exec"
	"syscall"
)

// dieWithParent makes the kernel end the process when the demo is killed.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
