package flood

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/mafd"
)

// playEnv makes this test's program something else: a mafd, or a crowd of
// devices.
const playEnv = "MAF_FLOOD_PLAY"

func TestMain(m *testing.M) {
	switch os.Getenv(playEnv) {
	case "mafd":
		go countGoroutines()
		os.Exit(mafd.Main(os.Args[1:], os.Stdout, os.Stderr))
	case "devices":
		os.Exit(crowd(os.Stdin, os.Stdout))
	}
	goleak.VerifyTestMain(m)
}

// countGoroutines says how many there are whenever it is asked.
func countGoroutines() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	for range asked {
		fmt.Println("goroutines", runtime.NumGoroutine())
	}
}

// long says that the whole test is wanted.
func long() bool { return os.Getenv("MAF_LONG") != "" }

// size is how many there are of something in the short and in the long form.
func size(short, whole int) int {
	if long() {
		return whole
	}
	return short
}

// needs leaves a test out where it can't be: it has so many files open at once,
// in one process.
func needs(t *testing.T, files int) {
	t.Helper()
	if testing.Short() {
		t.Skip("a flood is large, and says nothing about a mafd that the race detector slows down")
	}
	if runtime.GOOS != "linux" {
		t.Skip("this test reads /proc and uses all of 127.0.0.0/8: Linux only")
	}
	if limit := openFiles(t); files+spareFiles > limit {
		t.Skipf("this test needs %d open files, the limit is %d: raise it (ulimit -n)", files+spareFiles, limit)
	}
}

// spareFiles is what a process has open beside what a test needs.
const spareFiles = 100

// openFiles is how many files a process may have open.
func openFiles(t *testing.T) int {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	return int(min(limit.Cur, 1<<20))
}
