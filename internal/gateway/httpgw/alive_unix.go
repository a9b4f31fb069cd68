//go:build unix

package httpgw

import (
	"net"
	"syscall"
)

// A probe tells whether an idle connection can be used again.
type probe struct {
	raw   syscall.RawConn // nil when it can't tell
	alive bool
}

func newProbe(c net.Conn) probe {
	raw, _ := c.(syscall.Conn).SyscallConn()
	return probe{raw: raw}
}

// isAlive reports whether the CSE has neither closed the connection nor sent what
// nobody asked for.
func (p *probe) isAlive() bool {
	return p.raw != nil && p.raw.Read(p.look) == nil && p.alive
}

func (p *probe) look(fd uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	p.alive = err == syscall.EAGAIN
	return true
}
