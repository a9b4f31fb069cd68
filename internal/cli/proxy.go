package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// maxProxied bounds how many local peers a proxy serves at the same time.
const maxProxied = 1024

func (a *app) proxyCommand() *cobra.Command {
	var (
		f           deviceFlags
		p           proxy
		as, listen  string
		dtls        bool
		allowRemote bool
		kcFile      string
	)
	cmd := &cobra.Command{
		Use:   "proxy HOST:PORT --as KmID",
		Short: "Be a device for a program that knows no keys: carry what it sends to Entity B",
		Long: `Listen on this machine in clear, and carry each connection through an association
to an Entity B, as Entity A. So a program in any language reaches Entity B without
changing a line: point it at the proxy.

With --dtls the proxy listens on UDP, and the datagrams of each local peer go
through an association over DTLS, as CoAP's do.

Whoever can connect to the proxy is the device. It listens on the loopback
interface only, unless --allow-remote says that the network is to be trusted.`,
		Example: `  maf proxy in-cse.example.com:8443 --as meter7@maf.example.com --km-file meter7.key --listen 127.0.0.1:8080
  curl -H 'X-M2M-Origin: Cmeter7' http://127.0.0.1:8080/cse-in
  maf proxy in-cse.example.com:5684 --dtls --as meter7@maf.example.com --km-file meter7.key --listen 127.0.0.1:5683`,
		Args: arguments(1, 1, "the address of Entity B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id onem2m.KmID
			if err := parse("--as", as, &id); err != nil {
				return usageError{err}
			}
			var err error
			if p.entityB, err = address("the address of Entity B", args[0]); err != nil {
				return err
			}
			if listen, err = localAddress(listen, allowRemote); err != nil {
				return err
			}
			if p.device, err = f.device(a, id); err != nil {
				return err
			}
			if kcFile != "" {
				p.device.Cache = saef.FileCache(kcFile)
			}
			p.log = a.out.log()
			p.device.Log = p.log
			p.patience = 4 * f.timeout
			if allowRemote {
				p.log.Warn("whoever reaches this proxy over the network is the device", "listen", listen)
			}
			listening := func(addr net.Addr) error {
				return a.out.result(struct {
					Listening string `json:"listening"`
				}{addr.String()}, field{"listening", addr.String()})
			}
			if dtls {
				return p.datagrams(cmd.Context(), listen, listening)
			}
			return p.streams(cmd.Context(), listen, listening)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&as, "as", "", "the device's KmID")
	flags.StringVar(&listen, "listen", "127.0.0.1:0", "where to listen; port 0 is any that is free")
	flags.BoolVar(&allowRemote, "allow-remote", false, "listen also beyond this machine: whoever gets there is the device")
	flags.BoolVar(&dtls, "dtls", false, "UDP here, and the association over DTLS instead of TLS")
	flags.BoolVar(&f.mafDTLS, "maf-dtls", false, "the MAF Handshake over DTLS (UDP) instead of TLS")
	flags.StringVar(&kcFile, "kc-file", "", "keep Kc in this file, and use the one that is there")
	flags.DurationVar(&p.idle, "idle", 5*time.Minute, "with --dtls: how long a local peer may be silent until its association is closed")
	cmd.MarkFlagRequired("as")
	return cmd
}

// localAddress checks where a proxy may listen.
func localAddress(text string, allowRemote bool) (string, error) {
	listen, err := address("--listen", text)
	if err != nil || allowRemote {
		return listen, err
	}
	host, _, _ := net.SplitHostPort(listen)
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() {
		return "", &advised{fmt.Errorf("--listen: %s is not on the loopback interface, and whoever reaches the proxy is the device", quote(text)),
			"127.0.0.1:PORT, or --allow-remote if you trust all that can get there", exitUsage}
	}
	return listen, nil
}

// A proxy carries what local peers send through associations of their own.
type proxy struct {
	device   *saef.Device
	entityB  string
	patience time.Duration // for an association, MAF Handshake included
	idle     time.Duration // of a peer over UDP
	log      *slog.Logger
}

// dial opens an association for a local peer, or tells the log why there is none
// and what to do.
func (p *proxy) dial(ctx context.Context, network string, peer net.Addr) (*tlspsk.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	conn, err := p.device.Dial(ctx, network, p.entityB)
	if err == nil {
		p.log.Debug("association opened", "peer", peer.String())
		return conn, nil
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil, err // we are told to stop
	}
	with := "Entity B"
	if errors.Is(err, saef.ErrMAF) {
		with = "the MAF"
	}
	attrs := []any{"peer", peer.String(), "with", with, "error", err.Error()}
	if known := (*advised)(nil); errors.As(handshakeFailure(err), &known) {
		attrs[len(attrs)-1] = known.Error()
		if known.hint != "" {
			attrs = append(attrs, "try", known.hint)
		}
	}
	p.log.Error("no association", attrs...)
	return nil, err
}

// streams carries TCP connections until ctx ends.
func (p *proxy) streams(ctx context.Context, listen string, listening func(net.Addr) error) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	if err := listening(l.Addr()); err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	places := make(chan struct{}, maxProxied) // those beyond wait in the kernel
	for {
		places <- struct{}{}
		local, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		all.Go(func() {
			p.stream(ctx, local.(*net.TCPConn))
			<-places
		})
	}
}

// stream carries one TCP connection. When one side has said all it has to say, the
// other is told so, and goes on.
func (p *proxy) stream(ctx context.Context, local *net.TCPConn) {
	defer local.Close()
	peer := local.RemoteAddr()
	conn, err := p.dial(ctx, "tcp", peer)
	if err != nil {
		local.SetLinger(0) // a reset: there was no answer, not even an empty one
		return
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { local.Close(); conn.Close() })()
	up := make(chan error, 1)
	go func() {
		err := pipe(conn, local)
		if err != nil {
			conn.Close()
		}
		up <- err
	}()
	down := pipe(local, conn)
	if down != nil {
		// The program must not take what was cut off for the whole.
		local.SetLinger(0)
		local.Close()
	}
	if err := cmp.Or(<-up, down); err != nil && ctx.Err() == nil {
		p.log.Info("connection cut", "peer", peer.String(), "error", err.Error())
	}
}

// pipe copies until src has ended, and tells dst.
func pipe(dst interface {
	io.Writer
	CloseWrite() error
}, src io.Reader) error {
	if _, err := io.Copy(dst, src); err != nil {
		return err
	}
	_ = dst.CloseWrite() // one that is gone already needs no telling
	return nil
}
