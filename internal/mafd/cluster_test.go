package mafd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/keyapi/keyclient"
	"github.com/onem2m-maf/maf/internal/store/pgtest"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A cluster is mafd on one PostgreSQL. Each has a state folder, and they share the
// keyset and the authority for Entity Bs, as docs/cluster.md says.
type cluster struct {
	postgres *pgtest.Server
	url      string
	keyset   string
	nodes    []*testMAF
}

func startCluster(t *testing.T, nodes int) *cluster {
	t.Helper()
	s := pgtest.Start(t)
	c := &cluster{postgres: s, url: s.NewDatabase(t), keyset: filepath.Join(shortDir(t), "keyset")}
	for range nodes {
		config := c.config(shortDir(t))
		if len(c.nodes) > 0 {
			c.copyAuthority(t, config)
		}
		c.nodes = append(c.nodes, startMAF(t, config))
	}
	return c
}

func (c *cluster) config(dir string) Config {
	config := testConfig(dir)
	config.Store = StoreConfig{Postgres: c.url, PasswordFile: c.postgres.PasswordFile(), Keyset: c.keyset}
	config.Handshake.DeviceBurst = 0 // the tests' load comes from one device
	return config
}

// copyAuthority gives a new node the first one's authority.
func (c *cluster) copyAuthority(t *testing.T, to Config) {
	t.Helper()
	private, err := os.ReadFile(c.nodes[0].state.file(caKeyName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(to.State, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to.State, caKeyName), private, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestCluster: two mafd on one PostgreSQL serve the same devices, and what an
// administrator does at one counts at the other at once.
func TestCluster(t *testing.T) {
	c := startCluster(t, 2)
	a, b := c.nodes[0], c.nodes[1]
	if !strings.Contains(a.firstStart(), c.keyset) || b.firstStart() != "" {
		t.Errorf("the first start of the first says:\n%s\nand that of the second:\n%s", a.firstStart(), b.firstStart())
	}
	certificate := a.certificate(t, cityCSE)
	entityB := &saef.EntityB{MAFs: b.keyAPIs(), Certificate: certificate, RootCAs: b.roots(t)}
	defer entityB.Close()
	l, err := entityB.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	waitFor(t, "Entity B to follow the revocations of the second", func() bool {
		return entityB.Status()[0].Blind == nil && entityB.Status()[1].Blind == nil
	})

	eachTransport(t, func(t *testing.T, network string) {
		id := network + "@maf.example.com"
		km := a.add(t, id, nil)
		// A handshake at one, released by the other.
		key, err := a.device(t, network, id, km).Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.keys(t, certificate).Get(t.Context(), key.KcID)
		if err != nil || !got.Kc.Equal(key.Kc) {
			t.Fatalf("the other releases %v (%v)", got.KcID, err)
		}
		// The association of a device that knows only the first.
		device, err := a.device(t, network, id, km).Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer device.Close()
		conn, err := l.AcceptAssociation()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		device.SetDeadline(time.Now().Add(patience))

		off, on := true, false
		if _, err := a.admin.Change(t.Context(), kmID(t, id), adminapi.ClientChange{Disabled: &off}); err != nil {
			t.Fatal(err)
		}
		changed := time.Now()
		if _, err := device.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || !conn.Revoked() {
			t.Errorf("the association goes on: %v", err)
		}
		t.Logf("the association was over %v after the administrator had the answer", time.Since(changed).Round(time.Millisecond))
		if _, err := b.keys(t, certificate).Get(t.Context(), key.KcID); !errors.Is(err, keyclient.ErrNotFound) {
			t.Errorf("the other still releases the key of a disabled device: %v", err)
		}
		var alert *tlspsk.AlertError
		if _, err := b.device(t, network, id, km).Handshake(t.Context()); !errors.As(err, &alert) || alert.Alert != tlspsk.AlertBadRecordMAC {
			t.Errorf("the disabled device gets %v from the other", err)
		}

		// And the other way round.
		if _, err := b.admin.Change(t.Context(), kmID(t, id), adminapi.ClientChange{Disabled: &on}); err != nil {
			t.Fatal(err)
		}
		if key, err = a.device(t, network, id, km).Handshake(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.admin.RevokeKey(t.Context(), key.KcID); err != nil {
			t.Fatal(err)
		}
		if _, err := a.keys(t, certificate).Get(t.Context(), key.KcID); !errors.Is(err, keyclient.ErrNotFound) {
			t.Errorf("the first still releases a key that was revoked at the other: %v", err)
		}
	})
}

// TestClusterKeyset: a node with another keyset than the others does not start, even
// before there is a client, and says why.
func TestClusterKeyset(t *testing.T) {
	c := startCluster(t, 1)
	refused := func(what string, config Config, want ...string) {
		t.Helper()
		d, err := Start(t.Context(), config, slog.New(slog.DiscardHandler))
		if err == nil {
			d.Stop(t.Context())
			t.Fatalf("%s: it starts", what)
		}
		for _, text := range append(want, "copy") {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: the error does not say %q: %v", what, text, err)
			}
		}
	}
	other := startMAF(t, testConfig(shortDir(t))) // on its own store
	config := c.config(shortDir(t))
	config.Store.Keyset = other.state.file(keysetName)
	refused("another keyset", config, config.Store.Keyset, "another keyset")
	c.nodes[0].add(t, meterID, nil)
	refused("another keyset, with a client", config, "another keyset")
	config.Store.Keyset = ""
	refused("no keyset", config, filepath.Join(config.State, keysetName), "is in use already")
	if _, err := os.Stat(filepath.Join(config.State, keysetName)); err == nil {
		t.Error("a node that was refused made a keyset")
	}
}

// TestClusterRotation: the keyset's keys may be replaced, and nodes that have the
// new one start, although the mark was made with the old one.
func TestClusterRotation(t *testing.T) {
	for _, withClient := range []bool{false, true} {
		c := startCluster(t, 1)
		config, keys := c.nodes[0].config, c.nodes[0].db.keyset
		old := keys.Primary()
		added, err := keys.Add(t.Context())
		if err == nil {
			err = keys.Promote(t.Context(), added.ID)
		}
		if err != nil {
			t.Fatal(err)
		}
		if withClient { // retired before any node started again
			c.nodes[0].add(t, meterID, nil)
		} else {
			c.nodes[0].stop(t)
			c.nodes[0] = startMAF(t, config)
			keys = c.nodes[0].db.keyset
		}
		if err := keys.Retire(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		c.nodes[0].stop(t)
		startMAF(t, config)
	}
}

// TestClusterRestart: PostgreSQL is killed and restarted under load. Both mafd
// recover by themselves, and no key is lost whose handshake a device saw complete.
func TestClusterRestart(t *testing.T) {
	c := startCluster(t, 2)
	certificate := c.nodes[0].certificate(t, cityCSE)
	km := c.nodes[0].add(t, meterID, nil)
	var (
		mu     sync.Mutex
		issued []saef.Key // guarded by mu
		failed atomic.Int64
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var load sync.WaitGroup
	for i, node := range []*testMAF{c.nodes[0], c.nodes[1], c.nodes[0], c.nodes[1]} {
		network := [...]string{"tcp", "udp"}[i/2]
		device := node.device(t, network, meterID, km)
		load.Go(func() {
			for ctx.Err() == nil {
				key, err := device.Handshake(ctx)
				if err != nil {
					// A device must not be told that its key is wrong.
					var alert *tlspsk.AlertError
					if errors.As(err, &alert) && alert.Alert != tlspsk.AlertInternalError {
						t.Errorf("handshake: %v", err)
					}
					failed.Add(1)
					time.Sleep(5 * time.Millisecond)
					continue
				}
				mu.Lock()
				issued = append(issued, key)
				mu.Unlock()
			}
		})
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(issued)
	}
	await := func(what string, happened func() bool) {
		t.Helper()
		for deadline := time.Now().Add(2 * time.Minute); !happened(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain for %s", what)
			}
		}
	}
	more := func() {
		t.Helper()
		n := count()
		await("more keys", func() bool { return count() >= n+20 })
	}
	for _, end := range []func(){c.postgres.Kill, c.postgres.Stop} {
		more()
		end()
		before := failed.Load()
		await("handshakes to fail", func() bool { return failed.Load() >= before+4 })
		// A key API without its store does not say that there is no such key.
		if _, err := c.nodes[1].keys(t, certificate).Get(t.Context(), onem2m.KcID{FQDN: served}); !errors.Is(err, keyclient.ErrUnavailable) {
			t.Errorf("the key API says %v", err)
		}
		c.postgres.Run(t)
		more()
	}
	cancel()
	load.Wait()
	for i, want := range issued {
		got, err := c.nodes[i%2].keys(t, certificate).Get(t.Context(), want.KcID)
		if err != nil || !got.Kc.Equal(want.Kc) {
			t.Fatalf("a key is lost: %v: %v", want.KcID, err)
		}
	}
	t.Logf("%d keys were issued, %d handshakes failed", len(issued), failed.Load())
	for _, node := range c.nodes {
		for _, line := range []string{"the connection to PostgreSQL is lost", "the connection to PostgreSQL is back"} {
			await(line, func() bool { return strings.Contains(node.log.String(), line) })
		}
		if strings.Contains(node.log.String(), "not in a URL") {
			t.Error("the password is in the log")
		}
	}
}
