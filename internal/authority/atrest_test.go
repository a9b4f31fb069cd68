package authority_test

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
	"github.com/onem2m-maf/maf/onem2m"
)

// forms returns the ways in which a key could stand in a file.
func forms(key secret.Key) [][]byte {
	b := key.Bytes()
	return [][]byte{
		b,
		[]byte(hex.EncodeToString(b)),
		[]byte(strings.ToUpper(hex.EncodeToString(b))),
		[]byte(base64.RawStdEncoding.EncodeToString(b)),
		[]byte(base64.RawURLEncoding.EncodeToString(b)),
		b[:len(b)/2], // a half is as bad
		b[len(b)/2:],
	}
}

// find reports in which files of the folder any of the forms stands.
func find(t *testing.T, dir string, forms [][]byte) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range forms {
			if bytes.Contains(data, f) {
				found = append(found, e.Name())
				break
			}
		}
	}
	return found
}

// Nobody who gets the store's files, at any time of its life, finds a key there.
func TestNoKeyAtRest(t *testing.T) {
	m := newMAF(t)
	var keys []secret.Key
	look := func(when string) {
		t.Helper()
		for i, key := range keys {
			if found := find(t, m.dir, forms(key)); len(found) > 0 {
				t.Errorf("%s: key %d stands in %v", when, i, found)
			}
		}
		// What is not secret must be found: else this looks in the wrong place.
		if found := find(t, m.dir, [][]byte{[]byte("meter7@maf.example.com")}); len(found) == 0 {
			t.Errorf("%s: not even the KmId was found", when)
		}
	}
	given := secret.New([]byte("a master key chosen by a person."))
	if _, _, err := m.AddClient(ctx, authority.Client{KmID: meter, IdB: inCSE, Lifetime: time.Hour}, given); err != nil {
		t.Fatal(err)
	}
	keys = append(keys, given, m.add(authority.Client{KmID: kmID("drawn@maf.example.com"), Lifetime: time.Minute}))
	for range 20 {
		keys = append(keys, m.mustHandshake(meter).kc(), m.mustHandshake(kmID("drawn@maf.example.com")).kc())
	}
	look("running")
	m.update(meter, func(c *authority.Client) { c.Lifetime = time.Minute })
	m.sleep(2 * time.Minute)
	if n, err := m.Purge(ctx); err != nil || n != 20 {
		t.Errorf("purged %d (%v)", n, err)
	}
	m.rotate()
	m.rewrap()
	keys = append(keys, m.mustHandshake(meter).kc())
	look("rewrapped") // the log still has the rows as they were before
	m.remove(kmID("drawn@maf.example.com"))
	look("after an update, a purge and a removal")
	m.reopen(nil)
	look("reopened")

	planted := filepath.Join(m.dir, "planted")
	for i, form := range forms(given) {
		if err := os.WriteFile(planted, append([]byte("some text before"), form...), 0o600); err != nil {
			t.Fatal(err)
		}
		if found := find(t, m.dir, forms(given)); len(found) != 1 || found[0] != "planted" {
			t.Errorf("form %d is not found: the test cannot fail", i)
		}
	}
}

