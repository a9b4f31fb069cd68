package leaks

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestDemo: the demo shows the whole flow with everything that the programs
// print, and no key. The keys are in files that it removes at its end, so they
// are looked at while it plays.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("building and running all programs is left out with -short")
	}
	for _, args := range [][]string{{"demo"}, {"demo", "--json"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel() // it waits more than it works
			s := newStage(t)
			stop, done := make(chan struct{}), make(chan map[string][]byte)
			go func() { done <- watchKeys(s.dir, stop) }()
			out := s.run(call{args: args})
			close(stop)
			keys := <-done
			for _, name := range slices.Sorted(maps.Keys(keys)) {
				s.secrets.add(name, keys[name])
			}
			s.secrets.check(t, "maf demo", []byte(out))
			// Two meters' Km, a thief's, and at least one Kc for each platform.
			if len(keys) < 6 {
				t.Errorf("only %d keys were seen: %q", len(keys), slices.Sorted(maps.Keys(keys)))
			}
			t.Logf("%d keys are not in %d octets", len(keys), len(out))
		})
	}
}

// watchKeys collects the keys in the demo's files until it is told to stop.
func watchKeys(dir string, stop <-chan struct{}) map[string][]byte {
	keys := make(map[string][]byte)
	for {
		files, _ := filepath.Glob(filepath.Join(dir, "maf-demo-*", "*.k[ec]*")) // the pattern is good
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // removed just now
			}
			if key := keyIn(text); len(key) > 0 {
				keys[fmt.Sprintf("%s (%x...)", filepath.Base(file), key[:2])] = key
			}
		}
		select {
		case <-stop:
			return keys
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// keyIn returns the key in a file of maf's: hexadecimal, or the JSON of a cached
// Kc. It returns nil for what is not complete.
func keyIn(text []byte) []byte {
	var cached struct{ Kc string }
	if json.Unmarshal(text, &cached) == nil && cached.Kc != "" {
		key, err := base64.StdEncoding.DecodeString(cached.Kc)
		if err != nil {
			return nil
		}
		return key
	}
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) < 2*window {
		return nil
	}
	return key
}
