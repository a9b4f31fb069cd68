package audit

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// folderVariable makes this test's program a writer that is killed; see
// TestMain.
const folderVariable = "MAF_AUDIT_TEST_FOLDER"

func TestMain(m *testing.M) {
	if folder := os.Getenv(folderVariable); folder != "" {
		write(folder)
	}
	os.Exit(m.Run())
}

// write records and commits without end, and prints the number of each event
// once it is committed.
func write(folder string) {
	l, err := Open(Config{
		File: FileConfig{Folder: folder, MaxSize: 20_000}, Queue: 1000, Refuse: true, Log: slog.New(slog.DiscardHandler),
	}, Event{})
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
	ctx := context.Background()
	for n := uint64(1); ; n++ {
		e := example
		e.Count = n
		for range 3 {
			l.Record(ctx, Event{Kind: Handshake, Outcome: OK})
		}
		if err := l.Commit(ctx, e); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		fmt.Println("committed", n)
	}
}

// TestKill kills a writer with SIGKILL at random moments. What was committed is
// there, once, and the log verifies, with every kill in it.
func TestKill(t *testing.T) {
	const kills = 20
	folder := t.TempDir()
	committed := make([]uint64, kills)
	for i := range kills {
		committed[i] = killed(t, folder)
	}
	l := open(t, Config{File: FileConfig{Folder: folder, MaxSize: 1 << 20}, Queue: 10, Log: slog.New(slog.DiscardHandler)})
	l.Close()
	r := verify(t, folder)
	if r.First != 1 || r.Last != uint64(r.Lines) {
		t.Errorf("%+v", r)
	}
	files, err := Files(folder)
	if err != nil {
		t.Fatal(err)
	}
	run := -1
	var last uint64
	ends := make([]uint64, kills+1)
	for line, err := range Lines(files) {
		switch {
		case err != nil:
			t.Fatal(err)
		case line.Kind == Start:
			run++
			last = 0
		case line.Kind == example.Kind:
			if line.Count != last+1 {
				t.Fatalf("%s:%d: event %d after %d", line.File, line.N, line.Count, last)
			}
			last, ends[run] = line.Count, line.Count
		}
	}
	if run != kills {
		t.Fatalf("%d starts, want %d", run+1, kills+1)
	}
	total := uint64(0)
	for i, want := range committed {
		total += want
		// The last may have been written and not told any more.
		if ends[i] != want && ends[i] != want+1 {
			t.Errorf("run %d: %d events are in the log, %d were committed", i, ends[i], want)
		}
	}
	if total < kills {
		t.Errorf("only %d events: the writer was killed before it wrote", total)
	}
	t.Logf("%d kills, %d events committed, %d lines in %d files", kills, total, r.Lines, r.Files)
}

// killed starts a writer, kills it some time later, and returns how much it had
// committed by its own word.
func killed(t *testing.T, folder string) (committed uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), folderVariable+"="+folder)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // after all was read
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text := lines.Text()
		if strings.HasPrefix(text, "error") {
			t.Fatal(text)
		}
		var n uint64
		if _, err := fmt.Sscanf(text, "committed %d", &n); err != nil {
			break // half a line
		}
		if committed == 0 { // now it writes
			time.AfterFunc(time.Duration(rand.IntN(30))*time.Millisecond, func() { cmd.Process.Kill() })
		}
		committed = n
	}
	return committed
}
