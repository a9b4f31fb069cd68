package mafd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/adminapi/adminserver"
	"github.com/onem2m-maf/maf/internal/version"
	"github.com/onem2m-maf/maf/tlspsk"
)

// listen opens all sockets and notes their real addresses.
func (d *Daemon) listen(context.Context) error {
	d.Runtime = adminapi.Runtime{
		PID:     os.Getpid(),
		Version: version.String(),
		State:   d.state.path,
		FQDNs:   d.config.FQDNs,
		Admin:   d.config.socket(),
	}
	if d.config.KeyAPI.Certificate == "" {
		d.Runtime.CA = d.state.file(adminapi.CAName)
	}
	for _, step := range []func() error{d.checkPassed, d.listenHandshakes, d.listenKeyAPI, d.listenTelemetry} {
		if err := step(); err != nil {
			return err
		}
	}
	l, err := adminserver.Listen(d.config.socket())
	if err != nil {
		return fmt.Errorf("admin.socket: %w", err)
	}
	d.adminSocket = l
	return nil
}

func (d *Daemon) listenHandshakes() error {
	engine := d.endpoint.engine()
	err := d.sockets("tls", d.config.Handshake.TLS, &d.Runtime.TLS, socketKind{
		open: func(address string) (net.Listener, error) { return tlspsk.Listen("tcp", address, engine) },
		adopt: func(f *os.File) (net.Listener, error) {
			l, err := net.FileListener(f)
			if err != nil {
				return nil, err
			}
			return tlspsk.NewListener(l, engine), nil
		},
		use: func(l net.Listener) { d.handshakes = append(d.handshakes, l) },
	})
	if err != nil {
		return err
	}
	return d.sockets("dtls", d.config.Handshake.DTLS, &d.Runtime.DTLS, socketKind{
		open: func(address string) (net.Listener, error) { return tlspsk.Listen("udp", address, engine) },
		adopt: func(f *os.File) (net.Listener, error) {
			pc, err := net.FilePacketConn(f)
			if err != nil {
				return nil, err
			}
			return tlspsk.NewPacketListener(pc, engine), nil
		},
		use: func(l net.Listener) { d.handshakes = append(d.handshakes, l) },
	})
}

func (d *Daemon) listenKeyAPI() error {
	listeners := max(len(d.config.KeyAPI.Listen), len(d.config.Sockets["keyapi"]), 1)
	places := max(1, d.places.keyAPI/listeners)
	return d.sockets("keyapi", d.config.KeyAPI.Listen, &d.Runtime.KeyAPI, socketKind{
		open:  listenTCP,
		adopt: net.FileListener,
		use: func(l net.Listener) {
			d.keyAPIs = append(d.keyAPIs, newKeyAPIDoor(l, places, d.keyAPILog))
		},
	})
}

func listenTCP(address string) (net.Listener, error) { return net.Listen("tcp", address) }

// settingOf says which setting names the addresses of a kind of sockets.
var settingOf = map[string]string{
	"tls":       "handshake.tls",
	"dtls":      "handshake.dtls",
	"keyapi":    "keyapi.listen",
	"telemetry": "telemetry.listen",
}

// socketKind is how a kind of sockets comes to be.
type socketKind struct {
	open  func(address string) (net.Listener, error)
	adopt func(*os.File) (net.Listener, error) // the file stays its caller's
	use   func(net.Listener)
}

// sockets opens those of a kind: the ones that the service manager has passed or,
// where it passed none, those at the configured addresses.
func (d *Daemon) sockets(name string, addresses []string, bound *[]string, kind socketKind) error {
	passed := d.config.Sockets[name]
	for _, f := range passed {
		l, err := kind.adopt(f)
		f.Close()
		if err != nil {
			return fmt.Errorf("the socket %q that the service manager passed: %w", name, err)
		}
		kind.use(l)
		*bound = append(*bound, l.Addr().String())
	}
	if len(passed) > 0 {
		return nil
	}
	for _, address := range addresses {
		l, err := kind.open(address)
		if err != nil {
			return listenError(settingOf[name], address, err)
		}
		kind.use(l)
		*bound = append(*bound, l.Addr().String())
	}
	return nil
}

// checkPassed makes sure that a socket with a wrong name isn't left without a
// word, and its clients without an answer.
func (d *Daemon) checkPassed() error {
	for name := range d.config.Sockets {
		if settingOf[name] == "" {
			return fmt.Errorf("the service manager passed a socket named %q; mafd knows tls, dtls, keyapi and telemetry (FileDescriptorName=)", name)
		}
	}
	return nil
}

func listenError(key, address string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the address, which is said already
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: another program listens on %s; stop it, or configure another address", key, address)
	}
	return fmt.Errorf("%s: cannot listen on %s: %w", key, address, err)
}
