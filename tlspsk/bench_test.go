package tlspsk

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Handshake benchmarks. "memory" is both ends in one process without a
// network: its CPU is the client's and the server's together. "loopback" is
// the same over real sockets. The server's part alone is measured by
// scripts/bench-handshake, which watches a server process from outside.
func BenchmarkHandshake(b *testing.B) {
	for _, bench := range []struct {
		name, network string
		suite         uint16
	}{
		{"TLS/CBC", "tcp", TLS_PSK_WITH_AES_128_CBC_SHA256},
		{"TLS/GCM", "tcp", TLS_PSK_WITH_AES_128_GCM_SHA256},
		{"TLS/ECDHE-GCM", "tcp", TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256},
		{"DTLS/CCM_8", "udp", TLS_PSK_WITH_AES_128_CCM_8},
	} {
		config := clientConfig()
		config.CipherSuites = []uint16{bench.suite}
		b.Run(bench.name+"/memory", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				memoryHandshake(b, bench.network, config)
			}
		})
		b.Run(bench.name+"/loopback", func(b *testing.B) {
			b.ReportAllocs()
			addr, conns := listen(b, bench.network, serverConfig())
			for b.Loop() {
				c, err := Dial(bench.network, addr, config)
				if err != nil {
					b.Fatal(err)
				}
				a := <-conns
				c.Close()
				a.conn.Close()
			}
		})
	}
}

// memoryHandshake does one handshake without a network.
func memoryHandshake(b *testing.B, network string, config *Config) {
	var client, server *Conn
	if network == "tcp" {
		cc, sc := net.Pipe()
		client, server = Client(cc, config), Server(sc, serverConfig())
	} else {
		client, server = memoryDatagrams(config, serverConfig())
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Handshake(); err != nil {
			b.Error(err)
		}
	})
	if err := client.Handshake(); err != nil {
		b.Error(err)
	}
	wg.Wait()
	// Close without telling: a pipe would wait for the reader.
	client.t.abort()
	server.t.abort()
}

// memoryDatagrams returns the two ends of a DTLS session, past the cookie.
func memoryDatagrams(cc, sc *Config) (client, server *Conn) {
	var c, s *datagram
	c = newDatagram(cc, true, func(b []byte) error { s.deliver(b, netip.AddrPort{}); return nil })
	s = newDatagram(sc, false, func(b []byte) error { c.deliver(b, netip.AddrPort{}); return nil })
	for _, d := range []*datagram{c, s} {
		d.local = &net.UDPAddr{}
		d.setRemote(&net.UDPAddr{})
		d.release = func() error { return nil }
	}
	return newConn(c, cc, true), newConn(s, sc, false)
}
