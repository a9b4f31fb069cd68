package interop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

// TestRequire has our side require an extension that the peer leaves out.
func TestRequire(t *testing.T) {
	for _, name := range []string{"openssl", "gnutls", "mbedtls", "node"} {
		for _, weServe := range []bool{true, false} {
			for _, network := range []string{"tcp", "udp"} {
				f := named(t, name)
				if f.suites[network] == nil {
					continue
				}
				for _, ems := range []bool{true, false} {
					t.Run(fmt.Sprintf("%s,weServe=%v,%s,ems=%v", name, weServe, network, ems), func(t *testing.T) {
						t.Parallel()
						c := cell{foreign: f, weServe: weServe, network: network, suite: "TLS_PSK_WITH_AES_128_CBC_SHA256"}
						e := exchange{foreign: f, weServe: weServe, config: c.config(), options: peers.Options{
							Network: network, Suites: []string{c.suite}, Identity: identity, PSK: key, NoEMS: ems, NoEtM: !ems}}
						if ems {
							e.config.ExtendedMasterSecret = tlspsk.PolicyRequire
						} else {
							e.config.EncryptThenMAC = tlspsk.PolicyRequire
						}
						e.run(t)
						wantAlert(t, e.ours.err, false, tlspsk.AlertHandshakeFailure)
						if weServe && !f.deaf(network) || network == "tcp" {
							wantFailure(t, &e, int(tlspsk.AlertHandshakeFailure))
						}
					})
				}
			}
		}
	}
}

// wantAlert checks our side's account of a failure.
func wantAlert(t *testing.T, err error, remote bool, alert tlspsk.Alert) {
	t.Helper()
	var a *tlspsk.AlertError
	if !errors.As(err, &a) || a.Remote != remote || a.Alert != alert {
		t.Errorf("our side failed with %v, expected %v (by the peer: %v)", err, alert, remote)
	}
}

// wantFailure checks the peer's: that it failed, and was told why.
func wantFailure(t *testing.T, e *exchange, alert int) {
	t.Helper()
	if len(e.theirs.Failures) != 1 || len(e.theirs.Sessions) != 0 {
		t.Fatalf("theirs did not fail: %q", e.theirs.Lines)
	}
	if f := e.theirs.Failures[0]; f.Received != alert {
		t.Errorf("theirs was told alert %d, expected %d: %s", f.Received, alert, f.Text)
	}
}

// TestNoOracle shows that foreign clients cannot tell an unknown identity from a wrong key: the same
// messages of the same lengths, and the same alert.
func TestNoOracle(t *testing.T) {
	for _, f := range foreigners() {
		for _, network := range []string{"tcp", "udp"} {
			// libcoap's clients do not repeat a flight whose answer is missing, and our DTLS server
			// wants to see one wrong Finished more before it believes in a wrong key.
			if f.suites[network] == nil || strings.HasPrefix(f.name, "libcoap") {
				continue
			}
			for _, suite := range []string{"TLS_PSK_WITH_AES_128_CBC_SHA256", "TLS_ECDHE_PSK_WITH_CHACHA20_POLY1305_SHA256"} {
				t.Run(f.name+"/"+network+"/"+suite, func(t *testing.T) {
					t.Parallel()
					refused := func(known []byte) (string, *exchange) {
						e := &exchange{foreign: f, weServe: true, options: peers.Options{
							Network: network, Suites: []string{suite}, Identity: identity, PSK: key, ServerName: serverName},
							config: tlspsk.Config{CipherSuites: []uint16{suiteID(suite)}, GetPSK: keys(known, []byte("another key"))}}
						e.run(t)
						return conversation(e.relay.Chunks()), e
					}
					wrongKey, a := refused(identity)
					unknown, b := refused([]byte("somebody else"))
					if wrongKey != unknown || !strings.HasSuffix(unknown, "0214") { // fatal, bad_record_mac
						t.Errorf("our server said, to a wrong key\n%s\nto an unknown identity\n%s", wrongKey, unknown)
					}
					wantAlert(t, a.ours.err, false, tlspsk.AlertBadRecordMAC)
					if errors.Is(a.ours.err, tlspsk.ErrUnknownIdentity) || !errors.Is(b.ours.err, tlspsk.ErrUnknownIdentity) {
						t.Errorf("our server does not know what it did: %v; %v", a.ours.err, b.ours.err)
					}
					if len(a.theirs.Sessions)+len(b.theirs.Sessions) != 0 || a.theirs.DataOK || b.theirs.DataOK {
						t.Errorf("the client got in: %q, %q", a.theirs.Lines, b.theirs.Lines)
					}
				})
			}
		}
	}
}

