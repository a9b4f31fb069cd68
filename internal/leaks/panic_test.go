package leaks

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// panicVariable, when set in the environment, has the test's program panic at
// the named place, with keys all around.
const panicVariable = "MAF_LEAKS_PANIC"

func TestMain(m *testing.M) {
	if place := os.Getenv(panicVariable); place != "" {
		panicAt(place, os.Getenv("MAF_LEAKS_DIR"))
	}
	os.Exit(m.Run())
}

// TestPanics: whoever panics in the middle of a handshake, a callback, the store
// or the sealer, no key stands in what the runtime prints.
func TestPanics(t *testing.T) {
	for _, place := range []string{"GetPSK", "VerifyConnection", "Seal", "Open", "Commit"} {
		t.Run(place, func(t *testing.T) {
			secrets, trace := death(t, place)
			if !strings.Contains(string(trace), "panic: at "+place) || !strings.Contains(string(trace), "tlspsk.(*handshaker).server") {
				t.Fatalf("this is no panic in a handshake:\n%s", trace)
			}
			secrets.check(t, "traceback", trace)
			t.Logf("%d secrets are not in %d octets", len(secrets.values), len(trace))
		})
	}
	// A function that is given a key by value shows it.
	secrets, trace := death(t, "careless")
	secrets.shows(t, "traceback of a careless function", "Km", trace)
}

// death has another process panic and returns what it had to keep secret, and
// what it printed.
func death(t *testing.T, place string) (*finder, []byte) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), panicVariable+"="+place, "MAF_LEAKS_DIR="+dir, "GOTRACEBACK=system")
	trace, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("it did not die:\n%s", trace)
	}
	// It leaves its secrets in a file: one per line, the name in front.
	told, err := os.ReadFile(filepath.Join(dir, "secrets"))
	if err != nil {
		t.Fatalf("%v\n%s", err, trace)
	}
	secrets := newFinder()
	for line := range strings.Lines(string(told)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		value, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		secrets.add(name, value)
	}
	return secrets, trace
}

// panicAt is the process that dies: a MAF and a device.
func panicAt(place, dir string) {
	told, err := os.Create(filepath.Join(dir, "secrets"))
	must(err)
	tell := func(name string, key []byte) { fmt.Fprintf(told, "%s: %x\n", name, key) }
	km := octets(32)
	tell("Km", km)
	if place == "careless" {
		careless([32]byte(km))
	}
	maf := &deadlyMAF{place: place}
	maf.keyset, err = seal.File{Path: filepath.Join(dir, "keyset")}.Create(context.Background())
	must(err)
	ctx := context.Background()
	db, err := sqlstore.Open(ctx, filepath.Join(dir, "db"), sqlstore.Options{})
	must(err)
	maf.KeyStore = db.Keys()
	a, err := authority.New(ctx, authority.Config{FQDNs: []onem2m.FQDN{"maf.localhost"}, Clients: db.Clients(), Keys: maf, Sealer: maf})
	must(err)
	id := onem2m.KmID{Relative: "meter7", FQDN: "maf.localhost"}
	_, _, err = a.AddClient(ctx, authority.Client{KmID: id, IdB: onem2m.CSEID{SP: "city.example", ID: "in-cse"}}, secret.New(km))
	must(err)
	maf.armed = true

	cc, sc := net.Pipe()
	wire := &tap{Conn: cc}
	go tlspsk.Client(wire, &tlspsk.Config{Identity: []byte(id.String()), Key: km,
		CipherSuites: []uint16{tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256}}).Handshake()
	var master *authority.Master
	err = tlspsk.Server(sc, &tlspsk.Config{
		GetPSK: func(ctx context.Context, req *tlspsk.PSKRequest) (psk *tlspsk.PSK, err error) {
			master, err = a.MasterKey(ctx, req.Identity, req.ServerName)
			must(err)
			maf.die("GetPSK")
			return &tlspsk.PSK{Key: master.Km.Bytes()}, nil
		},
		VerifyConnection: func(ctx context.Context, cs *tlspsk.ConnectionState) error {
			h, err := wire.handshake()
			must(err)
			secret, expand := masterSecret(h, km)
			tell("master secret", secret)
			tell("record keys", recordKeys(h, secret, expand))
			exported, err := cs.ExportKeyingMaterial(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
			must(err)
			tell("Kc", exported[16:])
			maf.die("VerifyConnection")
			_, err = a.Establish(ctx, master, cs.ExportKeyingMaterial)
			return err
		},
	}).Handshake()
	fmt.Println("nothing panicked:", err)
	os.Exit(0)
}

// A deadlyMAF is a sealer and a store that panic at one place.
type deadlyMAF struct {
	store.KeyStore
	keyset *seal.Keyset
	place  string
	armed  bool
}

func (m *deadlyMAF) die(here string) {
	if m.armed && m.place == here {
		panic("at " + here)
	}
}

func (m *deadlyMAF) Seal(plaintext, associatedData []byte) ([]byte, error) {
	m.die("Seal")
	return m.keyset.Seal(plaintext, associatedData)
}

func (m *deadlyMAF) Open(box, associatedData []byte) ([]byte, error) {
	plaintext, err := m.keyset.Open(box, associatedData)
	m.die("Open")
	return plaintext, err
}

func (m *deadlyMAF) Commit(ctx context.Context, k store.Key) error {
	m.die("Commit")
	return m.KeyStore.Commit(ctx, k)
}

// careless is how not to hand on a key.
//
//go:noinline
func careless(key [32]byte) {
	panic("at careless" + strings.Repeat(" ", int(key[0]&1)))
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
