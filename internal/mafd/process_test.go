package mafd

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestProcess: started as a program, mafd protects its files and its memory,
// and ends in order when told to.
func TestProcess(t *testing.T) {
	dir := shortDir(t)
	state := filepath.Join(dir, "state")
	config := filepath.Join(dir, "mafd.toml")
	text := "state = \"state\"\nhandshake = { tls = [\"127.0.0.1:0\"], dtls = [\"127.0.0.1:0\"] }\nkeyapi.listen = [\"127.0.0.1:0\"]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, config)
	r := p.await(t, state)
	if runtime.GOOS == "linux" {
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", r.PID))
		if err == nil && !strings.Contains(string(limits), "Max core file size        0                    0") {
			t.Errorf("core dumps are on:\n%s", limits)
		}
	}
	entries, err := os.ReadDir(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 && e.Name() != "ca.pem" {
			t.Errorf("%s is open to others: %v", e.Name(), info.Mode())
		}
	}
	// Somebody who holds a connection open and says nothing delays the end by
	// the grace at most; here it is told twice.
	idle, err := net.Dial("tcp", r.TLS[0])
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	p.cmd.Process.Signal(os.Interrupt)
	p.terminate(t)
	if _, err := net.Dial("tcp", r.TLS[0]); err == nil {
		t.Error("it still listens")
	}
	if !strings.Contains(p.log.String(), "This is the first start") || !strings.Contains(p.log.String(), "msg=stopped") {
		t.Errorf("the log:\n%s", p.log)
	}
}

// TestCommandLine: what is wrong with a command line or a configuration is said
// on standard error, with exit code 2, and nothing is started.
func TestCommandLine(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.toml")
	good := filepath.Join(dir, "good.toml")
	missing := filepath.Join(dir, "missing.toml")
	for path, text := range map[string]string{
		bad:     "fqdn = [\"maf.example.com\"]\n",
		good:    "state = \"state\"\n",
		missing: "state = \"state\"\nkeyapi.client_ca = \"none.pem\"\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string
	}{
		{[]string{"-version"}, exitOK, "devel", ""},
		{[]string{"-check", "-config", good}, exitOK, "the configuration is good", ""},
		{[]string{"-check", "-config", bad}, exitUsage, "", "bad.toml:1: fqdn is not a key that mafd knows; did you mean fqdns?"},
		{[]string{"-config", bad}, exitUsage, "", "did you mean fqdns?"},
		{[]string{"-check", "-config", missing}, exitUsage, "", "none.pem"},
		{[]string{"-config", dir + "/nowhere.toml"}, exitUsage, "", "nowhere.toml"},
		{[]string{"start"}, exitUsage, "", `there is no argument "start"`},
		{[]string{"-stat", "x"}, exitUsage, "", "-stat"},
		{[]string{"-help"}, exitOK, "", "Usage: mafd"},
		{[]string{"-state", "/" + strings.Repeat("x", 200)}, exitUsage, "", "too long for a Unix socket"},
	} {
		var stdout, stderr bytes.Buffer
		code := Main(c.args, &stdout, &stderr)
		if code != c.code || !strings.Contains(stdout.String(), c.stdout) || !strings.Contains(stderr.String(), c.stderr) {
			t.Errorf("mafd %s: exit %d, stdout %q, stderr %q", strings.Join(c.args, " "), code, &stdout, &stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
		t.Error("a check made the state folder")
	}
}
