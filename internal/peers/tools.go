package peers

import (
	"encoding/hex"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"
)

// find returns a program's path, or ends the test for want of it.
func find(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, err.Error())
	}
	return path
}

// SClient starts `openssl s_client` as a device would, with the identity and the key on the
// command line and the label to export under. What is written to Stdin goes to the
// server; closing it ends the session. More options may follow.
//
// The exported key comes from Await(SClientKey). s_client talks to a person: it keeps
// the key at 48 octets only because it is told to.
func SClient(t testing.TB, o Options, label string, more ...string) *Process {
	t.Helper()
	version := map[string]string{"tcp": "-tls1_2", "udp": "-dtls1_2"}[o.Network]
	argv := []string{find(t, "openssl"), "s_client", version, "-connect", o.Addr,
		"-psk_identity", string(o.Identity), "-psk", hex.EncodeToString(o.PSK),
		"-keymatexport", label, "-keymatexportlen", "48"}
	if o.ServerName != "" {
		argv = append(argv, "-servername", o.ServerName)
	}
	return start(t, append(argv, more...)...)
}

// SClientKey begins the line on which s_client prints the exported key, in hexadecimal.
const SClientKey = "    Keying material: "

// GnuTLSCli starts `gnutls-cli` in the same way. It offers no ECDHE_PSK: Debian 12's gnutls-cli 3.7.9
// crashes while it reports such a session, whoever the server is.
func GnuTLSCli(t testing.TB, o Options, label string, more ...string) *Process {
	t.Helper()
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		t.Fatal(err)
	}
	argv := []string{find(t, "gnutls-cli"), "--pskusername", string(o.Identity), "--pskkey", hex.EncodeToString(o.PSK),
		"--keymatexport", label, "--keymatexportsize", "48", "--port", port}
	version := "+VERS-TLS1.2"
	if o.Network == "udp" {
		version = "+VERS-DTLS1.2"
		argv = append(argv, "--udp")
	}
	argv = append(argv, "--priority", "NORMAL:-VERS-ALL:"+version+":-KX-ALL:+PSK")
	if o.ServerName != "" {
		argv = append(argv, "--sni-hostname", o.ServerName)
	}
	return start(t, append(append(argv, more...), host)...)
}

// GnuTLSCliKey begins the line on which gnutls-cli prints the exported key, in hexadecimal.
const GnuTLSCliKey = "- Key material: "

// CoAPClient starts libcoap's client on "openssl" or "gnutls", which gets a resource over DTLS
// ("udp") or TLS ("tcp") and prints it. The key is without a NUL. More options may
// follow.
func CoAPClient(t testing.TB, library string, o Options, path string, more ...string) *Process {
	t.Helper()
	scheme := map[string]string{"udp": "coaps", "tcp": "coaps+tcp"}[o.Network]
	argv := []string{find(t, "coap-client-"+library), "-w", "-B", "10", "-u", string(o.Identity), "-k", string(o.PSK)}
	return start(t, append(append(argv, more...), fmt.Sprintf("%s://%s/%s", scheme, o.Addr, path))...)
}

// CoAPServer starts libcoap's example server, which takes any identity with the key.
func CoAPServer(t testing.TB, library string, o Options) *Process {
	t.Helper()
	port := freePorts(t)
	p := start(t, find(t, "coap-server-"+library), "-A", "127.0.0.1", "-p", fmt.Sprint(port), "-k", string(o.PSK), "-h", o.Hint)
	p.Addr = fmt.Sprintf("127.0.0.1:%d", port+1)
	// It prints nothing when it listens. TLS is the last of the four protocols that it opens.
	for range 500 {
		if c, err := net.Dial("tcp", p.Addr); err == nil {
			c.Close()
			return p
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("coap-server-%s did not start: %q", library, p.Wait().Lines)
	return nil
}

// freePorts finds a port that, with the one above it, is free in both protocols: libcoap's
// server takes the second for its secure half.
func freePorts(t testing.TB) int {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		ln.Close()
		if portFree(port) && portFree(port+1) {
			return port
		}
	}
	t.Fatal("no two neighbouring ports are free")
	return 0
}

func portFree(port int) bool {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer ln.Close()
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	pc.Close()
	return true
}
