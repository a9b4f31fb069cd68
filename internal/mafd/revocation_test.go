package mafd

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// TestRevocationReachesAssociations: whatever an administrator does that ends a
// device's keys also ends its associations at Entity B, and those of no other; also
// after a restart of mafd.
func TestRevocationReachesAssociations(t *testing.T) {
	config := testConfig(shortDir(t))
	m := startMAF(t, config)
	b := &saef.EntityB{MAFs: m.keyAPIs(), Certificate: m.certificate(t, cityCSE), RootCAs: m.roots(t)}
	defer b.Close()
	l, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	followed := func() {
		t.Helper()
		for deadline := time.Now().Add(patience); b.Status()[0].Blind != nil || b.Status()[1].Blind != nil; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("revocations are not followed: %+v", b.Status())
			}
		}
	}
	followed()
	open := func(id string) (device net.Conn, entityB *saef.Conn) {
		t.Helper()
		device, err := m.device(t, "tcp", id, m.add(t, id, nil)).Dial(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { device.Close() })
		if entityB, err = l.AcceptAssociation(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { entityB.Close() })
		device.SetDeadline(time.Now().Add(patience))
		entityB.SetDeadline(time.Now().Add(patience))
		return device, entityB
	}
	other, otherB := open("other@maf.example.com")

	off, rival, ae := true, cseID(t, rivalCSE), aeID(t, meterAEID)
	change := func(c adminapi.ClientChange) func(onem2m.KmID, onem2m.KcID) error {
		return func(id onem2m.KmID, _ onem2m.KcID) error {
			_, err := m.admin.Change(t.Context(), id, c)
			return err
		}
	}
	check := func(name string, end func(onem2m.KmID, onem2m.KcID) error) {
		device, entityB := open(name + "@maf.example.com")
		a := entityB.Association()
		if err := end(a.KmID, a.KcID); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		before := time.Now()
		if _, err := device.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || !entityB.Revoked() {
			t.Errorf("%s: the device gets %v", name, err)
		}
		t.Logf("%s: the association ended %v after the administrator had the answer", name, time.Since(before).Round(10*time.Microsecond))
	}
	check("disabled", change(adminapi.ClientChange{Disabled: &off}))
	check("moved", change(adminapi.ClientChange{EntityB: &rival}))
	check("renamed", change(adminapi.ClientChange{AEID: &ae}))
	check("removed", func(id onem2m.KmID, _ onem2m.KcID) error { return m.admin.Remove(t.Context(), id) })
	check("revoked", func(_ onem2m.KmID, id onem2m.KcID) error { return m.admin.RevokeKey(t.Context(), id) })

	config.KeyAPI.Listen = m.Runtime.KeyAPI
	stopping := time.Now()
	m.stop(t) // although Entity B waits for an answer
	t.Logf("stopped after %v", time.Since(stopping))
	m = startMAF(t, config)
	followed()
	check("restarted", func(id onem2m.KmID, _ onem2m.KcID) error { return m.admin.Remove(t.Context(), id) })

	if _, err := other.Write([]byte("hello")); err != nil {
		t.Error(err)
	}
	if n, err := otherB.Read(make([]byte, 10)); n != 5 || otherB.Revoked() {
		t.Errorf("another device's association: %d, %v", n, err)
	}
}
