//go:build !linux

package demo

import "os/exec"

// dieWithParent can't be had here; the demo ends its processes itself.
func dieWithParent(*exec.Cmd) {}
