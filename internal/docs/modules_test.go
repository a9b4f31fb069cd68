package docs

import (
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/onem2m-maf/maf"

var moduleRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// TestModules: docs/choices.md lists the modules that we import, tests included,
// and no others; and so does go.mod.
func TestModules(t *testing.T) {
	listed := make(map[string]bool)
	for _, m := range moduleRow.FindAllStringSubmatch(read(t, "docs/choices.md"), -1) {
		listed[m[1]] = true
	}
	direct := make(map[string]bool)
	for _, name := range golist(t, "{{with .Module}}{{.Path}}{{end}}", imports(t)...) {
		direct[name] = true
	}
	if required := requirements(t); !maps.Equal(required, direct) {
		t.Errorf("go.mod requires directly:\n%q\nand these are imported:\n%q\nTry: go mod tidy",
			slices.Sorted(maps.Keys(required)), slices.Sorted(maps.Keys(direct)))
	}
	for _, name := range slices.Sorted(maps.Keys(direct)) {
		if !listed[name] {
			t.Errorf("%s is used and docs/choices.md does not say why", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if !direct[name] {
			t.Errorf("docs/choices.md lists %s, which is not used", name)
		}
	}
}

// imports returns the packages of others that ours and their tests import,
// less the standard library's.
func imports(t *testing.T) []string {
	var all []string
	for _, name := range golist(t, `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`, "./...") {
		host, _, _ := strings.Cut(name, "/")
		own := name == module || strings.HasPrefix(name, module+"/")
		if strings.Contains(host, ".") && !own {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

var requirement = regexp.MustCompile(`(?m)^\s+(\S+) v\S+$`)

// requirements returns the modules that go.mod requires directly: those without
// a remark.
func requirements(t *testing.T) map[string]bool {
	names := make(map[string]bool)
	for _, m := range requirement.FindAllStringSubmatch(read(t, "go.mod"), -1) {
		names[m[1]] = true
	}
	return names
}

// golist returns the words that "go list" prints with a format.
func golist(t *testing.T, format string, packages ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-f", format}, packages...)...)
	cmd.Dir = root
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &failure)
	}
	return strings.Fields(string(out))
}
