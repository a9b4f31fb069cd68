// Package systemd tells the service manager how a program is doing, and takes
// over sockets that it has opened: sd_notify(3) and sd_listen_fds(3). Where there
// is no such manager, nothing happens.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What a program says of itself.
const (
	Ready    = "READY=1"
	Stopping = "STOPPING=1"
	Watchdog = "WATCHDOG=1"
)

// Reloading returns what a program says before it reads its configuration again;
// Ready ends it. With Type=notify-reload, systemd tells by the time in it which
// reload is meant.
func Reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err) // POSIX has this clock
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000)
}

// Status returns what a program says for people: it stands in systemctl status.
func Status(text string) string {
	// A second line would be another message.
	return "STATUS=" + strings.ReplaceAll(text, "\n", " ")
}

const writeTimeout = 2 * time.Second

// Notify tells the service manager, if there is one, all of the messages at once.
func Notify(messages ...string) error {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	defer conn.Close()
	// A manager that does not read must not keep the program from what it does.
	conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := conn.Write([]byte(strings.Join(messages, "\n"))); err != nil {
		return fmt.Errorf("telling the service manager: %w", err)
	}
	return nil
}

// WatchdogInterval returns how often the service manager wants to hear Watchdog,
// and 0 when it doesn't. To be safe, say it twice as often.
func WatchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0 // it was for our parent
	}
	microseconds, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || microseconds <= 0 || microseconds > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(microseconds) * time.Microsecond
}

// firstFile is the first file descriptor that is passed on (SD_LISTEN_FDS_START).
const firstFile = 3

// maxFiles bounds what an environment can make us believe.
const maxFiles = 1024

// Sockets returns the sockets that the service manager has opened for this
// program, by the names that it gave them (FileDescriptorName=). Programs that
// this one starts don't get them. It returns them once.
func Sockets() (map[string][]*os.File, error) {
	pid, count, names := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS"), os.Getenv("LISTEN_FDNAMES")
	for _, name := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		os.Unsetenv(name)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil // not for us
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxFiles {
		return nil, fmt.Errorf("LISTEN_FDS is %q, which is no number of sockets", count)
	}
	var named []string
	if names != "" {
		named = strings.Split(names, ":")
	}
	if len(named) != n {
		return nil, fmt.Errorf("LISTEN_FDNAMES has %d names for %d sockets; give each a FileDescriptorName=", len(named), n)
	}
	sockets := make(map[string][]*os.File)
	for i, name := range named {
		unix.CloseOnExec(firstFile + i)
		sockets[name] = append(sockets[name], os.NewFile(uintptr(firstFile+i), name))
	}
	return sockets, nil
}
