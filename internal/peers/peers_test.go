package peers

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

var (
	testIdentity = []byte("meter7@maf.example.com")
	testKey, _   = hex.DecodeString("000102030405060708090a0b0c0d0e0f")
)

const testLabel = "EXPORTER-oneM2M-Connection"

// witness is the library that every other one is checked against; a suite that it lacks is
// checked between two processes of the library that has it.
const witness = "openssl"

// TestPairs runs every library against an unrelated one in both roles, over both transports, with
// each suite, so that the matrix against our own engine rests on programs known to be right.
func TestPairs(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		for _, name := range Names() {
			t.Run(network+"/"+name, func(t *testing.T) {
				t.Parallel()
				other := Get(t, witness)
				if name == witness {
					other = Get(t, "gnutls")
				}
				peer := Get(t, name)
				if network == "udp" && name == "node" {
					if s := peer.Suites(t, network); len(s) > 0 {
						t.Fatalf("Node has learnt DTLS: %q", s)
					}
					return
				}
				common := other.Suites(t, network)
				for _, suite := range peer.Suites(t, network) {
					server := other
					if !slices.Contains(common, suite) {
						server = peer
					}
					t.Run(suite, func(t *testing.T) {
						o := Options{Network: network, Suites: []string{suite}, Bulk: 1000}
						checkPair(t, server, peer, o, o)
						checkPair(t, peer, server, o, o)
					})
				}
			})
		}
	}
}

// TestPairsWithout turns each extension off, on each side, and looks at what the wire and both
// libraries then say.
func TestPairsWithout(t *testing.T) {
	other := Get(t, witness)
	for _, name := range []string{"gnutls", "mbedtls", "botan", "node"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := Get(t, name)
			for _, network := range []string{"tcp", "udp"} {
				if network == "udp" && name == "node" {
					continue
				}
				on := Options{Network: network, Suites: []string{"TLS_PSK_WITH_AES_128_CBC_SHA256"}}
				noEMS, noEtM := on, on
				noEMS.NoEMS, noEtM.NoEtM = true, true
				checkPair(t, other, peer, on, noEtM)
				checkPair(t, peer, other, noEtM, on)
				if name == "botan" {
					process := peer.Connect(t, noEMS)
					if r := process.Wait(); r.Unsupported != "ems=off" {
						t.Errorf("Botan without the extended master secret: %q", r.Lines)
					}
					continue
				}
				checkPair(t, other, peer, on, noEMS)
				checkPair(t, peer, other, noEMS, on)
			}
		})
	}
}

// TestFragments makes clients send their hello and their key exchange in pieces, and checks that
// the recorder puts them together as the peers do.
func TestFragments(t *testing.T) {
	for _, c := range []struct {
		client             string
		mtu                int
		hello, keyExchange bool
	}{
		{"openssl", 228, true, false}, // takes no MTU small enough to divide a key exchange
		{"gnutls", 150, true, true},
		{"mbedtls", 150, false, true}, // never divides its hello
		{"botan", 150, true, true},
	} {
		label := strings.Repeat("a", 60)
		o := Options{Network: "udp", Suites: []string{"TLS_PSK_WITH_AES_128_CCM_8"}, MTU: c.mtu,
			Identity: bytes.Repeat([]byte("i"), 128), PSK: testKey, ServerName: label + "." + label + "." + label + ".example"}
		h := checkPair(t, Get(t, "gnutls"), Get(t, c.client), o, o)
		if h.Fragmented[ClientHello] != c.hello || h.Fragmented[ClientKeyExchange] != c.keyExchange {
			t.Errorf("%s with an MTU of %d fragmented %v", c.client, c.mtu, h.Fragmented)
		}
	}
}

// TestWrongKey shows how a failure is reported.
func TestWrongKey(t *testing.T) {
	o := Options{Network: "tcp", Suites: []string{"TLS_PSK_WITH_AES_128_GCM_SHA256"}, Identity: testIdentity, PSK: testKey}
	for _, name := range Names() {
		server := Get(t, "openssl").Serve(t, o)
		wrong := o
		wrong.Addr, wrong.PSK = server.Addr, []byte("0123456789abcdef")
		r := Get(t, name).Connect(t, wrong).Wait()
		if len(r.Failures) != 1 || len(r.Sessions) != 0 || r.DataOK {
			t.Errorf("%s with a wrong key: %q", name, r.Lines)
		}
		// decrypt_error or bad_record_mac, as RFC 4279 2 and RFC 5246 7.2.2 have it; Botan
		// reports what it was told only when the alert was not its own.
		if f := r.Failures[0]; name != "botan" && f.Received != 20 && f.Received != 51 {
			t.Errorf("%s was told of a wrong key by alert %d: %q", name, f.Received, r.Lines)
		}
	}
}

