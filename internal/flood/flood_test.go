package flood

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/tlspsk"
)

// TestSpoofedHellos: ClientHellos from addresses that never answer leave
// nothing behind but a cookie on its way.
func TestSpoofedHellos(t *testing.T) {
	hello := clientHello(t, "udp")
	const perSource = 10
	n := size(20_000, 200_000)
	siege{places: size(100, 1000), bothered: 5, attack: func(t *testing.T, v *victim, _ func(net.Conn)) {
		each(t, n/perSource, func(i int) error {
			c, err := dialUDP(from(1, i), v.DTLS[0])
			if err != nil {
				return err
			}
			defer c.Close()
			spoofed := bytes.Clone(hello)
			for range perSource {
				binary.BigEndian.PutUint64(spoofed[bodyAt+2:], rand.Uint64()) // in the client's random
				c.Write(spoofed)                                              // an error is an ICMP message about an answer
			}
			time.Sleep(time.Millisecond) // else most are lost before mafd sees them, and the test shows little
			return nil
		})
		t.Logf("%d ClientHellos were sent; of what came to its socket the kernel dropped %s", n, v.dropped(t))
	}}.run(t)
}

// TestHalfOpen: handshakes that are begun and not gone on with, many more than
// there are places, from many sources and from one.
func TestHalfOpen(t *testing.T) {
	n := size(800, 10_000)
	for _, network := range []string{"tcp", "udp"} {
		hello := clientHello(t, network)
		for name, source := range map[string]func(i int) net.IP{
			"many sources": func(i int) net.IP { return from(1, i) },
			"one source":   func(int) net.IP { return from(2, 0) },
		} {
			t.Run(network+"/"+name, func(t *testing.T) {
				s := siege{places: n / 10, bothered: 1, files: n}
				if name == "one source" {
					s.neighbour = source(0)
				}
				s.attack = func(t *testing.T, v *victim, hold func(net.Conn)) {
					each(t, n, func(i int) error {
						c, err := halfOpen(network, source(i), v.address(network), hello)
						if c != nil {
							hold(c)
						}
						return err
					})
				}
				s.run(t)
			})
		}
	}
	// As many as there are places by default, over both transports at once, so
	// that nobody is shed.
	t.Run("both", func(t *testing.T) {
		siege{places: n, bothered: 1, files: n, attack: func(t *testing.T, v *victim, hold func(net.Conn)) {
			for _, network := range []string{"tcp", "udp"} {
				hello := clientHello(t, network)
				each(t, n, func(i int) error {
					c, err := halfOpen(network, from(1, i), v.address(network), hello)
					if c != nil {
						hold(c)
					}
					return err
				})
			}
		}}.run(t)
	})
}

// TestSlowSenders: TLS clients that send an octet now and then, and come again
// when they are cut off.
func TestSlowSenders(t *testing.T) {
	n := size(400, 4000)
	hello := clientHello(t, "tcp")
	siege{places: n / 2, bothered: 1, files: n, attack: func(t *testing.T, v *victim, _ func(net.Conn)) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(size(3, 15))*time.Second)
		defer cancel()
		done := make(chan struct{}, n)
		for i := range n {
			go func() {
				for ctx.Err() == nil {
					drip(ctx, from(1, i), v.TLS[0], hello)
				}
				done <- struct{}{}
			}()
		}
		for range n {
			<-done
		}
	}}.run(t)
}

