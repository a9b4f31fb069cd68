package leaks

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/adminapi/adminserver"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/mafd"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

const module = "github.com/onem2m-maf/maf/"

// keyless are the packages whose types hold no keys, or that no other package
// can print, and why. All other packages' exported structs are in the table of
// TestPrinting.
var keyless = map[string]string{
	"cmd/maf": "a program", "cmd/mafd": "a program", "cmd/mafgw": "a program",
	"internal/cost": "tests", "internal/docs": "tests", "internal/flood": "tests", "internal/interop": "tests",
	"internal/layers": "tests", "internal/leaks": "tests", "internal/peers": "tests", "internal/timing": "tests",
	"internal/store/storetest": "tests",
	"internal/admission":       "counts addresses",
	"internal/cli":             "prints by docs/cli-output.md; TestPrograms looks",
	"internal/demo":            "starts programs; TestDemo looks",
	"internal/version":         "a number",
	"internal/wholefile":       "passes files through",
	"internal/harden":          "holds nothing",
	"onem2m":                   "identifiers, which are public",
	"tlspsk/internal/suite":    "the engine's own; it prints nothing",
	"tlspsk/internal/wire":     "what is on the wire is public",

	// Keys of devices don't come into the gateway but by saef.
	"internal/gateway":             "names files; TestPrograms looks at what it prints",
	"internal/gateway/httpgw":      "has a key for addresses of its own; TestPrograms looks at what is printed",
	"internal/audit":               "what was done, by names",
	"internal/combine":             "what it combines is its user's",
	"internal/store/pgstore":       "rows of sealed boxes; a password is read when it is needed",
	"internal/store/pgtest":        "tests",
	"internal/gateway/access":      "who asked what",
	"internal/gateway/coap":        "messages",
	"internal/gateway/http1":       "messages",
	"internal/gateway/mqtt":        "messages",
	"internal/gateway/policy":      "rules about identifiers",
	"internal/gateway/primitive":   "messages",
	"internal/gateway/backendtest": "tests", "internal/gateway/gwtest": "tests", "internal/gateway/matrix": "tests",
}

// A specimen is a value of an exported type, full of keys.
type specimen struct {
	value any
	// wire names the secret that the type's JSON is made to carry. (Such types
	// must not be logged as JSON. That nobody does is for TestPrograms.)
	wire string
}

// TestPrinting prints a value of every exported struct in every way that there
// is, and finds no key. A struct that is not in the table fails the test.
func TestPrinting(t *testing.T) {
	if raceDetector {
		t.Skip("what runs is printed without its locks, which the race detector rightly minds")
	}
	secrets := newFinder()
	table := specimens(t, secrets)
	seen := make(map[string]bool)
	for _, name := range exportedStructs(t) {
		seen[name] = true
		s, ok := table[name]
		if !ok {
			t.Errorf("%s is new: put a value with keys in it into the table", name)
			continue
		}
		for how, text := range everyWay(s.value) {
			switch {
			case s.wire == "" || !strings.Contains(how, "JSON"):
				secrets.check(t, name+", "+how, text)
			case how == "value as JSON":
				secrets.shows(t, name+", "+how, s.wire, text)
			}
		}
	}
	for name := range table {
		if !seen[name] {
			t.Errorf("the table has %s, which does not exist", name)
		}
	}
	t.Logf("%d secrets, %d types", len(secrets.values), len(table))
}

