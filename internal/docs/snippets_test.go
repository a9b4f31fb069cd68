package docs

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// given is what the README's Go snippets take as there, each in its turn.
var given = []string{
	"ctx context.Context, id onem2m.KmID, km saef.Secret",
	"mafs map[onem2m.FQDN]string, certificate tls.Certificate, roots *x509.CertPool",
}

// TestSnippets: the README's Go compiles, and is formatted as gofmt does.
func TestSnippets(t *testing.T) {
	file := "package docs\n\nimport (\n" +
		"\t\"context\"\n\t\"crypto/tls\"\n\t\"crypto/x509\"\n\n" +
		"\t\"" + module + "/onem2m\"\n\t\"" + module + "/saef\"\n)\n"
	n := 0
	for _, b := range blocks(read(t, "README.md")) {
		if b.language != "go" {
			continue
		}
		if n == len(given) {
			t.Fatalf("README.md:%d: one more snippet; say in this test what it takes as given", b.line)
		}
		if neat, err := format.Source([]byte(b.text)); err != nil || string(neat) != b.text {
			t.Errorf("README.md:%d: not as gofmt has it (%v):\n%s", b.line, err, neat)
		}
		file += fmt.Sprintf("\nfunc snippet%d(%s) {\n%s%s}\n", n, given[n], b.text, uses(t, b))
		n++
	}
	if n != len(given) {
		t.Fatalf("%d snippets, want %d", n, len(given))
	}
	compile(t, file)
}

// uses returns a statement that uses the variables which a snippet declares: it
// goes on where the snippet ends.
func uses(t *testing.T, b block) string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "snippet", "package p\nfunc f() {\n"+b.text+"}", 0)
	if err != nil {
		t.Fatalf("README.md:%d: %v", b.line, err)
	}
	var s strings.Builder
	ast.Inspect(f, func(n ast.Node) bool {
		if a, ok := n.(*ast.AssignStmt); ok && a.Tok == token.DEFINE {
			for _, name := range a.Lhs {
				fmt.Fprintf(&s, "\t_ = %s\n", name)
			}
		}
		return true
	})
	return s.String()
}

// compile compiles the text as if it were a file of this package.
func compile(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	source, overlay := filepath.Join(dir, "snippets.go"), filepath.Join(dir, "overlay.json")
	here, err := filepath.Abs("snippets.go")
	if err != nil {
		t.Fatal(err)
	}
	replace, err := json.Marshal(map[string]any{"Replace": map[string]string{here: source}})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{source: []byte(text), overlay: replace} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "build", "-overlay", overlay, ".").CombinedOutput(); err != nil {
		t.Errorf("the README's snippets do not compile: %v\n%s\n%s", err, out, text)
	}
}
