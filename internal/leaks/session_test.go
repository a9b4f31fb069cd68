package leaks

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"net"
	"slices"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A tap is a connection whose octets are recorded, so that the session's secrets
// can be worked out by who knows the key.
type tap struct {
	net.Conn
	datagrams bool
	mu        sync.Mutex
	chunks    []peers.Chunk // guarded by mu
}

func (c *tap) record(fromClient bool, b []byte) {
	if c.datagrams {
		b = b[:plainLen(b)]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.chunks = append(c.chunks, peers.Chunk{FromClient: fromClient, Data: slices.Clone(b)})
}

// handshake reads what was recorded so far.
func (c *tap) handshake() (*peers.Handshake, error) {
	network := "tcp"
	if c.datagrams {
		network = "udp"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return peers.ReadHandshake(network, c.chunks)
}

// plainLen is how much of a datagram is records of epoch 0. Those behind may have
// connection IDs, and are not to be had without them.
func plainLen(b []byte) (n int) {
	for len(b)-n >= 13 && b[n+3] == 0 && b[n+4] == 0 {
		n += 13 + int(binary.BigEndian.Uint16(b[n+11:]))
	}
	return min(n, len(b))
}

func (c *tap) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.record(false, b[:n])
	return n, err
}

func (c *tap) Write(b []byte) (int, error) {
	c.record(true, b)
	return c.Conn.Write(b)
}

// session does a MAF Handshake as a device and adds all secrets that come of it:
// the master secret, the keys of the records, and Kc. It stays open until the
// test ends. The suite must be one of plain PSK.
func session(t *testing.T, secrets *finder, network, addr string, config *tlspsk.Config) *tlspsk.Conn {
	t.Helper()
	raw, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	tapped := &tap{Conn: raw, datagrams: network == "udp"}
	conn := tlspsk.Client(tapped, config)
	if network == "udp" {
		conn = tlspsk.DatagramClient(tapped, config)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.Handshake(); err != nil {
		t.Fatalf("%s: %v", tlspsk.CipherSuiteName(config.CipherSuites[0]), err)
	}
	state := conn.ConnectionState()
	exported, err := state.ExportKeyingMaterial("EXPORTER-oneM2M-Connection", nil, 48)
	if err != nil {
		t.Fatal(err)
	}
	h, err := tapped.handshake()
	if err != nil {
		t.Fatalf("what was recorded over %s: %v", network, err)
	}
	name := fmt.Sprintf("%s over %s", tlspsk.CipherSuiteName(state.CipherSuite), network)
	master, expand := masterSecret(h, config.Key)
	if derived := expand(master, "EXPORTER-oneM2M-Connection", slices.Concat(h.ClientRandom, h.ServerRandom), 48); !slices.Equal(derived, exported) {
		t.Fatalf("%s: the master secret worked out here is not the session's", name)
	}
	secrets.add("master secret of "+name, master)
	secrets.add("Kc of "+name, exported[16:])
	secrets.add("record keys of "+name, recordKeys(h, master, expand))
	return conn
}

// recordKeys is the key block (RFC 5246 6.3), as far as the suite uses it for MAC
// keys and keys, which come first.
func recordKeys(h *peers.Handshake, master []byte, expand prf) []byte {
	n := 16 // in each direction
	switch h.Suite {
	case tlspsk.TLS_PSK_WITH_AES_128_CBC_SHA256:
		n = 32 + 16
	case tlspsk.TLS_PSK_WITH_AES_256_GCM_SHA384, tlspsk.TLS_PSK_WITH_CHACHA20_POLY1305_SHA256:
		n = 32
	}
	return expand(master, "key expansion", slices.Concat(h.ServerRandom, h.ClientRandom), 2*n)
}

type prf func(secret []byte, label string, seed []byte, length int) []byte

// masterSecret computes RFC 5246 8.1 or RFC 7627 4, on the premaster secret of
// RFC 4279 2.
func masterSecret(h *peers.Handshake, key []byte) ([]byte, prf) {
	newHash := sha256.New
	if h.Suite == tlspsk.TLS_PSK_WITH_AES_256_GCM_SHA384 {
		newHash = sha512.New384
	}
	expand := func(secret []byte, label string, seed []byte, length int) []byte {
		return expandPRF(newHash, secret, append([]byte(label), seed...), length)
	}
	length := []byte{0, byte(len(key))}
	premaster := slices.Concat(length, make([]byte, len(key)), length, key)
	if !h.EMS {
		return expand(premaster, "master secret", slices.Concat(h.ClientRandom, h.ServerRandom), 48), expand
	}
	transcript := newHash()
	transcript.Write(h.Transcript)
	return expand(premaster, "extended master secret", transcript.Sum(nil), 48), expand
}

// expandPRF is P_hash of RFC 5246 5.
func expandPRF(newHash func() hash.Hash, secret, seed []byte, length int) (out []byte) {
	mac := func(b []byte) []byte {
		m := hmac.New(newHash, secret)
		m.Write(b)
		return m.Sum(nil)
	}
	for a := mac(seed); len(out) < length; a = mac(a) {
		out = append(out, mac(slices.Concat(a, seed))...)
	}
	return out[:length]
}
