package kek

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/seal"
)

func write(t testing.TB, name string, data []byte, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // whatever the umask
		t.Fatal(err)
	}
	return path
}

var key = bytes.Repeat([]byte("KEY!"), 8)

// roundTrip demands that what one key encrypts the other decrypts, and for
// the same purpose only.
func roundTrip(t *testing.T, a, b seal.KEK) {
	t.Helper()
	box, err := a.EncryptWithContext(t.Context(), []byte("keyset"), []byte("dates"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.DecryptWithContext(t.Context(), box, []byte("dates")); err != nil || string(got) != "keyset" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.DecryptWithContext(t.Context(), box, []byte("other dates")); err == nil {
		t.Error("it decrypts with other associated data")
	}
	box[len(box)-1] ^= 1
	if _, err := b.DecryptWithContext(t.Context(), box, []byte("dates")); err == nil {
		t.Error("it decrypts what was altered")
	}
}

func TestFile(t *testing.T) {
	path := write(t, "kek", key, 0o400)
	file, err := File(path)
	if err != nil {
		t.Fatal(err)
	}
	credential, err := Credential(filepath.Dir(path), "kek")
	if err != nil {
		t.Fatal(err)
	}
	roundTrip(t, file, credential) // the key counts, not the way that it came
	if file.String() != "file" || credential.String() != "credential kek" {
		t.Errorf("names: %s, %s", file, credential)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
		if text := fmt.Sprintf(verb, file); text != "file" {
			t.Errorf("%s prints %q", verb, text)
		}
	}
}

func TestFileRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		data           []byte
		mode           fs.FileMode
		file, asSecret error // nil: it is good
	}{
		"good":                {key, 0o600, nil, nil},
		"an access list's":    {key, 0o440, ErrPermissions, nil},
		"for all":             {key, 0o444, ErrPermissions, ErrPermissions},
		"written by a group":  {key, 0o660, ErrPermissions, ErrPermissions},
		"too short":           {key[1:], 0o600, errAny, errAny},
		"with a line's end":   {append(bytes.Clone(key), '\n'), 0o600, errAny, errAny},
		"hexadecimal, a file": {fmt.Appendf(nil, "%x", key), 0o600, errAny, errAny},
		"empty":               {nil, 0o600, errAny, errAny},
	} {
		path := write(t, "kek", test.data, test.mode)
		_, err := File(path)
		check(t, name, err, test.file)
		_, err = Credential(filepath.Dir(path), "kek")
		check(t, name+", as a credential", err, test.asSecret)
	}
	if _, err := File(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := File(t.TempDir()); err == nil {
		t.Error("a folder is a key")
	}
	for _, name := range []string{"", ".", "..", "../kek", "a/b"} {
		if _, err := Credential(t.TempDir(), name); err == nil {
			t.Errorf("%q is a credential", name)
		}
	}
	if _, err := Credential("", "kek"); err == nil || !strings.Contains(err.Error(), "CREDENTIALS_DIRECTORY") {
		t.Errorf("without systemd: %v", err)
	}
}

var errAny = errors.New("any")

func check(t *testing.T, name string, err, want error) {
	t.Helper()
	if (err == nil) != (want == nil) || want != nil && want != errAny && !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", name, err, want)
	}
	if err != nil && strings.Contains(err.Error(), string(key[:8])) {
		t.Errorf("%s: the error shows the key: %v", name, err)
	}
}
