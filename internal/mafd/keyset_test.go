package mafd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/secret"
)

// rotate adds a key to the keyset and promotes it, and returns the old one.
func (m *testMAF) rotate(t testing.TB) (old uint32) {
	t.Helper()
	old = uint32(m.db.keyset.Primary())
	added, err := m.admin.AddKeysetKey(t.Context())
	if err == nil {
		err = m.admin.PromoteKeysetKey(t.Context(), added.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	return old
}

// rewrap starts one and waits for its end.
func (m *testMAF) rewrap(t *testing.T) (r adminapi.Rewrap) {
	t.Helper()
	if _, err := m.admin.StartRewrap(t.Context(), adminapi.NewRewrap{Rate: adminapi.MaxRewrapRate}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of a rewrap", func() (ended bool) {
		var err error
		if r, err = m.admin.Rewrap(t.Context()); err != nil {
			t.Fatal(err)
		}
		return !r.Running
	})
	return r
}

// TestKeysetUnderLoad: the key at rest is replaced from end to end while devices
// come over TLS and DTLS. No handshake fails for it, and every Kc is released as
// the device has it.
func TestKeysetUnderLoad(t *testing.T) {
	config := testConfig(shortDir(t))
	config.Handshake.DeviceBurst = 0
	m := startMAF(t, config)
	m.keyset.settle = 0
	const devices = 8
	keyAPI := m.keys(t, m.certificate(t, cityCSE))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	released := make([]int, devices)
	for n := range devices {
		id := fmt.Sprintf("m%d@maf.example.com", n)
		km := m.add(t, id, func(c *adminapi.NewClient) { c.Lifetime = adminapi.Duration(4 * time.Second) })
		device := m.device(t, []string{"tcp", "udp"}[n%2], id, km)
		load.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				key, err := device.Handshake(t.Context())
				if err != nil {
					t.Errorf("device %d: %v", n, err)
					return
				}
				got, err := keyAPI.Get(t.Context(), key.KcID)
				switch {
				case err == nil && !got.Kc.Equal(key.Kc):
					t.Errorf("device %d: another Kc was released", n)
				case err != nil && time.Since(began) < time.Second: // else it may have expired
					t.Errorf("device %d: %v", n, err)
				case err == nil:
					released[n]++
				}
			}
		})
	}
	rotations := 2
	if testing.Short() {
		rotations = 1
	}
	for range rotations {
		old := m.rotate(t)
		// The key that seals Kcs is in use for as long as they live.
		if err := m.admin.RetireKeysetKey(t.Context(), old); !errors.Is(err, adminapi.CodeInUse) {
			t.Errorf("retiring before the rewrap: %v", err)
		}
		if r := m.rewrap(t); r.Failed != 0 || r.Seen != devices {
			t.Errorf("%+v", r)
		}
		waitFor(t, "the last Kc's end", func() bool {
			err := m.admin.RetireKeysetKey(t.Context(), old)
			if err != nil && !errors.Is(err, adminapi.CodeInUse) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	stop()
	load.Wait()
	for n, count := range released {
		if count == 0 {
			t.Errorf("device %d got no key", n)
		}
	}
	keyset, err := m.admin.Keyset(t.Context())
	if err != nil || len(keyset.Keys) != 1 || keyset.Keys[0].MasterKeys != devices || keyset.Unknown != 0 {
		t.Errorf("%+v, %v", keyset, err)
	}
}

// TestRewrapResumes: a rewrap that a restart has interrupted goes on by itself,
// and takes a new rate.
func TestRewrapResumes(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	const clients = 60
	for n := range clients {
		m.add(t, fmt.Sprintf("m%d@maf.example.com", n), nil)
	}
	m.rotate(t)
	slow := adminapi.NewRewrap{Rate: 1}
	if r, err := m.admin.StartRewrap(t.Context(), slow); err != nil || !r.Running {
		t.Fatalf("%+v, %v", r, err)
	}
	waitFor(t, "the first client", func() bool { return m.keyset.Rewrap().Rewrapped > 0 })
	m.stop(t)
	m = startMAF(t, config)
	waitFor(t, "the rewrap going on", func() bool { r := m.keyset.Rewrap(); return r.Running && r.Rate == 1 })
	if r := m.rewrap(t); r.Seen != clients || r.Rewrapped == 0 || r.Rewrapped >= clients {
		t.Errorf("the rest: %+v", r)
	}
	keyset, err := m.admin.Keyset(t.Context())
	if err != nil || keyset.Keys[0].MasterKeys != 0 || keyset.Keys[1].MasterKeys != clients {
		t.Errorf("%+v, %v", keyset, err)
	}
	m.stop(t)
	m = startMAF(t, config)
	if r := m.keyset.Rewrap(); r.Running {
		t.Errorf("it begins again after its end: %+v", r)
	}
}

// TestKeysetRefusals: what must not be done with the keyset is refused, with words.
func TestKeysetRefusals(t *testing.T) {
	m := startMAF(t, testConfig(shortDir(t)))
	m.add(t, meterID, nil)
	old := m.rotate(t)
	want := func(what string, err error, code adminapi.Code, text string) {
		t.Helper()
		if !errors.Is(err, code) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ctx := t.Context()
	want("too early", m.admin.RetireKeysetKey(ctx, old), adminapi.CodeInUse, "another node")
	m.keyset.settle = 0
	want("before a rewrap", m.admin.RetireKeysetKey(ctx, old), adminapi.CodeInUse, "1 master keys")
	want("the primary", m.admin.RetireKeysetKey(ctx, uint32(m.db.keyset.Primary())), adminapi.CodeInUse, "the primary")
	want("none", m.admin.RetireKeysetKey(ctx, old+1), adminapi.CodeNotFound, "no such key")
	want("promoting none", m.admin.PromoteKeysetKey(ctx, old+1), adminapi.CodeNotFound, "no such key")
	if err := os.Remove(m.state.file(keysetName)); err != nil {
		t.Fatal(err)
	}
	_, err := m.admin.AddKeysetKey(ctx)
	want("without its file", err, adminapi.CodeInternal, "was not changed")
}

// writeKEK makes a key-encryption key.
func writeKEK(t testing.TB) string {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	path := filepath.Join(t.TempDir(), "kek")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestStolenState: whoever has the whole state folder, as it is while mafd runs and
// as a backup would have it, and not the key-encryption key, has no key of a
// device, and no mafd starts on it.
func TestStolenState(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config) // at first in the clear, as most will begin
	km := m.add(t, meterID, nil)
	m.stop(t)
	config.Keyset.KEK = KEKSource{"file", writeKEK(t)}
	m = startMAF(t, config)
	if !strings.Contains(m.log.String(), "maf keyset protect") {
		t.Error("nobody is told that the keyset is in the clear")
	}
	m.keyset.settle = 0
	// What the disk may still hold of the old file must not open the new store.
	leaked, err := os.ReadFile(m.state.file(keysetName))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.admin.ProtectKeyset(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := m.rotate(t)
	m.rewrap(t)
	if err := m.admin.RetireKeysetKey(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	var kcs []secret.Key
	for range 3 {
		key, err := m.device(t, "tcp", meterID, km).Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kcs = append(kcs, key.Kc)
	}
	m.rotate(t)
	m.rewrap(t)
	stolen := filepath.Join(shortDir(t), "state")
	copyState(t, config.State, stolen)
	all := ""
	for _, text := range readState(t, stolen) {
		all += text
	}
	for i, key := range append(kcs, km) {
		if strings.Contains(all, string(key.Bytes()[:16])) || strings.Contains(all, fmt.Sprintf("%x", key.Bytes())) {
			t.Errorf("key %d lies in the state folder", i)
		}
	}
	if !strings.Contains(all, meterID) || strings.Contains(all, "keyData") {
		t.Error("this looks at the wrong files, or the keyset is in the clear")
	}

	thief := config
	thief.State = stolen
	for what, test := range map[string]struct {
		kek    KEKSource
		keyset []byte // nil: as stolen
		want   string
	}{
		"no key":                     {KEKSource{}, nil, "no key-encryption key is configured"},
		"another key":                {KEKSource{"file", writeKEK(t)}, nil, "does not open"},
		"the keyset of before":       {KEKSource{}, leaked, "tampered with, or sealed with another keyset"},
		"no credential from systemd": {KEKSource{"credential", "kek"}, nil, "keyset.kek: there is no credential"},
	} {
		if test.keyset != nil {
			if err := os.WriteFile(filepath.Join(stolen, keysetName), test.keyset, 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			copyState(t, config.State, stolen)
		}
		thief.Keyset.KEK = test.kek
		d, err := Start(t.Context(), thief, slog.New(slog.DiscardHandler))
		if err == nil {
			t.Errorf("%s: the thief's mafd starts", what)
			d.Stop(t.Context())
		} else if !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// With the key it is a backup.
	copyState(t, config.State, stolen)
	restored := startMAF(t, thief.withKEK(config.Keyset.KEK))
	if _, err := restored.device(t, "tcp", meterID, km).Handshake(t.Context()); err != nil {
		t.Errorf("the restored MAF: %v", err)
	}
}

func (c Config) withKEK(s KEKSource) Config {
	c.Keyset.KEK = s
	return c
}

// readState returns the text of each file of a state folder.
func readState(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		all[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// copyState copies the files of a state folder that is at rest.
func copyState(t testing.TB, from, to string) {
	t.Helper()
	for name, text := range readState(t, from) {
		path := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKeysetFileChanges: two that share the keyset's file (here one mafd and its file's
// other reader) need no telling of each other's changes.
func TestKeysetFileChanges(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	km := m.add(t, meterID, nil)
	file := m.state.file(keysetName)
	other, err := (&config.Keyset).file(file)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := other.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	added, err := elsewhere.Add(t.Context())
	if err == nil {
		err = elsewhere.Promote(t.Context(), added.ID)
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the other's key", func() bool { return m.db.keyset.Primary() == added.ID })
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.ToUpper(good), 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the complaint", func() bool { return strings.Contains(m.log.String(), "the keyset stays as it was") })
	if _, err := m.device(t, "tcp", meterID, km).Handshake(t.Context()); err != nil {
		t.Errorf("with a damaged file: %v", err)
	}
}

// TestClusterKeysetRotation: two mafd that share a store and the keyset's file meet no
// box that they can't open, at whichever the steps are taken and however soon the
// next device comes.
func TestClusterKeysetRotation(t *testing.T) {
	c := startCluster(t, 2)
	certificate := c.nodes[0].certificate(t, cityCSE)
	km := c.nodes[0].add(t, meterID, func(c *adminapi.NewClient) { c.Lifetime = adminapi.Duration(8 * time.Second) })
	// A device gets its key at one node, and its Entity B asks the other.
	visit := func(when string) {
		t.Helper()
		for i, node := range c.nodes {
			key, err := node.device(t, "tcp", meterID, km).Handshake(t.Context())
			if err != nil {
				t.Fatalf("%s, node %d: %v", when, i, err)
			}
			if got, err := c.nodes[1-i].keys(t, certificate).Get(t.Context(), key.KcID); err != nil || !got.Kc.Equal(key.Kc) {
				t.Errorf("%s, node %d: %v", when, 1-i, err)
			}
		}
	}
	for _, node := range c.nodes {
		node.keyset.settle = 0
	}
	for i, node := range c.nodes {
		if testing.Short() && i > 0 {
			break
		}
		other := c.nodes[1-i]
		old := node.rotate(t)
		visit("promoted")
		if r := other.rewrap(t); r.Failed != 0 {
			t.Errorf("%+v", r)
		}
		visit("rewrapped")
		waitFor(t, "the last Kc's end", func() bool {
			err := node.admin.RetireKeysetKey(t.Context(), old)
			if err != nil && !errors.Is(err, adminapi.CodeInUse) {
				t.Fatal(err)
			}
			return err == nil
		})
		visit("retired")
		if keyset, err := other.admin.Keyset(t.Context()); err != nil || len(keyset.Keys) != 1 || keyset.Unknown != 0 {
			t.Errorf("the other node: %+v, %v", keyset, err)
		}
	}
}
