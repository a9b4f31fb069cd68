package seal

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// testKEK is a key-encryption key that can be out of order.
type testKEK struct {
	*subtle.XChaCha20Poly1305
	name          string
	broken, blind bool // blind: it encrypts and does not decrypt
}

func newKEK(t testing.TB, name string) *testKEK {
	t.Helper()
	x, err := subtle.NewXChaCha20Poly1305(bytes.Repeat([]byte(name[:1]), 32))
	if err != nil {
		t.Fatal(err)
	}
	return &testKEK{XChaCha20Poly1305: x, name: name}
}

var errBroken = errors.New("out of order")

func (k *testKEK) EncryptWithContext(_ context.Context, plaintext, ad []byte) ([]byte, error) {
	if k.broken {
		return nil, errBroken
	}
	return k.Encrypt(plaintext, ad)
}

func (k *testKEK) DecryptWithContext(_ context.Context, box, ad []byte) ([]byte, error) {
	if k.broken || k.blind {
		return nil, errBroken
	}
	return k.Decrypt(box, ad)
}

func (k *testKEK) String() string { return k.name }

func load(t testing.TB, f File) *Keyset {
	t.Helper()
	k, err := f.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustSeal(t testing.TB, k *Keyset) []byte {
	t.Helper()
	box, err := k.Seal([]byte("secret"), []byte("row"))
	if err != nil {
		t.Fatal(err)
	}
	return box
}

func opens(k *Keyset, box []byte) bool {
	got, err := k.Open(box, []byte("row"))
	return err == nil && string(got) == "secret"
}

// A rotation from end to end, after each step of which a second process, one
// that was started before it and never told, and one that starts then, open all
// there is.
func TestRotation(t *testing.T) {
	for name, kek := range map[string]KEK{"in the clear": nil, "encrypted": newKEK(t, "kek")} {
		t.Run(name, func(t *testing.T) {
			f := File{Path: filepath.Join(t.TempDir(), "keyset"), KEK: kek}
			k, err := f.Create(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			other := load(t, f)
			old := k.Primary()
			boxes := [][]byte{mustSeal(t, k)}
			check := func(step string, keys int, primary KeyID) {
				t.Helper()
				// The other one meets a box of a key that it does not know.
				for i, box := range boxes {
					for who, k := range map[string]*Keyset{"this": k, "another": other, "a new": load(t, f)} {
						if !opens(k, box) {
							t.Errorf("%s: box %d does not open in %s process", step, i, who)
						}
					}
				}
				if len(k.Keys()) != keys || k.Primary() != primary {
					t.Errorf("%s: keys %+v", step, k.Keys())
				}
				if again := load(t, f).Keys(); len(again) != keys {
					t.Errorf("%s: read again: %+v", step, again)
				} else {
					for i, key := range k.Keys() {
						if again[i] != key || key.Created.IsZero() {
							t.Errorf("%s: %+v, read again %+v", step, key, again[i])
						}
					}
				}
			}
			check("made", 1, old)
			added, err := k.Add(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			boxes = append(boxes, mustSeal(t, k))
			check("added", 2, old)
			if !k.Current(boxes[1]) {
				t.Error("an added key seals before it is promoted")
			}
			if err := k.Promote(t.Context(), added.ID); err != nil {
				t.Fatal(err)
			}
			boxes = append(boxes, mustSeal(t, k))
			check("promoted", 2, added.ID)
			if k.Current(boxes[1]) || !k.Current(boxes[2]) || !k.Current(mustSeal(t, other)) {
				t.Error("something else than the promoted key seals")
			}
			if keys := k.Keys(); keys[0].Demoted.IsZero() || !keys[1].Demoted.IsZero() {
				t.Errorf("times of demotion: %+v", keys)
			}
			if err := k.Retire(t.Context(), added.ID); !errors.Is(err, ErrPrimary) {
				t.Errorf("retiring the primary: %v", err)
			}
			if err := k.Retire(t.Context(), old); err != nil {
				t.Fatal(err)
			}
			if opens(k, boxes[0]) || opens(load(t, f), boxes[0]) {
				t.Error("a retired key opens")
			}
			boxes = boxes[2:]
			check("retired", 1, added.ID)
			for _, err := range []error{k.Promote(t.Context(), old), k.Retire(t.Context(), old)} {
				if !errors.Is(err, ErrNoKey) {
					t.Errorf("of a key that is gone: %v", err)
				}
			}
			check("refused", 1, added.ID)
		})
	}
}

// Processes that change one file at the same time lose nothing of each other's.
func TestTwoProcesses(t *testing.T) {
	k, path := create(t)
	var wg sync.WaitGroup
	const each = 10
	for range 4 {
		other := load(t, File{Path: path})
		wg.Go(func() {
			for range each {
				if _, err := other.Add(context.Background()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if changed, err := k.Refresh(t.Context()); err != nil || !changed || len(k.Keys()) != 1+4*each {
		t.Errorf("changed %v, %d keys, %v", changed, len(k.Keys()), err)
	}
	if changed, err := k.Refresh(t.Context()); err != nil || changed {
		t.Errorf("a second time: %v, %v", changed, err)
	}
}

// Without its key, the file is useless; and no change happens that could not be
// read again.
func TestKEK(t *testing.T) {
	kek := newKEK(t, "kek")
	f := File{Path: filepath.Join(t.TempDir(), "keyset"), KEK: kek}
	k, err := f.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text := func() string {
		data, err := os.ReadFile(f.Path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	if strings.Contains(text(), `"keyData"`) || k.Protection() != "kek" {
		t.Errorf("the file: %s", text())
	}
	for what, wrong := range map[string]File{
		"no key":      {Path: f.Path},
		"another key": {Path: f.Path, KEK: newKEK(t, "wrong"), Previous: newKEK(t, "also wrong")},
	} {
		if _, err := wrong.Load(t.Context()); err == nil || !strings.Contains(err.Error(), `"kek"`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	before := text()
	for _, out := range []*bool{&kek.broken, &kek.blind} {
		*out = true
		if _, err := k.Add(t.Context()); err == nil || !strings.Contains(err.Error(), errBroken.Error()) { // Tink does not wrap
			t.Errorf("Add: %v", err)
		}
		*out = false
	}
	if text() != before || len(k.Keys()) != 1 {
		t.Error("a failed change changed something")
	}

	// The dates are part of what is encrypted.
	tampered := strings.Replace(before, `"created":"20`, `"created":"19`, 1)
	if err := os.WriteFile(f.Path, []byte(tampered), 0o600); err != nil || tampered == before {
		t.Fatal(err)
	}
	if _, err := f.Load(t.Context()); err == nil {
		t.Error("changed dates were not noticed")
	}
}

// Protect takes a keyset from the clear into a key's care, from that into
// another's, and back.
func TestProtect(t *testing.T) {
	k, path := create(t)
	box := mustSeal(t, k)
	a, b := newKEK(t, "a"), newKEK(t, "b")
	watching := load(t, File{Path: path, KEK: a})
	for _, step := range []struct {
		f    File
		want string
	}{
		{File{Path: path, KEK: a}, "a"},
		{File{Path: path, KEK: b, Previous: a}, "b"},
		{File{Path: path, Previous: b}, ""},
	} {
		k := load(t, step.f)
		if err := k.Protect(t.Context()); err != nil {
			t.Fatal(err)
		}
		step.f.Previous = nil
		if k := load(t, step.f); k.Protection() != step.want || !opens(k, box) {
			t.Errorf("protected by %q instead of %q", k.Protection(), step.want)
		}
		if step.want == "a" {
			if _, err := watching.Refresh(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	// One who knew it encrypted does not take it in the clear from just anybody.
	if _, err := watching.Refresh(t.Context()); !errors.Is(err, ErrDowngrade) || !opens(watching, box) {
		t.Errorf("after the way back: %v", err)
	}
	if _, err := watching.Add(t.Context()); !errors.Is(err, ErrDowngrade) {
		t.Errorf("changing it: %v", err)
	}
}

// A keyset of Tink's own tools is good as it is.
func TestBareKeyset(t *testing.T) {
	handle, err := keyset.NewHandle(aead.XChaCha20Poly1305KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		t.Fatal(err)
	}
	f := File{Path: filepath.Join(t.TempDir(), "keyset")}
	if err := os.WriteFile(f.Path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	k := load(t, f)
	box := mustSeal(t, k)
	if _, err := k.Add(t.Context()); err != nil {
		t.Fatal(err)
	}
	if k := load(t, f); !opens(k, box) || len(k.Keys()) != 2 || !k.Keys()[0].Created.IsZero() {
		t.Errorf("%+v", k.Keys())
	}
}

// What can't be read leaves the keyset as it was, also when a box comes whose key
// would be in there.
func TestUnreadableFile(t *testing.T) {
	k, path := create(t)
	stranger, _ := create(t)
	if err := os.WriteFile(path, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Refresh(t.Context()); err == nil {
		t.Error("half a file was read")
	}
	for range 3 {
		if opens(k, mustSeal(t, stranger)) {
			t.Error("a stranger's box opens")
		}
	}
	if _, err := k.Add(t.Context()); err == nil {
		t.Error("a damaged file was overwritten")
	}
	if box := mustSeal(t, k); !opens(k, box) {
		t.Error("the keyset was lost")
	}
}
