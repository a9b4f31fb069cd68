// Package layers holds the test of which package may import which.
package layers

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/onem2m-maf/maf"

// levels says where each package stands. Imports go to lower levels only, or,
// within a level, to packages listed earlier on the same line.
var levels = []string{
	0: "internal/secret internal/wholefile internal/version internal/harden internal/systemd internal/combine internal/strictjson onem2m",
	1: "tlspsk/internal/wire tlspsk/internal/suite tlspsk internal/kdf internal/seal internal/kek internal/configfile",
	2: "internal/audit internal/store internal/admission",
	3: "internal/authority",
	4: "internal/store/storetest internal/store/sqlstore internal/store/pgtest internal/store/pgstore internal/pki " +
		"internal/keyapi internal/keyapi/keyclient internal/keyapi/keyserver " +
		"internal/adminapi internal/adminapi/adminserver internal/provision saef " +
		"internal/gateway/access internal/gateway/http1 internal/gateway/primitive internal/gateway/policy internal/gateway/matrix internal/gateway/gwtest internal/gateway/backendtest internal/gateway/mqtt internal/gateway/coap",
	5: "internal/demo internal/mafd internal/cli internal/gateway/httpgw internal/gateway/mqttgw internal/gateway/coapgw internal/gateway",
	6: "cmd/mafd cmd/maf cmd/mafgw docs/examples/echocse deploy/image deploy/sbom",
	7: "internal/timing internal/leaks internal/peers internal/interop internal/cost internal/flood internal/docs internal/deployment deploy internal/layers", // tests
}

// forbidden says what a package must never contain, however indirectly, and
// why.
var forbidden = []struct{ pkg, dep, why string }{
	{"saef", module + "/internal/authority", "Entity B must not contain the MAF's core"},
	{"saef", module + "/internal/store", "a captured gateway must not contain code that reads the key store"},
	{"saef", module + "/internal/seal", "a captured gateway must not contain code that opens sealed keys"},
	{"cmd/maf", module + "/internal/store", "the tool talks to mafd; it does not open its store"},
	{"cmd/maf", module + "/internal/authority", "the tool talks to mafd; it is not a MAF"},
	{"cmd/mafgw", module + "/internal/authority", "the gateway is not a MAF"},
	{"cmd/mafgw", module + "/internal/store", "a captured gateway must not contain code that reads the key store"},
	{"cmd/mafgw", module + "/internal/seal", "a captured gateway must not contain code that opens sealed keys"},
	{"cmd/mafgw", module + "/internal/adminapi", "a captured gateway must not contain code that administers the MAF"},
	{"cmd/maf", module + "/internal/kek", "the tool talks to mafd; it does not open its keyset"},
	{"cmd/mafgw", module + "/internal/kek", "a captured gateway must not contain code that opens the keyset"},
	{"cmd/mafgw", "modernc.org/sqlite", "the gateway has no database"},
	{"internal/authority", "net/http", "the core knows no HTTP"},
	{"internal/authority", "database/sql", "the core knows no SQL"},
	{"internal/authority", module + "/tlspsk", "the core knows no sockets"},
	{"tlspsk", "crypto/x509", "the engine has no certificates"},
	{"tlspsk", "crypto/tls", "the engine has no other versions"},
	{"cmd/mafd", "testing", "production code must not contain test packages"},
	{"cmd/mafgw", "testing", "production code must not contain test packages"},
	{"cmd/maf", "testing", "production code must not contain test packages"},
}

func golist(t *testing.T, args ...string) []string {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n")
}

// Every package has a level, and imports point downwards.
func TestImportsPointDownwards(t *testing.T) {
	place := make(map[string][2]int) // level, and place within
	for level, line := range levels {
		for i, pkg := range strings.Fields(line) {
			place[pkg] = [2]int{level, i}
		}
	}
	listed := make(map[string]bool)
	for _, line := range golist(t, "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./...") {
		words := strings.Fields(line)
		pkg := strings.TrimPrefix(words[0], module+"/")
		at, ok := place[pkg]
		if !ok {
			t.Errorf("%s has no level: give it one in levels", pkg)
			continue
		}
		listed[pkg] = true
		for _, imported := range words[1:] {
			name, own := strings.CutPrefix(imported, module+"/")
			if !own {
				continue
			}
			to := place[name]
			if to[0] > at[0] || to[0] == at[0] && to[1] >= at[1] {
				t.Errorf("%s (level %d) imports %s (level %d)", pkg, at[0], name, to[0])
			}
		}
	}
	for pkg := range place {
		if !listed[pkg] {
			t.Errorf("levels has %s, which does not exist", pkg)
		}
	}
}

func TestForbiddenDependencies(t *testing.T) {
	for _, f := range forbidden {
		for _, dep := range golist(t, "-deps", "./"+f.pkg) {
			if dep == f.dep || strings.HasPrefix(dep, f.dep+"/") {
				t.Errorf("%s contains %s: %s", f.pkg, dep, f.why)
			}
		}
	}
}