// Two boxes that change places in the file's octets don't open, nor does one that
// comes back after its row was sealed anew with another key and for another
// configuration.
func TestSwappedOctets(t *testing.T) {
	m := newMAF(t)
	other := kmID("other7@maf.example.com")
	m.add(authority.Client{KmID: meter})
	m.add(authority.Client{KmID: other})
	box := func(id onem2m.KmID) []byte {
		row, err := m.db.Clients().Get(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		return row.SealedKm
	}
	// edit changes the file while the store is closed, when all is in there.
	edit := func(change func(file []byte) []byte) {
		t.Helper()
		if err := m.db.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(m.dir, "maf.db")
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		after := change(bytes.Clone(before))
		if len(after) != len(before) || bytes.Equal(before, after) {
			t.Fatal("the box was not found in the file")
		}
		if err := os.WriteFile(path, after, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	works := func(when string, id onem2m.KmID, want bool) {
		t.Helper()
		if _, err := m.handshake(id, newSession()); (err == nil) != want {
			t.Errorf("%s: the handshake of %v: %v", when, id, err)
		}
	}
	for range 2 { // as the rows were written first, and rewrapped
		a, b := box(meter), box(other)
		swap := func(file []byte) []byte {
			file = bytes.ReplaceAll(file, a, bytes.Repeat([]byte{'x'}, len(a)))
			file = bytes.ReplaceAll(file, b, a)
			return bytes.ReplaceAll(file, bytes.Repeat([]byte{'x'}, len(a)), b)
		}
		edit(swap)
		db, err := sqlstore.Open(ctx, filepath.Join(m.dir, "maf.db"), sqlstore.Options{CommitInterval: -1})
		if err != nil {
			t.Fatal(err)
		}
		m.db = db
		// Of all rows that there are, none opens.
		if _, err := authority.New(ctx, m.config()); !errors.Is(err, seal.ErrOpen) {
			t.Errorf("starting: %v", err)
		}
		edit(swap) // back again
		m.open(nil)
		works("swapped back", meter, true)
		works("swapped back", other, true)
		m.rotate()
		m.rewrap()
	}
	old := box(meter)
	m.update(meter, func(c *authority.Client) { c.Lifetime = time.Minute })
	m.rotate()
	m.rewrap()
	now := box(meter)
	edit(func(file []byte) []byte { return bytes.ReplaceAll(file, now, old) })
	m.open(nil)
	works("an old box", meter, false)
	works("an old box elsewhere", other, true)
}

// Somebody who can write to the database, but has no keyset, gets no key by it.
func TestTamperedRows(t *testing.T) {
	thief := kmID("thief@maf.example.com") // a client like others, whose Km the attacker knows
	type outcome func(m *maf, meters, thiefs *session) error
	handshake := func(id onem2m.KmID) outcome {
		return func(m *maf, _, _ *session) error {
			_, err := m.handshake(id, newSession())
			return err
		}
	}
	release := func(idB onem2m.CSEID) outcome {
		return func(m *maf, s, _ *session) error {
			_, err := m.Release(ctx, idB, s.kcID())
			return err
		}
	}
	releaseThiefs := func(m *maf, _, s *session) error {
		_, err := m.Release(ctx, inCSE, s.kcID())
		return err
	}
	for name, test := range map[string]struct {
		attack string // SQL
		before func(m *maf, meters *session)
		try    outcome
	}{
		"hand future keys to another B": {
			`UPDATE client SET id_b = '//sp.example.com/other-cse' WHERE km_id LIKE 'meter7%'`, nil, handshake(meter)},
		"hand an issued key to another B": {
			`UPDATE client SET id_b = '//sp.example.com/other-cse' WHERE km_id LIKE '%.com'; UPDATE kc SET id_b = '//sp.example.com/other-cse'`, nil, release(other)},
		"hand an issued key to another B, client first": {
			`UPDATE kc SET id_b = '//sp.example.com/other-cse'`,
			func(m *maf, _ *session) { m.update(meter, func(c *authority.Client) { c.IdB = other }) }, release(other)},
		"be another AE": {
			`UPDATE client SET ae_id = '//sp.example.com/in-cse/Cadmin' WHERE km_id LIKE 'meter7%'`, nil, release(inCSE)},
		"be a CSE": {
			`UPDATE client SET ae_id = '', cse_id = '//sp.example.com/in-cse' WHERE km_id LIKE 'meter7%'`, nil, release(inCSE)},
		"enable a disabled client": {
			`UPDATE client SET disabled = 0`,
			func(m *maf, _ *session) { m.update(meter, func(c *authority.Client) { c.Disabled = true }) }, handshake(meter)},
		"live longer": {
			`UPDATE kc SET expires = expires + 1`, nil, release(inCSE)},
		"give keys a longer life": {
			`UPDATE client SET lifetime = lifetime + 1 WHERE km_id LIKE 'meter7%'`, nil, handshake(meter)},
		"swap master keys": {
			`UPDATE client SET sealed_km = (SELECT sealed_km FROM client WHERE km_id LIKE 'thief%') WHERE km_id LIKE 'meter7%'`, nil, handshake(meter)},
		"swap whole clients": {
			`DELETE FROM client WHERE km_id LIKE 'meter7%'; UPDATE client SET km_id = 'meter7@maf.example.com' WHERE km_id LIKE 'thief%'`, nil, handshake(meter)},
		"swap Kcs": {
			`UPDATE kc SET sealed_kc = (SELECT sealed_kc FROM kc WHERE km_id LIKE 'thief%')`, nil, release(inCSE)},
		"swap whole rows of keys": {
			`UPDATE kc SET relative = CASE seq WHEN 1 THEN (SELECT relative FROM kc WHERE seq = 2) ELSE (SELECT relative FROM kc WHERE seq = 1) END`, nil, release(inCSE)},
		"be another client by key": {
			`UPDATE kc SET km_id = (SELECT km_id FROM kc WHERE seq = 1), uid = (SELECT uid FROM kc WHERE seq = 1) WHERE seq = 2`, nil, releaseThiefs},
		"revive the keys of a removed client": {
			`UPDATE kc SET uid = (SELECT uid FROM client WHERE km_id LIKE 'meter7%') WHERE seq = 3`,
			func(m *maf, meters *session) {
				row, err := m.db.Keys().Get(ctx, meters.kcID())
				if err != nil {
					m.t.Fatal(err)
				}
				m.remove(meter)
				m.add(authority.Client{KmID: meter})
				if err := m.db.Keys().Commit(ctx, row); err != nil { // as if step 2 of the removal had failed
					m.t.Fatal(err)
				}
			}, release(inCSE)},
		"empty a box with a Kc": {
			`UPDATE kc SET sealed_kc = x''`, nil, release(inCSE)},
		"empty a box with a Km": {
			`UPDATE client SET sealed_km = x'' WHERE km_id LIKE 'meter7%'`, nil, handshake(meter)},
		"keep the MAF from starting": {
			`UPDATE client SET id_b = 'no CSE-ID' WHERE km_id LIKE 'a%' AND km_id > 'a1@'; UPDATE client SET id_b = '' WHERE km_id LIKE 'meter7%'`, nil, handshake(meter)},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMAF(t)
			for i := range 16 { // so that the MAF starts in nearly any case
				m.add(authority.Client{KmID: onem2m.KmID{Relative: fmt.Sprintf("a%d", i), FQDN: "maf.example.org"}})
			}
			m.add(authority.Client{KmID: meter, AEID: onem2m.AEID{Stem: "Cmeter7"}})
			m.add(authority.Client{KmID: thief, AEID: onem2m.AEID{Stem: "Cthief"}})
			meters, thiefs := m.mustHandshake(meter), m.mustHandshake(thief)
			if test.before != nil {
				test.before(m, meters)
			}
			m.db.Close()
			raw, err := sql.Open("sqlite", filepath.Join(m.dir, "maf.db"))
			if err != nil {
				t.Fatal(err)
			}
			result, err := raw.Exec(test.attack)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := result.RowsAffected(); err != nil || n == 0 {
				t.Fatalf("the attack met no row (%v)", err)
			}
			raw.Close()
			m.open(nil)
			if err := test.try(m, meters, thiefs); err == nil {
				t.Error("the attack succeeded")
			}
		})
	}
}
