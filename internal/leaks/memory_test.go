package leaks

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMemory searches mafd's memory when it has done its work: no master key,
// connection key or master secret is left to the garbage collector. Each was in
// the heap, and stays there for as long as nothing else happens to be put into its
// place if it is not wiped, so a forgotten one is nearly always found; one that is
// wiped never is, however busy the machine.
//
// What Go gives no way to wipe is not searched for: the state of crypto/hmac and of
// the ciphers, of which the keys could be worked out, and what net/http and
// encoding/json leave in their buffers, in base64.
func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("only root, on Linux, can read mafd's memory")
	}
	if testing.Short() {
		t.Skip("building and running all programs is left out with -short")
	}
	s := newStage(t)
	mafd, r := s.startMAF("text", nil)
	p := &play{stage: s, runtime: r, km: octets(32)}
	s.secrets.add("Km", p.km)
	p.write("meter7.key", hex.EncodeToString(p.km))
	p.run(call{args: []string{"client", "add", meter, "--entity-b", city, "--km-file", "meter7.key"}})
	p.run(call{args: []string{"client", "add", meter, "--entity-b", city, "--km-file", "meter7.key"}, exit: 4}) // it exists
	p.run(call{args: []string{"client", "add", "made@maf.localhost", "--entity-b", city, "--km-out", "made.key"}})
	p.addKeyFile("Km that mafd made", "made.key")
	p.run(call{args: []string{"client", "disable", "made@maf.localhost"}}) // its Km is sealed anew
	p.run(call{args: []string{"entity-b", "add", city, "--out", "city"}})
	_, platform := s.startPlatform(r, "city")
	p.run(call{args: []string{"connect", platform, "--as", meter, "--maf", r.TLS[0], "--km-file", "meter7.key", "--kc-file", "meter7.kc"}, stdin: "hello\n"})
	p.addKeyFile("Kc that was released", "meter7.kc")
	p.sessions()
	p.run(call{args: []string{"handshake", meter, "--maf", r.TLS[0], "--km-file", "made.key"}, exit: 4}) // a wrong Km
	p.run(call{args: []string{"handshake", "made@maf.localhost", "--maf", r.TLS[0], "--km-file", "made.key"}, exit: 4})
	addKeyset(t, s.secrets, s.path("state/keyset"))

	// The last handshake's goroutine may not have come to the wiping yet.
	var left map[string]int
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		left = inMemory(t, mafd.cmd.Process.Pid, s.secrets)
		if left["key of the keyset"] == 0 {
			t.Fatal("the key of the keyset, which mafd needs all the time, is not found: the search sees nothing")
		}
		// mafd works with these, too, until the sessions end.
		maps.DeleteFunc(left, func(name string, _ int) bool {
			return name == "key of the keyset" || strings.HasPrefix(name, "record keys")
		})
		if len(left) == 0 || time.Now().After(deadline) {
			break
		}
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		t.Errorf("%s is still in mafd's memory, %d times", name, left[name])
	}
	t.Logf("searched for %d secrets", len(s.secrets.values))
}

// inMemory counts how often each secret stands in a process's memory.
func inMemory(t *testing.T, pid int, secrets *finder) map[string]int {
	t.Helper()
	areas, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if errors.Is(err, fs.ErrPermission) {
		t.Skip("not even root can read mafd's memory here")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	counts := make(map[string]int)
	for line := range strings.Lines(string(areas)) {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(rights, "rw") {
			continue
		}
		b := make([]byte, to-from)
		n, _ := memory.ReadAt(b, int64(from)) // some areas can't be read, or are gone
		for name, value := range secrets.values {
			if c := bytes.Count(b[:n], value); c > 0 {
				counts[name] += c
			}
		}
	}
	return counts
}
