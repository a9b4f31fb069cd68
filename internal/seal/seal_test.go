package seal

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"
)

func create(t testing.TB) (*Keyset, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keyset.json")
	k, err := File{Path: path}.Create(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return k, path
}

func TestSealOpen(t *testing.T) {
	k, path := create(t)
	loaded, err := File{Path: path}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	secret, ad := []byte("a key of thirty-two octets, yes."), []byte("row 1")
	box, err := k.Seal(secret, ad)
	if err != nil {
		t.Fatal(err)
	}
	if len(box) != len(secret)+45 {
		t.Errorf("a box is %d octets longer than its content", len(box)-len(secret))
	}
	if bytes.Contains(box, secret[:8]) {
		t.Error("the box shows its content")
	}
	for name, k := range map[string]*Keyset{"the same": k, "the loaded": loaded} {
		got, err := k.Open(box, ad)
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s keyset: %v", name, err)
		}
	}
	again, err := k.Seal(secret, ad)
	if err != nil || bytes.Equal(box, again) {
		t.Errorf("two boxes of one secret are equal (%v)", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	k, _ := create(t)
	other, _ := create(t)
	secret, ad := []byte("secret"), []byte("row 1")
	box, err := k.Seal(secret, ad)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, k *Keyset, box, ad []byte) {
		t.Helper()
		if got, err := k.Open(box, ad); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("%s: got %q, %v", what, got, err)
		}
	}
	refuse("another row's box", k, box, []byte("row 2"))
	refuse("no associated data", k, box, nil)
	refuse("another keyset's box", other, box, ad)
	refuse("an empty box", k, nil, ad)
	for i := range box {
		refuse("a shortened box", k, box[:i], ad)
		changed := bytes.Clone(box)
		changed[i] ^= 1
		refuse("a changed box", k, changed, ad)
	}
}

func TestCreateKeepsTheOldKeyset(t *testing.T) {
	_, path := create(t)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (File{Path: path}).Create(t.Context()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the keyset was changed (%v)", err)
	}
}

func TestFilePermissions(t *testing.T) {
	_, path := create(t)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("Create leaves mode %v (%v)", info.Mode(), err)
	}
	for mode, ok := range map[fs.FileMode]bool{
		0o600: true, 0o400: true,
		0o640: false, 0o604: false, 0o660: false, 0o644: false, 0o610: false, 0o602: false,
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := File{Path: path}.Load(t.Context())
		if ok && err != nil || !ok && !errors.Is(err, ErrPermissions) {
			t.Errorf("mode %#o: %v", mode, err)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := (File{Path: filepath.Join(dir, "none")}).Load(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := (File{Path: dir}).Load(t.Context()); err == nil {
		t.Error("a folder was loaded")
	}
	for name, content := range map[string]string{
		"empty":     "",
		"no JSON":   "-----BEGIN hunter2-----",
		"no keyset": `{"hunter2":"hunter2"}`,
		"no keys":   `{"primaryKeyId":1,"key":[]}`,
		"MAC keys":  macKeyset(t),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := File{Path: path}.Load(t.Context())
		if err == nil {
			t.Errorf("%s was loaded", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
}

func macKeyset(t *testing.T) string {
	handle, err := keyset.NewHandle(mac.HMACSHA256Tag256KeyTemplate())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&out)); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func BenchmarkSeal(b *testing.B) {
	k, _ := create(b)
	secret, ad := make([]byte, 32), make([]byte, 120)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Seal(secret, ad); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpen(b *testing.B) {
	k, _ := create(b)
	ad := make([]byte, 120)
	box, err := k.Seal(make([]byte, 32), ad)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(box, ad); err != nil {
			b.Fatal(err)
		}
	}
}
