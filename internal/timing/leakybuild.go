package timing

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// CheckLeakyBuild runs the named tests of the package in the current folder once
// more with a build tag that puts naive code in the place of what is under test.
// It demands that there each of them fails, with all of its subtests, and that
// the naive code is not to be had outside of tests.
func CheckLeakyBuild(t *testing.T, tag string, tests ...string) {
	t.Helper()
	if out, err := exec.Command("go", "build", "-tags", tag, ".").CombinedOutput(); err == nil {
		t.Errorf("the package compiles with the tag %s: a program can contain the naive code", tag)
	} else if !bytes.Contains(out, []byte("undefined")) {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	cmd := exec.Command("go", "test", "-tags", tag, "-json", "-count=1",
		"-run", "^("+strings.Join(tests, "|")+")$", ".")
	cmd.Env = append(os.Environ(), longVariable+"=") // the short form has to do
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		t.Fatalf("go test: %v", err)
	}
	outcomes := make(map[string]string) // of tests and subtests
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var event struct{ Action, Test, Output string }
		if err := d.Decode(&event); err != nil {
			t.Fatalf("go test -json: %v", err)
		}
		switch {
		case event.Test == "":
		case event.Action == "output" && strings.Contains(event.Output, "t="):
			t.Logf("%s: %s", event.Test, strings.TrimSpace(event.Output))
		case event.Action == "pass", event.Action == "fail", event.Action == "skip":
			outcomes[event.Test] = event.Action
		}
	}
	for _, name := range tests {
		if outcomes[name] == "" {
			t.Errorf("%s did not run in the leaky build", name)
		}
	}
	for test, outcome := range outcomes {
		if outcome != "fail" {
			t.Errorf("%s: %s in the leaky build; it should fail", test, outcome)
		}
	}
}
