// Package peers gives tests other people's TLS to talk to: small client and
// server programs written against OpenSSL, GnuTLS, Mbed TLS, Botan and Node, the
// tools that come with OpenSSL, GnuTLS and libcoap, and a relay that records
// what both sides said, from which the exported key is derived a second time.
//
// The programs are kept as source under testdata, built when a test first asks for
// them, and cached for the next run. They all take one command line and print
// one set of lines, described by testdata/peer.h.
//
// A test that asks for a peer which this machine cannot give is skipped with the
// reason, or fails when the environment has MAF_REQUIRE_PEERS=1, so that the
// project's own test run never passes by leaving something out.
// scripts/install-peers installs what is needed on Debian.
package peers

import (
	"os"
	"testing"
)

// A Peer is a foreign program that can be a TLS or DTLS client or server.
type Peer struct {
	Name string
	argv []string // the program and what comes before the role
}

// library says how a peer's program is made: compiled from a language, or run by an
// interpreter.
type library struct {
	name        string
	sources     []string // the first is the library's own
	language    string   // "c" or "c++"
	flags, libs []string
	header      string // its absence means that the library is not installed
	interpreter string
}

var libraries = []library{
	{name: "openssl", sources: []string{"openssl.c", "peer.c"}, language: "c", header: "openssl/ssl.h",
		libs: []string{"-lssl", "-lcrypto"}},
	{name: "gnutls", sources: []string{"gnutls.c", "peer.c"}, language: "c", header: "gnutls/gnutls.h",
		libs: []string{"-lgnutls"}},
	{name: "mbedtls", sources: []string{"mbedtls.c", "peer.c"}, language: "c", header: "mbedtls/ssl_internal.h",
		libs: []string{"-lmbedtls", "-lmbedx509", "-lmbedcrypto"}},
	{name: "botan", sources: []string{"botan.cpp", "peer.c"}, language: "c++", header: "botan/tls_client.h",
		flags: []string{"-I/usr/include/botan-2"}, libs: []string{"-lbotan-2"}},
	{name: "node", sources: []string{"node.js"}, interpreter: "node"},
}

// Names lists the peers that Get knows.
func Names() []string {
	var names []string
	for _, l := range libraries {
		names = append(names, l.name)
	}
	return names
}

// Get returns the named peer, building it when needed. It is safe for concurrent
// use.
func Get(t testing.TB, name string) *Peer {
	t.Helper()
	for _, l := range libraries {
		if l.name != name {
			continue
		}
		argv, err := build(l)
		if err != nil {
			if missing, ok := err.(missingError); ok {
				Missing(t, missing.Error())
			}
			t.Fatal(err)
		}
		return &Peer{Name: name, argv: argv}
	}
	t.Fatalf("no peer is called %q", name)
	return nil
}

// Missing ends a test for want of a foreign program: skipped as a rule, failed
// under MAF_REQUIRE_PEERS=1.
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("MAF_REQUIRE_PEERS") == "1" {
		t.Fatalf("%s; scripts/install-peers installs the foreign peers, and MAF_REQUIRE_PEERS=1 demands them", why)
	}
	t.Skipf("left out: %s (scripts/install-peers installs the foreign peers)", why)
}
