package interop

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

// named finds one foreigner.
func named(t *testing.T, name string) *foreign {
	t.Helper()
	for _, f := range foreigners() {
		if f.name == name {
			return f
		}
	}
	t.Fatalf("no foreigner is called %q", name)
	return nil
}

// longName is nearly as long as a DNS name gets.
var longName = strings.Repeat(strings.Repeat("a", 60)+".", 3) + "example.com"

// TestFragments has hellos and key exchanges come in pieces, with the longest name and an identity
// of 128 octets (RFC 4279 5.3).
func TestFragments(t *testing.T) {
	for _, c := range []struct {
		peer          string
		weServe       bool
		mtu, identity int
		pieces        []uint8 // the messages that have to come in pieces
	}{
		{"openssl", true, 228, 128, []uint8{peers.ClientHello}}, // no smaller MTU is possible there
		{"gnutls", true, 150, 128, []uint8{peers.ClientHello, peers.ClientKeyExchange}},
		{"mbedtls", true, 150, 128, []uint8{peers.ClientKeyExchange}}, // never divides its hello
		{"botan", true, 150, 128, []uint8{peers.ClientHello, peers.ClientKeyExchange}},
		{"pion", true, 100, 128, []uint8{peers.ClientHello, peers.ClientKeyExchange}},
		{"openssl", false, 228, 250, []uint8{peers.ClientHello, peers.ClientKeyExchange}},
		{"gnutls", false, 228, 128, []uint8{peers.ClientHello}}, // takes no longer identity
		{"botan", false, 228, 250, []uint8{peers.ClientHello, peers.ClientKeyExchange}},
		{"pion", false, 228, 250, []uint8{peers.ClientHello, peers.ClientKeyExchange}},
	} {
		t.Run(fmt.Sprintf("%s,weServe=%v", c.peer, c.weServe), func(t *testing.T) {
			t.Parallel()
			longIdentity := bytes.Repeat([]byte("i"), c.identity)
			e := exchange{foreign: named(t, c.peer), weServe: c.weServe, options: peers.Options{
				Network: "udp", Suites: []string{"TLS_PSK_WITH_AES_128_CCM_8"}, Identity: longIdentity, PSK: key,
				ServerName: longName}}
			e.config = tlspsk.Config{CipherSuites: []uint16{tlspsk.TLS_PSK_WITH_AES_128_CCM_8}, Identity: longIdentity, Key: key,
				ServerName: longName, MTU: c.mtu}
			if c.weServe {
				e.config.GetPSK = keys(longIdentity, key)
				e.options.MTU = c.mtu
			}
			e.run(t)
			e.mustSucceed(t)
			wire, err := peers.ReadHandshake("udp", e.relay.Chunks())
			if err != nil {
				t.Fatal(err)
			}
			checkExport(t, wire, e.ours, key)
			for _, kind := range c.pieces {
				if !wire.Fragmented[kind] {
					t.Errorf("message of type %d came in one piece; in pieces came %v", kind, wire.Fragmented)
				}
			}
			if c.weServe && (e.ours.state.ServerName != longName || !bytes.Equal(e.ours.state.Identity, longIdentity)) {
				t.Errorf("our server heard %q, %q", e.ours.state.ServerName, e.ours.state.Identity)
			}
		})
	}
}

// TestLoss loses each datagram of the handshake once, in each direction: both sides have to find
// out whose turn it is to repeat. The last of them carries the server's Finished, after which
// the server for its part is done.
func TestLoss(t *testing.T) {
	for _, name := range []string{"openssl", "gnutls", "mbedtls", "botan", "pion"} {
		for _, weServe := range []bool{true, false} {
			for _, client := range []bool{true, false} {
				for n := range 5 {
					if name == "botan" && !weServe && !client && n == 0 {
						continue // Botan never repeats a HelloVerifyRequest, whoever the client is
					}
					t.Run(fmt.Sprintf("%s,weServe=%v,fromClient=%v,%d", name, weServe, client, n), func(t *testing.T) {
						t.Parallel()
						c := cell{foreign: named(t, name), weServe: weServe, network: "udp", suite: "TLS_PSK_WITH_AES_128_CCM_8"}
						e := exchange{foreign: c.foreign, weServe: weServe, config: c.config(), drop: lose(client, n),
							options: peers.Options{Network: "udp", Suites: []string{c.suite}, Identity: identity, PSK: key, ServerName: serverName}}
						e.run(t)
						e.mustSucceed(t)
						if len(e.theirs.Sessions) != 1 || !bytes.Equal(e.theirs.Sessions[0].Export, e.ours.export) {
							t.Errorf("we export %x; theirs: %q", e.ours.export, e.theirs.Lines)
						}
					})
				}
			}
		}
	}
}

// lose drops the n-th datagram of the handshake in one direction. Application data and alerts
// are nobody's to repeat, so they pass.
func lose(fromClient bool, n int) func(bool, []byte) bool {
	seen := 0
	return func(client bool, datagram []byte) bool {
		if client != fromClient || datagram[0] != recordHandshake && datagram[0] != recordChangeCipherSpec {
			return false
		}
		seen++
		return seen == n+1
	}
}

const (
	recordChangeCipherSpec = 20
	recordAlert            = 21
	recordHandshake        = 22
	recordApplicationData  = 23
)
