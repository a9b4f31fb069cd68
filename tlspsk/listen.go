package tlspsk

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// Dial connects to a TLS server when network is "tcp", "tcp4" or "tcp6", and
// to a DTLS server when it is "udp", "udp4" or "udp6", and completes the
// handshake.
func Dial(network, addr string, config *Config) (*Conn, error) {
	return dial(context.Background(), &net.Dialer{}, network, addr, config)
}

// A Dialer dials with options.
type Dialer struct {
	// NetDialer makes the underlying connection. Nil means net.Dialer's zero
	// value. Its Timeout and Deadline hold for connection and handshake as a
	// whole, as crypto/tls has it.
	NetDialer *net.Dialer
	// Config is the client's configuration, and required.
	Config *Config
}

// DialContext is Dial with a context, which bounds the handshake too. The
// net.Conn that it returns is a *Conn.
func (d *Dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	netDialer := d.NetDialer
	if netDialer == nil {
		netDialer = &net.Dialer{}
	}
	c, err := dial(ctx, netDialer, network, addr, d.Config)
	if err != nil {
		return nil, err // not a nil *Conn in an interface
	}
	return c, nil
}

func dial(ctx context.Context, d *net.Dialer, network, addr string, config *Config) (*Conn, error) {
	if err := config.check(true); err != nil {
		return nil, err
	}
	datagrams, err := isDatagram(network)
	if err != nil {
		return nil, err
	}
	if d.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.Timeout)
		defer cancel()
	}
	if !d.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d.Deadline)
		defer cancel()
	}
	raw, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	c := Client(raw, config)
	if datagrams {
		c = DatagramClient(raw, config)
	}
	if err := c.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// isDatagram tells DTLS's networks from TLS's.
func isDatagram(network string) (bool, error) {
	switch {
	case strings.HasPrefix(network, "tcp"):
		return false, nil
	case strings.HasPrefix(network, "udp"):
		return true, nil
	}
	return false, fmt.Errorf("tlspsk: network %q is neither tcp nor udp", network)
}

// Listen listens for TLS when network is "tcp", "tcp4" or "tcp6", and for DTLS
// when it is "udp", "udp4" or "udp6". Accept returns a *Conn before its
// handshake, which its first Read, Write or call of Handshake does; over DTLS
// a client has returned a valid cookie by then, so that its address is real.
func Listen(network, addr string, config *Config) (net.Listener, error) {
	if err := config.check(false); err != nil {
		return nil, err
	}
	datagrams, err := isDatagram(network)
	if err != nil {
		return nil, err
	}
	if datagrams {
		pc, err := net.ListenPacket(network, addr)
		if err != nil {
			return nil, err
		}
		if u, ok := pc.(*net.UDPConn); ok {
			u.SetReadBuffer(readBuffer) // or as much as the system allows
		}
		return NewPacketListener(pc, config), nil
	}
	inner, err := net.Listen(network, addr)
	if err != nil {
		return nil, err
	}
	return NewListener(inner, config), nil
}

// readBuffer is the room for datagrams that wait for us, in octets. The usual
// 208 KiB are some 280 ClientHellos, and those of all devices that come back
// after a blackout come at once; what is lost comes again a second later, or
// two, or four.
const readBuffer = 4 << 20

// NewListener returns a TLS listener on the connections that inner accepts.
func NewListener(inner net.Listener, config *Config) net.Listener {
	return &streamListener{inner, config}
}

type streamListener struct {
	net.Listener
	config *Config
}

// Accept returns the next connection, a *Conn.
func (l *streamListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Server(c, l.config), nil
}