// conversation describes the records that the server sent, by type, length and, for an alert in the
// clear, content. What a DTLS server repeats is not told again: that depends on timers.
func conversation(chunks []peers.Chunk) string {
	var stream []byte
	for _, c := range chunks {
		if !c.FromClient {
			stream = append(stream, c.Data...)
		}
	}
	var said []string
	for len(stream) >= 5 {
		header := 5
		if stream[1] == 0xfe { // DTLS
			header = 13
		}
		n := min(header+int(stream[header-2])<<8+int(stream[header-1]), len(stream))
		record := fmt.Sprintf("%d(%d)", stream[0], n)
		if stream[0] == recordAlert {
			record += fmt.Sprintf("%x", stream[header:n])
		}
		if !slices.Contains(said, record) {
			said = append(said, record)
		}
		stream = stream[n:]
	}
	return strings.Join(said, " ")
}

// TestNUL sends an identity with a NUL inside. A server that took it for a C string would look up
// another client's key, and here find it.
func TestNUL(t *testing.T) {
	whole := []byte("meter7\x00@maf.example.com")
	for _, name := range []string{"gnutls", "mbedtls", "botan", "pion"} { // OpenSSL's clients cannot
		for _, network := range []string{"tcp", "udp"} {
			f := named(t, name)
			if f.suites[network] == nil {
				continue
			}
			for _, known := range [][]byte{whole, []byte("meter7")} {
				t.Run(fmt.Sprintf("%s/%s/%q", name, network, known), func(t *testing.T) {
					t.Parallel()
					e := exchange{foreign: f, weServe: true,
						config:  tlspsk.Config{GetPSK: keys(known, key)},
						options: peers.Options{Network: network, Suites: []string{"TLS_PSK_WITH_AES_128_GCM_SHA256"}, Identity: whole, PSK: key}}
					e.run(t)
					if !bytes.Equal(known, whole) {
						if !errors.Is(e.ours.err, tlspsk.ErrUnknownIdentity) {
							t.Errorf("our server: %v", e.ours.err)
						}
						return
					}
					e.mustSucceed(t)
					if !bytes.Equal(e.ours.state.Identity, whole) {
						t.Errorf("our server heard %q", e.ours.state.Identity)
					}
				})
			}
		}
	}
}

// TestRecordLimit has the client ask for short records, by max_fragment_length (RFC 6066 4) where
// the peer is OpenSSL or Mbed TLS, by record_size_limit (RFC 8449) where it is GnuTLS.
func TestRecordLimit(t *testing.T) {
	const limit = 512
	for _, name := range []string{"openssl", "mbedtls", "gnutls"} {
		for _, weServe := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,weServe=%v", name, weServe), func(t *testing.T) {
				t.Parallel()
				c := cell{foreign: named(t, name), weServe: weServe, network: "tcp", suite: "TLS_PSK_WITH_AES_128_CBC_SHA256"}
				e := exchange{foreign: c.foreign, weServe: weServe, config: c.config(), options: peers.Options{
					Network: "tcp", Suites: []string{c.suite}, Identity: identity, PSK: key, Bulk: 20000}}
				switch {
				case weServe:
					e.options.Fragment = limit
				case name == "gnutls":
					e.config.RecordSizeLimit = limit
				default:
					e.config.MaxFragmentLength = limit
				}
				e.run(t)
				e.mustSucceed(t)
				// IV, MAC and padding come on top.
				if longest := longestRecord(e.relay.Chunks()); longest > 5+16+limit+32+16 {
					t.Errorf("a record of %d octets for a client that takes %d", longest, limit)
				}
			})
		}
	}
}

// longestRecord is the length of the longest TLS record with application data that the server sent.
func longestRecord(chunks []peers.Chunk) int {
	var stream []byte
	for _, c := range chunks {
		if !c.FromClient {
			stream = append(stream, c.Data...)
		}
	}
	var lengths []int
	for len(stream) >= 5 {
		n := 5 + int(stream[3])<<8 + int(stream[4])
		if stream[0] == recordApplicationData {
			lengths = append(lengths, n)
		}
		stream = stream[min(n, len(stream)):]
	}
	return slices.Max(append(lengths, 0))
}
