package saef

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/onem2m"
)

// FuzzFileCache: a file holds a whole key, which is stored and loaded as the
// same, or none; the error quotes nothing of it.
func FuzzFileCache(f *testing.F) {
	const kc = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	f.Add(`{"KmID":"meter7@maf.example.com","KcID":"E989300AB098CAD0E8BF6AF3B18D7333@maf.example.com","Kc":"` + kc + `","established":"2026-05-04T03:02:01Z"}`)
	f.Add(`{"KmID":"meter8@maf.example.com","KcID":"E989300AB098CAD0E8BF6AF3B18D7333@maf.example.com","Kc":"` + kc + `"}`)
	f.Add(`{"Kc":"AAEC"}`)
	f.Add(`{}`)
	id, err := onem2m.ParseKmID("meter7@maf.example.com")
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "kc.json")
	f.Fuzz(func(t *testing.T, file string) {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		key, err := FileCache(path).Load(id)
		if err != nil {
			if len(file) > 20 && strings.Contains(err.Error(), file) {
				t.Errorf("the error quotes the file: %v", err)
			}
			return
		}
		if key.KcID.IsZero() {
			return
		}
		if key.Kc.Len() != 32 {
			t.Errorf("Kc has %d octets", key.Kc.Len())
		}
		if err := FileCache(path).Store(id, key); err != nil {
			t.Skip(err) // a year beyond what JSON has
		}
		again, err := FileCache(path).Load(id)
		if err != nil || again.KcID != key.KcID || !again.Kc.Equal(key.Kc) || !again.Established.Equal(key.Established) {
			t.Errorf("stored and loaded otherwise: %v", err)
		}
	})
}
