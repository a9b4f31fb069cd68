package flood

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/tlspsk"
)

// from returns the nth source address of a net of up to 62,500 of them:
// 127.net.x.y.
func from(network byte, n int) net.IP {
	return net.IPv4(127, network, byte(n/250%250), byte(1+n%250))
}

// clientHello returns the ClientHello of a device, as it goes over a network.
// That of DTLS has no cookie.
func clientHello(t testing.TB, network string) []byte {
	t.Helper()
	client, wire := net.Pipe()
	config := &tlspsk.Config{Identity: []byte("meter0@" + served), Key: make([]byte, 32), ServerName: string(served)}
	c := tlspsk.Client(client, config)
	if network == "udp" {
		c = tlspsk.DatagramClient(client, config)
	}
	done := make(chan struct{})
	go func() {
		c.Handshake()
		close(done)
	}()
	hello := make([]byte, 1<<14)
	n, err := wire.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	wire.Close()
	c.Close()
	<-done
	return hello[:n]
}

// Offsets in a DTLS record with an unfragmented ClientHello or
// HelloVerifyRequest (RFC 6347).
const (
	recordSeqAt  = 10 // its last octet
	recordLenAt  = 11
	messageLenAt = 14 // 3 octets
	messageSeqAt = 17
	fragmentAt   = 22 // 3 octets: the fragment's length
	bodyAt       = 25
	sessionIDAt  = bodyAt + 2 + 32
)

// withCookie returns a ClientHello with the cookie of a HelloVerifyRequest.
func withCookie(hello, verify []byte) ([]byte, error) {
	if len(verify) < bodyAt+3 || verify[13] != 3 {
		return nil, fmt.Errorf("this is no HelloVerifyRequest: %x", verify)
	}
	cookie := verify[bodyAt+2:] // from its length octet on
	at := sessionIDAt + 1       // our session ID is empty
	b := append(append(bytes.Clone(hello[:at]), cookie...), hello[at+1:]...)
	b[recordSeqAt], b[messageSeqAt+1] = 1, 1
	length := len(b) - bodyAt
	binary.BigEndian.PutUint16(b[recordLenAt:], uint16(length+12))
	b[messageLenAt+1], b[messageLenAt+2] = byte(length>>8), byte(length)
	b[fragmentAt+1], b[fragmentAt+2] = byte(length>>8), byte(length)
	return b, nil
}

// dialUDP returns a socket with the given source, connected to the victim.
func dialUDP(source net.IP, to string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.UDPAddr{IP: source}}).Dial("udp", to)
}

// dialTCP does so over TCP.
func dialTCP(source net.IP, to string) (net.Conn, error) {
	return (&net.Dialer{LocalAddr: &net.TCPAddr{IP: source}, Control: choosePortLate}).Dial("tcp", to)
}

// cookieFor returns the socket of a client that has got a cookie, and its
// ClientHello with that.
func cookieFor(source net.IP, to string, hello []byte) (net.Conn, []byte, error) {
	c, err := dialUDP(source, to)
	if err != nil {
		return nil, nil, err
	}
	answer := make([]byte, 512)
	for try := 0; ; try++ {
		if _, err = c.Write(hello); err == nil {
			var n int
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			if n, err = c.Read(answer); err == nil {
				hello, err = withCookie(hello, answer[:n])
				return c, hello, err
			}
		}
		if try == 50 {
			c.Close()
			return nil, nil, err
		}
	}
}

// halfOpen begins a handshake from a source and does not go on. Over TCP the
// connection must be kept.
func halfOpen(network string, source net.IP, to string, hello []byte) (net.Conn, error) {
	if network == "udp" {
		c, hello, err := cookieFor(source, to, hello)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		_, err = c.Write(hello)
		return nil, err
	}
	c, err := dialTCP(source, to)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(hello); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
