package systemd

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// listen is a service manager's notification socket.
func listen(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return conn
}

func TestNotify(t *testing.T) {
	conn := listen(t)
	if err := Notify(Ready, Status("serving\nWATCHDOG=1")); err != nil {
		t.Fatal(err)
	}
	if err := Notify(Reloading()); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	buffer := make([]byte, 1024)
	n, err := conn.Read(buffer)
	if got, want := string(buffer[:n]), "READY=1\nSTATUS=serving WATCHDOG=1"; err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	n, err = conn.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	usec, ok := strings.CutPrefix(string(buffer[:n]), "RELOADING=1\nMONOTONIC_USEC=")
	if v, err := strconv.ParseInt(usec, 10, 64); !ok || err != nil || v <= 0 {
		t.Errorf("%q", buffer[:n])
	}

	var full error
	for range 10_000 { // more than a socket holds
		if full = Notify(Watchdog); full != nil {
			break
		}
	}
	if !errors.Is(full, os.ErrDeadlineExceeded) {
		t.Errorf("a manager that does not read: %v", full)
	}
	t.Setenv("NOTIFY_SOCKET", "/nowhere/at/all")
	if err := Notify(Ready); err == nil {
		t.Error("a socket that isn't there took a message")
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0},
		{"30000000", "", 30 * time.Second},
		{"30000000", strconv.Itoa(os.Getpid()), 30 * time.Second},
		{"30000000", "1", 0},
		{"-1", "", 0},
		{"soon", "", 0},
		{"99999999999999999", "", 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := WatchdogInterval(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

// child is set in the environment of the process that TestSockets starts.
const child = "MAF_SYSTEMD_CHILD"

// TestSockets: a process gets the sockets that were passed to it, by their names.
func TestSockets(t *testing.T) {
	if os.Getenv(child) != "" {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
		sockets, err := Sockets()
		if err != nil {
			t.Fatal(err)
		}
		if len(sockets["tls"]) != 2 || len(sockets["dtls"]) != 1 {
			t.Fatalf("%v", sockets)
		}
		l, err := net.FileListener(sockets["tls"][1])
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("listens on %s", l.Addr())
		if again, err := Sockets(); again != nil || err != nil {
			t.Errorf("a second time: %v, %v", again, err)
		}
		return
	}
	var files []*os.File
	var address string
	for range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		address = l.Addr().String()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	f, err := pc.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSockets$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), child+"=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=tls:tls:dtls")
	cmd.ExtraFiles = append(files, f)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "listens on "+address) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNoSockets(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, count, names string
		ok                bool
	}{
		{"", "", "", true},
		{"1", "3", "a:b:c", true}, // for another process
		{own, "0", "", true},
		{own, "", "", false},
		{own, "-1", "", false},
		{own, "1000000000", "", false},
		{own, "2", "tls", false},
	} {
		t.Setenv("LISTEN_PID", c.pid)
		t.Setenv("LISTEN_FDS", c.count)
		t.Setenv("LISTEN_FDNAMES", c.names)
		sockets, err := Sockets()
		if len(sockets) != 0 || (err == nil) != c.ok {
			t.Errorf("%+v: %v, %v", c, sockets, err)
		}
	}
}