// everyWay prints a value, a pointer to it, and a struct that holds it.
func everyWay(v any) map[string][]byte {
	ways := make(map[string][]byte)
	holders := map[string]any{
		"value": v, "list": []any{v}, "map": map[string]any{"k": v}, "member": struct{ V any }{v},
		"error": fmt.Errorf("wrapped: %v", v),
	}
	for kind, h := range holders {
		var b bytes.Buffer
		// Without "p", for which fmt asks no type how it wants to be printed,
		// and which go vet refuses for all but pointers.
		for _, verb := range []string{"v", "+v", "#v", "s", "q", "x", "X", "d", "o", "b", "c", "U", "e", "T", "t"} {
			fmt.Fprintf(&b, "%"+verb+"\n", h)
		}
		ways[kind+" by fmt"] = b.Bytes()
		b = bytes.Buffer{}
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "k", h, slog.Group("g", "k", h))
		ways[kind+" in a log as text"] = b.Bytes()
		if kind == "error" {
			continue
		}
		b = bytes.Buffer{}
		slog.New(slog.NewJSONHandler(&b, nil)).Info("m", "k", h, slog.Group("g", "k", h))
		ways[kind+" in a log as JSON"] = b.Bytes()
		text, err := json.Marshal(h)
		ways[kind+" as JSON"] = fmt.Append(text, err)
	}
	return ways
}

