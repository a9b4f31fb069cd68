package cli

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// maxLine is the longest line that "connect --dtls" sends as a datagram; what a
// datagram carries is less still.
const maxLine = 64 << 10

func (a *app) connectCommand() *cobra.Command {
	var (
		f      deviceFlags
		as     string
		dtls   bool
		kcFile string
		wait   time.Duration
	)
	cmd := &cobra.Command{
		Use:   "connect HOST:PORT --as KmID",
		Short: "Be a device: open an association with Entity B and talk through it",
		Long: `Open an association with an Entity B as Entity A, send it standard input, and
print what it sends. A connection key (Kc) is got from the MAF when there is none
or when Entity B refuses it. With --kc-file it is kept for the next time.

Over DTLS each line is one datagram.`,
		Example: `  echo hello | maf connect in-cse.example.com:8443 --as meter7@maf.example.com --km-file meter7.key`,
		Args:    arguments(1, 1, "the address of Entity B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id onem2m.KmID
			if err := parse("--as", as, &id); err != nil {
				return usageError{err}
			}
			if f.km.file == "-" {
				return usageError{errors.New("standard input is what is sent, so the key can't come from it")}
			}
			entityB, err := address("the address of Entity B", args[0])
			if err != nil {
				return err
			}
			device, err := f.device(a, id)
			if err != nil {
				return err
			}
			if kcFile != "" {
				device.Cache = saef.FileCache(kcFile)
			}
			conn, err := device.Dial(cmd.Context(), network(dtls), entityB)
			if err != nil {
				return handshakeFailure(err)
			}
			defer conn.Close()
			a.out.note("connected to %s with %s", entityB, tlspsk.CipherSuiteName(conn.ConnectionState().CipherSuite))
			return a.talk(cmd.Context(), conn, dtls, wait)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&as, "as", "", "the device's KmID")
	flags.BoolVar(&dtls, "dtls", false, "the association over DTLS (UDP) instead of TLS")
	flags.BoolVar(&f.mafDTLS, "maf-dtls", false, "the MAF Handshake over DTLS (UDP) instead of TLS")
	flags.StringVar(&kcFile, "kc-file", "", "keep Kc in this file, and use the one that is there")
	flags.DurationVar(&wait, "wait", 0, "how long to go on reading after standard input has ended (default: over DTLS 1s, else until the other side closes)")
	cmd.MarkFlagRequired("as")
	return cmd
}

// talk copies both ways until the other side closes, or until wait has passed
// since standard input ended.
func (a *app) talk(ctx context.Context, conn *tlspsk.Conn, dtls bool, wait time.Duration) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if dtls && wait == 0 {
		wait = time.Second // nothing tells the end of what comes
	}
	sent := make(chan error, 1)
	go func() {
		err := a.send(conn, dtls)
		if wait > 0 {
			conn.SetReadDeadline(time.Now().Add(wait))
		}
		sent <- err
	}()
	_, err := io.Copy(a.out.stdout, conn)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	select {
	case sendErr := <-sent:
		return errors.Join(sendErr, err)
	default: // The other side has closed. Standard input may never end.
		return err
	}
}

// send copies standard input to conn, and says over TLS that it has ended.
func (a *app) send(conn *tlspsk.Conn, dtls bool) error {
	if !dtls {
		if _, err := io.Copy(conn, a.stdin); err != nil {
			return err
		}
		return conn.CloseWrite()
	}
	lines := bufio.NewScanner(a.stdin)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if _, err := conn.Write(slices.Concat(lines.Bytes(), []byte("\n"))); err != nil {
			return err
		}
	}
	return lines.Err()
}