// TestTools has the tools' exported keys, and the echo, confirmed by a server that says its own.
func TestTools(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		o := Options{Network: network, Suites: []string{"TLS_PSK_WITH_AES_128_GCM_SHA256"},
			Identity: testIdentity, PSK: testKey, ServerName: "maf.example.com"}
		check := func(tool string, run func(testing.TB, Options, string, ...string) *Process, keyLine string) {
			server := Get(t, "gnutls").Serve(t, o)
			o.Addr = server.Addr
			client := run(t, o, testLabel)
			key, _ := client.Await(keyLine)
			fmt.Fprintln(client.Stdin, "ping 1")
			if _, ok := client.Await("pong 1"); !ok {
				t.Errorf("%s over %s: %q", tool, network, client.Wait().Lines)
			}
			client.Stdin.Close()
			r := server.Wait()
			if len(r.Sessions) != 1 || !strings.EqualFold(key, hex.EncodeToString(r.Sessions[0].Export)) ||
				r.Sessions[0].ServerName != o.ServerName || !slices.Equal(r.Closed, []string{"notify"}) {
				t.Errorf("%s over %s exported %s; the server said %q", tool, network, key, r.Lines)
			}
		}
		check("s_client", SClient, SClientKey)
		check("gnutls-cli", GnuTLSCli, GnuTLSCliKey)
	}
}

// TestCoAP has libcoap's client get from libcoap's server, on the other TLS library.
func TestCoAP(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		o := Options{Network: network, Identity: testIdentity, PSK: []byte("a key made of text"), Hint: "libcoap"}
		o.Addr = CoAPServer(t, "gnutls", o).Addr
		for _, library := range []string{"openssl", "gnutls"} {
			client := CoAPClient(t, library, o, "")
			if _, ok := client.Await("This is a test server"); !ok {
				t.Errorf("the %s client got no answer over %s: %q", library, network, client.Wait().Lines)
			}
		}
	}
}

// TestManyClients has one server serve several clients at once.
func TestManyClients(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		for _, name := range []string{"openssl", "gnutls", "mbedtls", "botan"} {
			peer := Get(t, name)
			o := Options{Network: network, Suites: []string{"TLS_PSK_WITH_AES_128_CBC_SHA256"},
				Identity: testIdentity, PSK: testKey, Count: 4}
			server := peer.Serve(t, o)
			var clients []*Process
			for range o.Count {
				o.Addr = server.Addr
				clients = append(clients, Get(t, witness).Connect(t, o))
			}
			for _, c := range clients {
				if r := c.Wait(); !r.DataOK {
					t.Errorf("%s over %s: %q", name, network, r.Lines)
				}
			}
			if r := server.Wait(); len(r.Sessions) != o.Count || len(r.Failures) != 0 {
				t.Errorf("%s over %s: %q", name, network, r.Lines)
			}
		}
	}
}

// checkPair runs one handshake through a relay and compares what both sides and the wire say.
func checkPair(t *testing.T, server, client *Peer, so, co Options) *Handshake {
	t.Helper()
	if so.Identity == nil {
		so.Identity, so.PSK, co.ServerName = testIdentity, testKey, "maf.example.com"
		co.Identity, co.PSK = so.Identity, so.PSK
	}
	sp := server.Serve(t, so)
	relay := NewRelay(t, so.Network, sp.Addr)
	co.Addr = relay.Addr
	cr, sr := client.Connect(t, co).Wait(), sp.Wait()
	if len(cr.Sessions) != 1 || len(sr.Sessions) != 1 || !cr.DataOK {
		t.Fatalf("%s client %q\n%s server %q", client.Name, cr.Lines, server.Name, sr.Lines)
	}
	h, err := ReadHandshake(so.Network, relay.Chunks())
	if err != nil {
		t.Fatal(err)
	}
	derived := sr.Sessions[0].Export
	if h.Curve == 0 {
		derived = h.Export(so.PSK, nil, testLabel, 48)
	}
	for _, s := range []Session{cr.Sessions[0], sr.Sessions[0]} {
		if s.Suite != so.Suites[0] || len(s.Export) != 48 || !bytes.Equal(s.Export, derived) {
			t.Errorf("%s server, %s client, %v: session %+v, derived key %x", server.Name, client.Name, so.Suites, s, derived)
		}
		if s.EMS == answer(!h.EMS) || s.EtM == answer(!h.EtM) || !bytes.Equal(s.Identity, so.Identity) {
			t.Errorf("%s server, %s client: session %+v, on the wire EMS %v EtM %v", server.Name, client.Name, s, h.EMS, h.EtM)
		}
	}
	cbc := so.Suites[0] == "TLS_PSK_WITH_AES_128_CBC_SHA256" || so.Suites[0] == "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256"
	if h.EMS != (!so.NoEMS && !co.NoEMS) || h.EtM != (cbc && !so.NoEtM && !co.NoEtM) {
		t.Errorf("%s server, %s client: on the wire EMS %v EtM %v", server.Name, client.Name, h.EMS, h.EtM)
	}
	if got := sr.Sessions[0].ServerName; got != co.ServerName || h.ServerName != co.ServerName {
		t.Errorf("server name %q, heard as %q", co.ServerName, got)
	}
	if len(sr.Closed) != 1 || sr.Closed[0] == "eof" {
		t.Errorf("the %s server did not see the %s client's close_notify: %q", server.Name, client.Name, sr.Lines)
	}
	return h
}

func answer(b bool) Answer {
	if b {
		return Yes
	}
	return No
}
