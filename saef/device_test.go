package saef

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

func exampleKey() Key {
	return Key{kcID(7), NewSecret(bytes.Repeat([]byte("c"), 32)), time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)}
}

func TestFileCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kc.json")
	cache := FileCache(path)
	if k, err := cache.Load(meter); err != nil || !k.IsZero() {
		t.Errorf("no file: %v, %v", k, err)
	}
	for range 2 { // the second time over the first
		if err := cache.Store(meter, exampleKey()); err != nil {
			t.Fatal(err)
		}
	}
	k, err := cache.Load(meter)
	if err != nil || k.KcID != kcID(7) || !k.Kc.Equal(exampleKey().Kc) || !k.Established.Equal(exampleKey().Established) {
		t.Errorf("%+v, %v", k, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v: others may read the key", info.Mode(), err)
	}
	if k, err := cache.Load(onem2m.KmID{Relative: "meter8", FQDN: mafFQDN}); err != nil || !k.IsZero() {
		t.Errorf("another master key's: %v, %v", k, err)
	}
}

func TestBadFileCache(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kc.json")
	cache := FileCache(path)
	if err := cache.Store(meter, exampleKey()); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][2]string{
		"empty":               {string(good), ""},
		"not JSON":            {"{", ""},
		"cut short":           {"}\n", ""},
		"no KcID":             {`"KcID"`, `"x"`},
		"bad KcID":            {"@maf", "maf"},
		"no Kc":               {`"Kc"`, `"x"`},
		"short Kc":            {"Y2Nj", ""},
		"Kc no base64":        {"Y2Nj", "Y2N!"},
		"another key as KmID": {"meter7@", "meter 7@"},
	} {
		if err := os.WriteFile(path, []byte(strings.Replace(string(good), edit[0], edit[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		k, err := cache.Load(meter)
		if err == nil {
			t.Errorf("%s: loaded %+v", name, k)
		} else if strings.Contains(err.Error(), "Y2Nj") {
			t.Errorf("%s: the error quotes the key: %v", name, err)
		}
	}
	if _, err := FileCache(t.TempDir()).Load(meter); err == nil {
		t.Error("a folder was read")
	}
	if err := FileCache(filepath.Join(path, "x")).Store(meter, exampleKey()); err == nil {
		t.Error("stored below a file")
	}
}

// TestRestart: with a cache, a device that starts anew has its key.
func TestRestart(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	addr, associations := listen(t, b, "tcp")
	cache := FileCache(filepath.Join(t.TempDir(), "kc.json"))
	var first onem2m.KcID
	for i := range 2 {
		d := m.device()
		d.Cache = cache
		dial(t, d, "tcp", addr)
		if a := <-associations; i == 0 {
			first = a.KcID
		} else if a.KcID != first {
			t.Errorf("another key: %s", a.KcID)
		}
	}
	if n := m.handshakes.Load(); n != 1 {
		t.Errorf("%d MAF Handshakes", n)
	}
	// Handshake makes a new one all the same, and what comes later has it.
	d := m.device()
	d.Cache = cache
	key, err := d.Handshake(t.Context())
	if err != nil || key.KcID == first || m.handshakes.Load() != 2 {
		t.Errorf("%+v, %v", key, err)
	}
	d = m.device()
	d.Cache = cache
	dial(t, d, "tcp", addr)
	if a := <-associations; a.KcID != key.KcID {
		t.Errorf("%s instead of %s", a.KcID, key.KcID)
	}
}

// brokenCache fails.
type brokenCache struct{ loads int }

func (c *brokenCache) Load(onem2m.KmID) (Key, error) {
	c.loads++
	return Key{}, errors.New("cannot read flash")
}
func (*brokenCache) Store(onem2m.KmID, Key) error { return errors.New("cannot write flash") }

// TestBrokenCache: a device whose flash is worn out still connects.
func TestBrokenCache(t *testing.T) {
	m := newMAF(t)
	b, _ := m.entityB(t, inCSE)
	addr, _ := listen(t, b, "tcp")
	var log bytes.Buffer
	d := m.device()
	var cache brokenCache
	d.Cache, d.Log = &cache, slog.New(slog.NewTextHandler(&log, nil))
	dial(t, d, "tcp", addr)
	dial(t, d, "tcp", addr)
	if n := m.handshakes.Load(); n != 1 {
		t.Errorf("%d MAF Handshakes", n)
	}
	if cache.loads != 1 {
		t.Errorf("the cache was read %d times", cache.loads)
	}
	if !strings.Contains(log.String(), "cannot read flash") || !strings.Contains(log.String(), "cannot write flash") {
		t.Errorf("the log is silent:\n%s", log.String())
	}
}

// TestLifetime: a key that the device itself holds for too old is not tried.
func TestLifetime(t *testing.T) {
	m := newMAF(t)
	b, refusals := m.entityB(t, inCSE)
	addr, associations := listen(t, b, "tcp")
	for _, c := range []struct {
		age, lifetime time.Duration
		renewed       bool
	}{
		{59 * time.Minute, time.Hour, false},
		{61 * time.Minute, time.Hour, true},
		{61 * time.Minute, 0, false},
	} {
		d := m.device()
		d.Lifetime = c.lifetime
		key, err := d.Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		d.key.Established = d.key.Established.Add(-c.age)
		dial(t, d, "tcp", addr)
		if a := <-associations; (a.KcID != key.KcID) != c.renewed {
			t.Errorf("%+v: renewed is %v", c, a.KcID != key.KcID)
		}
	}
	if len(refusals) > 0 {
		t.Errorf("%+v", <-refusals)
	}
}

// TestDialContext: a context ends Dial wherever it is.
func TestDialContext(t *testing.T) {
	m := newMAF(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // connects, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(t.Context())
	d := m.device()
	done := make(chan error)
	go func() {
		_, err := d.Dial(ctx, "tcp", silent.Addr().String())
		done <- err
	}()
	c, err := silent.Accept() // so the MAF Handshake is over
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	d = m.device()
	if _, err := d.Dial(ctx, "tcp", silent.Addr().String()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestUnreachable(t *testing.T) {
	m := newMAF(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	d := m.device()
	_, err = d.Dial(t.Context(), "tcp", closed.Addr().String())
	var op *net.OpError
	if !errors.As(err, &op) || !strings.Contains(err.Error(), "association with "+closed.Addr().String()) {
		t.Error(err)
	}
	if n := m.handshakes.Load(); n != 1 {
		t.Errorf("%d MAF Handshakes", n)
	}
	d = m.device()
	d.MAF = closed.Addr().String()
	if _, err := d.Dial(t.Context(), "tcp", m.tcp); !errors.As(err, &op) || !strings.Contains(err.Error(), "MAF Handshake") {
		t.Error(err)
	}
}
