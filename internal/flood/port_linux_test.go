package flood

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// choosePortLate is a net.Dialer's Control. It has the kernel choose the source
// port when the other end is known, so that all sources have all ports; else
// bind would run out of them.
func choosePortLate(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
}
