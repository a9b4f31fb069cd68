//go:build unix

package httpgw

import (
	"net"
	"syscall"
)

// isAlive reports whether an idle connection can be used again: the CSE has
// neither closed it nor sent what nobody asked for.
func isAlive(c net.Conn) bool {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return false
	}
	alive := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		alive = err == syscall.EAGAIN
		return true
	})
	return err == nil && alive
}
