package interop

import (
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/peers"
)

// The tests here are the flow of TS-0003 8.2.2.3 with no code of ours on the
// device: what the foreign program exports from its MAF Handshake is split by hand,
// and the halves open an association with Entity B.

// split cuts the exported key: 16 octets name Kc, 32 are it (10.3.1, 10.3.5).
func split(t *testing.T, exported string) (kcID string, kc []byte) {
	t.Helper()
	if len(exported) != 96 {
		t.Fatalf("exported %q", exported)
	}
	kc, err := hex.DecodeString(exported[32:])
	if err != nil {
		t.Fatal(err)
	}
	return strings.ToUpper(exported[:32]) + "@" + mafFQDN, kc
}

// TestSeedTools has `openssl s_client` and `gnutls-cli` be Entity A, over each transport to the MAF and
// to Entity B: one device whose AE-ID the MAF knows, one that it knows by its KmId only.
func TestSeedTools(t *testing.T) {
	m := startMAF(t)
	b := startEntityB(t, m)
	devices := []struct {
		kmID string
		km   []byte
		name string // what Entity B knows it by
	}{
		{"meter7@" + mafFQDN, m.addClient(t, "meter7@"+mafFQDN, "--ae-id", "//sp.example.com/Smeter7"), "//sp.example.com/Smeter7"},
		{"lamp1@" + mafFQDN, m.addClient(t, "lamp1@"+mafFQDN), "11-lamp1@" + mafFQDN},
	}
	for _, tool := range []struct {
		name    string
		run     func(testing.TB, peers.Options, string, ...string) *peers.Process
		keyLine string
	}{
		{"s_client", peers.SClient, peers.SClientKey},
		{"gnutls-cli", peers.GnuTLSCli, peers.GnuTLSCliKey},
	} {
		for _, network := range []string{"tcp", "udp"} {
			for _, d := range devices {
				t.Run(fmt.Sprintf("%s/%s/%s", tool.name, network, d.name), func(t *testing.T) {
					handshake := tool.run(t, peers.Options{Network: network, Addr: m.address(network), ServerName: mafFQDN,
						Identity: []byte(d.kmID), PSK: d.km}, label)
					exported, ok := handshake.Await(tool.keyLine)
					if !ok {
						t.Fatalf("MAF Handshake: %q", handshake.Wait().Lines)
					}
					handshake.Stdin.Close()
					kcID, kc := split(t, exported)
					for _, network := range []string{"tcp", "udp"} {
						device := tool.run(t, peers.Options{Network: network, Addr: b.addr[network], ServerName: mafFQDN,
							Identity: []byte(kcID), PSK: kc}, label)
						io.WriteString(device.Stdin, "hello\n")
						name, ok := device.Await("hello ")
						if !ok {
							t.Fatalf("association over %s: %q", network, device.Wait().Lines)
						}
						device.Stdin.Close()
						if a := b.next(t); name != d.name || a.Peer() != d.name || a.KmID.String() != d.kmID || a.KcID.String() != kcID {
							t.Errorf("over %s Entity B greets %q and has %+v; expected %s with %s", network, name, a, d.name, kcID)
						}
					}
				})
			}
		}
	}
}

// TestSeedLibraries has a program on each library be Entity A, with the suites that TS-0003 10.2 makes
// mandatory.
func TestSeedLibraries(t *testing.T) {
	m := startMAF(t)
	b := startEntityB(t, m)
	const kmID, name = "meter7@" + mafFQDN, "//sp.example.com/Smeter7"
	km := m.addClient(t, kmID, "--ae-id", name)
	mandatory := map[string]string{"tcp": "TLS_PSK_WITH_AES_128_CBC_SHA256", "udp": "TLS_PSK_WITH_AES_128_CCM_8"}
	for _, library := range peers.Names() {
		for _, network := range []string{"tcp", "udp"} {
			if named(t, library).suites[network] == nil {
				continue
			}
			t.Run(library+"/"+network, func(t *testing.T) {
				device := peers.Get(t, library)
				o := peers.Options{Network: network, Suites: []string{mandatory[network]}, ServerName: mafFQDN}
				o.Addr, o.Identity, o.PSK, o.Silent = m.address(network), []byte(kmID), km, true
				r := device.Connect(t, o).Wait()
				if len(r.Sessions) != 1 {
					t.Fatalf("MAF Handshake: %q", r.Lines)
				}
				kcID, kc := split(t, hex.EncodeToString(r.Sessions[0].Export))
				o.Addr, o.Identity, o.PSK, o.Silent = b.addr[network], []byte(kcID), kc, false
				if r = device.Connect(t, o).Wait(); !r.DataOK {
					t.Fatalf("association: %q", r.Lines)
				}
				if a := b.next(t); a.Peer() != name || a.KcID.String() != kcID {
					t.Errorf("Entity B has %+v; expected %s with %s", a, name, kcID)
				}
			})
		}
	}
}