// drip sends an octet each second, until it is cut off.
func drip(ctx context.Context, source net.IP, to string, hello []byte) {
	c, err := dialTCP(source, to)
	if err != nil {
		return
	}
	defer c.Close()
	for i := range hello {
		if _, err := c.Write(hello[i : i+1]); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// TestHoarders: a handshake can't be made to hold much by what may be kept for
// later: over DTLS messages that come too early, in datagrams as large as can be,
// and first pieces of long messages; over TLS a record that lacks its end.
func TestHoarders(t *testing.T) {
	n := size(1200, 6000)
	hello := clientHello(t, "udp")
	siege{places: n / 2, bothered: 1, files: n / 4, attack: func(t *testing.T, v *victim, hold func(net.Conn)) {
		each(t, n, func(i int) error {
			if i%4 == 3 {
				c, err := dialTCP(from(1, i), v.TLS[0])
				if err != nil {
					return err
				}
				hold(c)
				c.Write(append([]byte{22, 3, 1, 0x40, 0}, make([]byte, 1<<14-1)...))
				return nil
			}
			c, withCookie, err := cookieFor(from(1, i), v.DTLS[0], hello)
			if err != nil {
				return err
			}
			defer c.Close()
			c.Write(withCookie)
			time.Sleep(time.Millisecond)
			for j := range byte(4) {
				datagram := make([]byte, 60_000)
				copy(datagram, [][]byte{
					{22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, j, 0, 1},                                                    // a record of an epoch to come
					{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9 + j, 0, 13, 16, 0, 0, 1, 0, 2 + j, 0, 0, 0, 0, 0, 1, 0},   // a message ahead of what is expected
					{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 9 + j, 0, 13, 1, 0, 0x20, 0, 0, 2 + j, 0, 0, 0, 0, 0, 1, 0}, // the first octet of 8 KiB
				}[i%4])
				c.Write(datagram)
			}
			return nil
		})
	}}.run(t)
}

// TestGarbage: what is no handshake, over both transports, from many sources.
func TestGarbage(t *testing.T) {
	n := size(2000, 40_000)
	hello := clientHello(t, "udp")
	siege{places: size(100, 1000), bothered: 5, attack: func(t *testing.T, v *victim, _ func(net.Conn)) {
		each(t, n, func(i int) error {
			text := garbage[i%len(garbage)]
			if i%2 == 0 {
				c, err := dialTCP(from(1, i), v.TLS[0])
				if err != nil {
					return err
				}
				c.Write(text()) // may fail: it is refused while it comes
				return c.Close()
			}
			// Every other time behind a valid cookie.
			c, withCookie, err := net.Conn(nil), []byte(nil), error(nil)
			if i%4 == 1 {
				c, err = dialUDP(from(1, i), v.DTLS[0])
			} else if c, withCookie, err = cookieFor(from(1, i), v.DTLS[0], hello); err == nil {
				c.Write(withCookie)
			}
			if err != nil {
				return err
			}
			for range 3 {
				c.Write(text())
			}
			return c.Close()
		})
	}}.run(t)
}

// garbage makes things that a server may get.
var garbage = []func() []byte{
	func() []byte { return randomOctets(1 + rand.IntN(1000)) },
	func() []byte { return []byte("GET / HTTP/1.1\r\nHost: maf.example.com\r\n\r\n") },
	func() []byte { return append([]byte{22, 3, 1, 0xff, 0xff}, randomOctets(30_000)...) },              // oversize
	func() []byte { return append([]byte{22, 3, 1, 0x40, 0}, randomOctets(1<<14)...) },                  // a full record of noise
	func() []byte { return bytes.Repeat([]byte{22, 3, 3, 0, 0}, 5000) },                                 // empty records
	func() []byte { return bytes.Repeat([]byte{21, 3, 3, 0, 2, 1, 90}, 3000) },                          // warnings
	func() []byte { return append([]byte{22, 3, 1, 0, 100, 1, 0xff, 0xff, 0xff}, make([]byte, 96)...) }, // a hello of 16 MiB
	func() []byte {
		return append([]byte{22, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 0, 0, 64}, randomOctets(64)...)
	},
	func() []byte { return append([]byte{25, 0xfe, 0xfd, 0, 1}, randomOctets(40)...) }, // with a connection ID
	func() []byte { return append([]byte{22, 0xfe, 0xfd, 0, 0}, randomOctets(60_000)...) },
	func() []byte { return nil },
}

func randomOctets(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// wrongKey does a handshake in the name of a device without its key.
func wrongKey(ctx context.Context, network string, source net.IP, to string, i int) error {
	c := &tlspsk.Config{Identity: []byte(meter(i).String()), Key: []byte("not its key, but as long as that"), ServerName: string(served),
		RetransmitTimeout: 20 * time.Millisecond} // over DTLS the refusal comes with the second Finished
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	return handshake(ctx, network, source, to, c)
}

// TestClaimedIdentity: handshakes in the name of all the honest devices, without
// their keys, from everywhere, and from next door too, lock none of them out.
func TestClaimedIdentity(t *testing.T) {
	n := size(800, 10_000)
	siege{places: 1000, bothered: 1, attack: func(t *testing.T, v *victim, _ func(net.Conn)) {
		each(t, n, func(i int) error {
			source := from(1, i)
			if i%10 == 0 {
				source = from(200, i/10%8)
			}
			if err := wrongKey(t.Context(), [2]string{"tcp", "udp"}[i%2], source, v.address([2]string{"tcp", "udp"}[i%2]), i/2%8); err == nil {
				t.Error("a wrong key got in")
			}
			return nil
		})
	}}.run(t)
}

// TestFailingSource: one source that fails on and on is turned away, and then
// costs little more than its TCP connections.
func TestFailingSource(t *testing.T) {
	burst, n := size(200, 2000), size(1000, 20_000)
	limits := fmt.Sprintf("failure_burst = %d\nfailures_per_second = 10", burst)
	siege{places: 1000, bothered: 1, other: limits, attack: func(t *testing.T, v *victim, _ func(net.Conn)) {
		for _, phase := range []struct {
			what string
			n    int
		}{{"let in", burst}, {"mostly turned away", n}} {
			cpu := v.cpu(t)
			each(t, phase.n, func(int) error {
				if wrongKey(t.Context(), "tcp", from(2, 0), v.TLS[0], 0) == nil {
					t.Error("a wrong key got in")
				}
				return nil
			})
			t.Logf("%d %s: %v of mafd's processor time for each, with what the honest had meanwhile",
				phase.n, phase.what, ((v.cpu(t) - cpu) / time.Duration(phase.n)).Round(time.Microsecond))
		}
	}}.run(t)
}