// exportedStructs lists the exported structs of all packages but the keyless.
func exportedStructs(t *testing.T) (names []string) {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{.Dir}} {{join .GoFiles " "}}`, "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		path, dir, files := strings.TrimPrefix(words[0], module), words[1], words[2:]
		if keyless[path] != "" {
			continue
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, structure := range structs(file) {
				names = append(names, path+"."+structure)
			}
		}
	}
	return names
}

// structs lists the exported structs of a file.
func structs(file *ast.File) (names []string) {
	for _, d := range file.Decls {
		types, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		for _, spec := range types.Specs {
			if spec, ok := spec.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				if _, ok := spec.Type.(*ast.StructType); ok {
					names = append(names, spec.Name.Name)
				}
			}
		}
	}
	return names
}

// specimens makes the table.
func specimens(t *testing.T, secrets *finder) map[string]specimen {
	t.Helper()
	km := octets(32)
	secrets.add("Km", km)
	key := secret.New(km)
	dir := t.TempDir()
	table := map[string]specimen{
		"internal/secret.Key": {value: key},

		"tlspsk.AlertError":  {value: &tlspsk.AlertError{Alert: tlspsk.AlertBadRecordMAC, Err: tlspsk.ErrUnknownIdentity}},
		"tlspsk.CipherSuite": {value: tlspsk.CipherSuites()[0]},
		"tlspsk.Config":      {value: tlspsk.Config{Identity: []byte("meter7"), Key: km}},
		"tlspsk.Dialer":      {value: &tlspsk.Dialer{Config: &tlspsk.Config{Key: km}}},
		"tlspsk.PSK":         {value: &tlspsk.PSK{Key: km, Data: key}},
		"tlspsk.PSKRequest":  {value: &tlspsk.PSKRequest{Identity: []byte("meter7")}},

		"internal/adminapi.Key":           {value: adminapi.Key{Key: key}, wire: "Km"},
		"internal/adminapi.NewClient":     {value: adminapi.NewClient{Km: adminapi.Key{Key: key}}, wire: "Km"},
		"internal/adminapi.CreatedClient": {value: adminapi.CreatedClient{Km: adminapi.Key{Key: key}}, wire: "Km"},
		"internal/adminapi.Client":        {value: adminapi.Client{}},
		"internal/adminapi.ClientPage":    {value: adminapi.ClientPage{Clients: []adminapi.Client{{}}}},
		"internal/adminapi.ClientChange":  {value: adminapi.ClientChange{}},
		"internal/adminapi.NewEntityB":    {value: adminapi.NewEntityB{}},
		"internal/adminapi.Error":         {value: &adminapi.Error{}},

		"internal/keyapi.Key":           {value: &keyapi.Key{Kc: key}},
		"internal/keyapi.Problem":       {value: keyapi.Problem{Error: "no such key"}},
		"internal/keyapi.Revocation":    {value: keyapi.Revocation{}},
		"internal/keyapi.Revocations":   {value: keyapi.Revocations{}},
		"internal/store.Client":         {value: store.Client{}},
		"internal/store.Key":            {value: store.Key{}},
		"internal/store.Revocation":     {value: store.Revocation{}},
		"internal/authority.Revocation": {value: authority.Revocation{}},
		"saef.Key":                      {value: saef.Key{Kc: key}},
		"saef.Association":              {value: saef.Association{}},
		"saef.HandshakeStats":           {value: saef.HandshakeStats{}},
		"internal/configfile.Problem":   {value: configfile.Problem{}},
		"internal/configfile.Error":     {value: &configfile.Error{}},
		"internal/configfile.Spec":      {value: configfile.Spec{}},
		"internal/mafd.Config":          {value: mafd.Defaults()},
		"internal/mafd.AdminConfig":     {value: mafd.Defaults().Admin},
		"internal/mafd.HandshakeConfig": {value: mafd.Defaults().Handshake},
		"internal/mafd.KeysConfig":      {value: mafd.Defaults().Keys},
		"internal/mafd.KeyAPIConfig":    {value: mafd.Defaults().KeyAPI},
		"internal/mafd.LogConfig":       {value: mafd.Defaults().Log},
	}
	addCore(t, secrets, table, dir, key)
	addRunning(t, secrets, table, dir, key)
	addGateway(t, table, key)
	addOperations(t, secrets, table, dir, key)
	return table
}

// addCore adds what the MAF's core is made of.
func addCore(t *testing.T, secrets *finder, table map[string]specimen, dir string, km secret.Key) {
	t.Helper()
	keysetFile := filepath.Join(dir, "keyset")
	keyset, err := seal.File{Path: keysetFile}.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addKeyset(t, secrets, keysetFile)
	db, err := sqlstore.Open(t.Context(), filepath.Join(dir, "db"), sqlstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	config := authority.Config{FQDNs: []onem2m.FQDN{"maf.localhost"}, Clients: db.Clients(), Keys: db.Keys(), Sealer: keyset}
	a, err := authority.New(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	id, cse := onem2m.KmID{Relative: "meter7", FQDN: "maf.localhost"}, onem2m.CSEID{SP: "city.example", ID: "in-cse"}
	client, _, err := a.AddClient(t.Context(), authority.Client{KmID: id, IdB: cse}, km)
	if err != nil {
		t.Fatal(err)
	}
	master, err := a.MasterKey(t.Context(), []byte(id.String()), "")
	if err != nil {
		t.Fatal(err)
	}
	exported := octets(48)
	secrets.add("Kc at the core", exported[16:])
	issued, err := a.Establish(t.Context(), master, func(string, []byte, int) ([]byte, error) { return bytes.Clone(exported), nil })
	if err != nil {
		t.Fatal(err)
	}
	released, err := a.Release(t.Context(), cse, issued.KcID)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := db.Clients().List(t.Context(), onem2m.KmID{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	row, err := db.Keys().Get(t.Context(), issued.KcID)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	caPEM, err := ca.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	addPEM(t, secrets, "private key of the authority", caPEM)
	entityB, err := ca.EntityB(cse, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	addPEM(t, secrets, "private key of Entity B", entityB.KeyPEM.Bytes())
	for name, value := range map[string]any{
		"internal/authority.Authority":         a,
		"internal/authority.Config":            config,
		"internal/authority.Client":            client,
		"internal/authority.Master":            master,
		"internal/authority.Issued":            issued,
		"internal/authority.Released":          released,
		"internal/adminapi/adminserver.Config": adminserver.Config{Clients: a},
		"internal/seal.Keyset":                 keyset,
		"internal/store.Client":                rows[0],
		"internal/store.Key":                   row,
		"internal/store/sqlstore.DB":           db,
		"internal/store/sqlstore.Options":      sqlstore.Options{},
		"internal/pki.Authority":               ca,
		"internal/pki.EntityB":                 entityB,
	} {
		table[name] = specimen{value: value}
	}
	table["internal/adminapi.EntityB"] = specimen{
		value: adminapi.EntityB{Key: adminapi.Key{Key: entityB.KeyPEM}}, wire: "private key of Entity B in PEM"}
}

// addRunning adds what lives: a daemon, a device and an Entity B with sessions.
func addRunning(t *testing.T, secrets *finder, table map[string]specimen, dir string, km secret.Key) {
	t.Helper()
	socketDir, err := os.MkdirTemp("", "maf-leaks-") // a Unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(socketDir) })
	config := mafd.Defaults()
	config.State = filepath.Join(socketDir, "state")
	config.Handshake.TLS, config.Handshake.DTLS = []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
	config.KeyAPI.Listen = []string{"127.0.0.1:0"}
	var log bytes.Buffer
	daemon, err := mafd.Start(t.Context(), config, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := daemon.Stop(t.Context()); err != nil {
			t.Error(err)
		}
		secrets.check(t, "mafd's log", log.Bytes())
	})
	addKeyset(t, secrets, filepath.Join(config.State, "keyset"))
	r := daemon.Runtime
	admin := adminapi.Open(r.Admin)
	id, cse := onem2m.KmID{Relative: "meter7", FQDN: "maf.localhost"}, onem2m.CSEID{SP: "city.example", ID: "in-cse"}
	if _, err := admin.Add(t.Context(), adminapi.NewClient{Client: adminapi.Client{KmID: id, EntityB: cse}, Km: adminapi.Key{Key: km}}); err != nil {
		t.Fatal(err)
	}
	issued, err := admin.AddEntityB(t.Context(), adminapi.NewEntityB{CSEID: cse})
	if err != nil {
		t.Fatal(err)
	}
	addPEM(t, secrets, "private key of the running Entity B", issued.Key.Bytes())
	certificate, err := tls.X509KeyPair([]byte(issued.Certificate), issued.Key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(issued.CA))
	keyAPIs := map[onem2m.FQDN]string{"maf.localhost": "https://" + r.KeyAPI[0]}

	device := &saef.Device{MAF: r.TLS[0], KmID: id, Km: km, Config: &tlspsk.Config{Key: km.Bytes()}}
	key, err := device.Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secrets.add("Kc", key.Kc.Bytes())
	clientConfig := keyclient.Config{MAFs: keyAPIs, Certificate: certificate, RootCAs: roots}
	client, err := keyclient.New(clientConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	fetched, err := client.Get(t.Context(), key.KcID)
	if err != nil {
		t.Fatal(err)
	}
	b := &saef.EntityB{MAFs: keyAPIs, Certificate: certificate, RootCAs: roots}
	t.Cleanup(func() { b.Close() })
	listener, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	association, err := device.Dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { association.Close() })
	accepted, err := listener.AcceptAssociation()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	conn := session(t, secrets, "udp", r.DTLS[0], &tlspsk.Config{Identity: []byte(id.String()), Key: km.Bytes(),
		CipherSuites: []uint16{tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256}})
	for name, value := range map[string]any{
		"tlspsk.Conn":                      conn,
		"tlspsk.ConnectionState":           conn.ConnectionState(),
		"saef.Device":                      device,
		"saef.Key":                         key,
		"saef.EntityB":                     b,
		"saef.Listener":                    listener,
		"saef.Conn":                        accepted,
		"saef.Association":                 accepted.Association(),
		"saef.Refusal":                     saef.Refusal{Err: tlspsk.ErrUnknownIdentity},
		"internal/keyapi.Key":              fetched,
		"internal/keyapi/keyclient.Config": clientConfig,
		"internal/keyapi/keyclient.Client": client,
		"internal/keyapi/keyclient.Feed":   client.Feed("maf.localhost"),
		"saef.MAFStatus":                   b.Status(),
		"internal/mafd.Daemon":             daemon,
		"internal/mafd.Config":             config,
		"internal/adminapi.Admin":          admin,
		"internal/adminapi.Runtime":        r,
	} {
		table[name] = specimen{value: value}
	}
}
