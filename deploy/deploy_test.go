package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/mafd"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tool returns a foreign program, or skips the test.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("MAF_REQUIRE_PEERS") != "" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	return path
}

var (
	metricName   = regexp.MustCompile(`\bmaf(?:d|gw)_[a-z_]+`)
	documentedAs = regexp.MustCompile("(?m)^\\| `(maf(?:d|gw)_[a-z_]+)(?:\\{[a-z_,]*\\})?` \\|")
	histogram    = regexp.MustCompile(`_(bucket|sum|count)$`)
)

// TestMetricsExist: the dashboard and the alerts use metrics that there are: those
// in the documents, which other tests compare with the programs.
func TestMetricsExist(t *testing.T) {
	known := make(map[string]bool)
	for _, document := range []string{"../docs/metrics.md", "../docs/gateway.md"} {
		for _, found := range documentedAs.FindAllStringSubmatch(read(t, document), -1) {
			known[found[1]] = true
		}
	}
	for _, file := range []string{"grafana/maf.json", "prometheus/maf.rules.yml"} {
		used := metricName.FindAllString(read(t, file), -1)
		if len(used) < 10 {
			t.Errorf("%s uses only %d metrics", file, len(used))
		}
		for _, name := range used {
			if !known[name] && !known[histogram.ReplaceAllString(name, "")] {
				t.Errorf("%s uses %s, which there is not", file, name)
			}
		}
	}
}

func TestRules(t *testing.T) {
	out, err := exec.Command(tool(t, "promtool"), "check", "rules", "prometheus/maf.rules.yml").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestUnits: systemd understands the units, and finds little that the services
// could still do.
func TestUnits(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir := t.TempDir()
	units, err := filepath.Glob("systemd/*.s*")
	if err != nil || len(units) < 5 {
		t.Fatalf("%q, %v", units, err)
	}
	args := []string{"verify", "--man=no"}
	for _, unit := range units {
		if strings.HasSuffix(unit, ".sysusers") {
			continue
		}
		// The programs aren't installed here.
		text := regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(read(t, unit), "ExecStart=/bin/true")
		path := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	if out, err := exec.Command(analyze, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
	for _, unit := range []string{"mafd.service", "mafgw.service"} {
		// From 0, safe, to 100.
		cmd := exec.Command(analyze, "security", "--offline=yes", "--no-pager", "--threshold=15", filepath.Join(dir, unit))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// TestConfigurations: the configurations that are installed are good.
func TestConfigurations(t *testing.T) {
	for _, file := range []string{"etc/mafd.toml", "etc/container.toml"} {
		var stdout, stderr bytes.Buffer
		if code := mafd.Main([]string{"-check", "-config", file, "-state", t.TempDir()}, &stdout, &stderr); code != 0 {
			t.Errorf("%s: %s", file, &stderr)
		}
	}
}

// TestManual: the configuration in docs/install.md is good.
func TestManual(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(read(t, "../docs/install.md"), -1)
	if len(blocks) == 0 {
		t.Fatal("no configuration was found")
	}
	for _, b := range blocks {
		file := filepath.Join(t.TempDir(), "mafd.toml")
		if err := os.WriteFile(file, []byte(b[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		if code := mafd.Main([]string{"-check", "-config", file, "-state", t.TempDir()}, &stdout, &stderr); code != 0 {
			t.Errorf("%s", &stderr)
		}
	}
}

// TestPackageNamesExist: the package takes files that are there, and the commands
// and paths of the units are those that it installs.
func TestPackageNamesExist(t *testing.T) {
	config := read(t, "nfpm.yaml")
	sources := regexp.MustCompile(`src: "?([^",]+)`).FindAllStringSubmatch(config, -1)
	sources = append(sources, regexp.MustCompile(`(?m)^  p\w+: (\S+)$`).FindAllStringSubmatch(config, -1)...)
	if len(sources) < 15 {
		t.Errorf("only %d files were found", len(sources))
	}
	for _, s := range sources {
		if strings.HasPrefix(s[1], "${DIST}/") {
			continue // built
		}
		if _, err := os.Stat(filepath.Join("..", s[1])); err != nil {
			t.Error(err)
		}
	}
	for _, unit := range []string{"systemd/mafd.service", "systemd/mafgw.service"} {
		start := regexp.MustCompile(`(?m)^ExecStart=(\S+)`).FindStringSubmatch(read(t, unit))
		if start == nil || !strings.Contains(config, "dst: "+start[1]+",") {
			t.Errorf("%s starts %q, which is not installed", unit, start)
		}
	}
	sockets, err := filepath.Glob("systemd/*.socket")
	if err != nil || len(sockets) != 3 {
		t.Fatalf("%q, %v", sockets, err)
	}
	for _, socket := range sockets {
		// mafd refuses a name that it doesn't know; see its tests.
		if !regexp.MustCompile(`(?m)^FileDescriptorName=(tls|dtls|keyapi)$`).MatchString(read(t, socket)) {
			t.Errorf("%s has no name that mafd knows", socket)
		}
	}
}
