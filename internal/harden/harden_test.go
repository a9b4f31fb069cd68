package harden

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// child is set in the environment of the process that TestProcess starts: it
// changes what can't be changed back.
const child = "MAF_HARDEN_CHILD"

func TestProcess(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what a process is protected from can be read on Linux only")
	}
	if os.Getenv(child) != "" {
		if err := Process(); err != nil {
			t.Fatal(err)
		}
		limits, err := os.ReadFile("/proc/self/limits")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(limits), "Max core file size        0                    0") {
			t.Errorf("core dumps are on:\n%s", limits)
		}
		// Keys given as a file descriptor, as "--km-file <(...)" does, still
		// come through, though the folder is root's now.
		if b, err := os.ReadFile("/dev/stdin"); err != nil || string(b) != "key" {
			t.Errorf("standard input by its name: %q, %v", b, err)
		}
		return
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if _, err := io.WriteString(write, "key"); err != nil {
		t.Fatal(err)
	}
	write.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcess$", "-test.count=1")
	cmd.Env = append(os.Environ(), child+"=1")
	cmd.Stdin = read
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
