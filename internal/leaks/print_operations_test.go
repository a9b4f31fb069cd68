package leaks

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/kek"
	"github.com/onem2m-maf/maf/internal/mafd"
	"github.com/onem2m-maf/maf/internal/provision"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// addOperations adds what operators handle keys with: files of many devices, and
// the keys that encrypt the keyset.
func addOperations(t *testing.T, secrets *finder, table map[string]specimen, dir string, km secret.Key) {
	t.Helper()
	kekOctets := octets(kek.Size)
	secrets.add("key-encryption key", kekOctets)
	kekFile := filepath.Join(dir, "kek")
	if err := os.WriteFile(kekFile, kekOctets, 0o600); err != nil {
		t.Fatal(err)
	}
	local, err := kek.File(kekFile)
	if err != nil {
		t.Fatal(err)
	}
	transitConfig := kek.TransitConfig{URL: "https://127.0.0.1:1/v1/transit", Key: "mafd", TokenFile: kekFile}
	transit, err := kek.NewTransit(transitConfig)
	if err != nil {
		t.Fatal(err)
	}

	row := adminapi.ImportRow{NewClient: adminapi.NewClient{Km: adminapi.Key{Key: km}}}
	row.KmID = onem2m.KmID{Relative: "meter7", FQDN: "maf.localhost"}
	text := fmt.Appendf(nil, "meter7@maf.localhost:%x\nmeter8@maf.localhost:%x\n", km.Bytes(), km.Bytes())
	reader, err := provision.NewReader(bytes.NewReader(text), provision.Mosquitto, provision.Defaults{EntityB: onem2m.CSEID{SP: "city.example", ID: "in-cse"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reader.Close)
	if _, err := reader.Read(); err != nil { // the next row is in its buffer
		t.Fatal(err)
	}
	writer, err := provision.NewWriter(new(bytes.Buffer), provision.CSV, true)
	if err == nil {
		err = writer.Write(&row)
	}
	if err != nil {
		t.Fatal(err)
	}

	for name, value := range map[string]any{
		"internal/kek.Local":                local,
		"internal/kek.Transit":              transit,
		"internal/kek.TransitConfig":        transitConfig,
		"internal/seal.File":                seal.File{Path: kekFile, KEK: local},
		"internal/seal.Key":                 seal.Key{},
		"internal/provision.Reader":         reader,
		"internal/provision.Writer":         writer,
		"internal/provision.Defaults":       provision.Defaults{},
		"internal/provision.BadRow":         &provision.BadRow{},
		"internal/authority.Import":         authority.Import{Km: km},
		"internal/authority.RewrapProgress": authority.RewrapProgress{},
		"internal/store.BoxCount":           store.BoxCount{},
		"internal/mafd.AuditConfig":         mafd.Defaults().Audit,
		"internal/mafd.StoreConfig":         mafd.Defaults().Store,
		"internal/mafd.TelemetryConfig":     mafd.Defaults().Telemetry,
		"internal/mafd.KeysetConfig":        mafd.Defaults().Keyset,
		"internal/mafd.KEKSource":           mafd.KEKSource{},
		"internal/adminapi.Keyset":          adminapi.Keyset{},
		"internal/adminapi.KeysetKey":       adminapi.KeysetKey{},
		"internal/adminapi.Rewrap":          adminapi.Rewrap{},
		"internal/adminapi.NewRewrap":       adminapi.NewRewrap{},
		"internal/adminapi.ImportOptions":   adminapi.ImportOptions{},
		"internal/adminapi.ImportReport":    adminapi.ImportReport{},
		"internal/adminapi.RowError":        adminapi.RowError{},
		"internal/adminapi.Filter":          adminapi.Filter{},
	} {
		table[name] = specimen{value: value}
	}
	table["internal/adminapi.ImportRow"] = specimen{value: row, wire: "Km"}
}
