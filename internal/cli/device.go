package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// defaultMAFPort is mafd's own default.
const defaultMAFPort = "7443"

// deviceFlags describe an Entity A.
type deviceFlags struct {
	km      keySource
	maf     string
	mafDTLS bool
	suites  []string
	timeout time.Duration
}

func (f *deviceFlags) register(cmd *cobra.Command) {
	f.km.flags(cmd.Flags())
	cmd.Flags().StringVar(&f.maf, "maf", "", "the MAF's address, HOST:PORT (default the KmID's MAF-FQDN, port "+defaultMAFPort+")")
	cmd.Flags().StringSliceVar(&f.suites, "suite", nil, "cipher suites to offer, in order of preference (default all)")
	cmd.Flags().DurationVar(&f.timeout, "timeout", 10*time.Second, "how long a handshake may take")
}

// device makes the Entity A that the flags describe.
func (f *deviceFlags) device(a *app, id onem2m.KmID) (*saef.Device, error) {
	suites, err := parseSuites(f.suites)
	if err != nil {
		return nil, err
	}
	maf, err := address("--maf", cmp.Or(f.maf, net.JoinHostPort(id.FQDN.String(), defaultMAFPort)))
	if err != nil {
		return nil, err
	}
	km, err := f.km.read(a.stdin)
	if err != nil {
		return nil, err
	}
	return &saef.Device{
		MAF:        maf,
		MAFNetwork: network(f.mafDTLS),
		KmID:       id,
		Km:         km,
		Config:     &tlspsk.Config{CipherSuites: suites, HandshakeTimeout: f.timeout},
		Log:        slog.New(notes{a.out}),
	}, nil
}

// address checks a HOST:PORT from the command line. Names under .localhost, such
// as that of a mafd which nobody has configured, are this machine (RFC 6761
// section 6.3); Go's resolver knows only "localhost" itself.
func address(what, text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", usageError{fmt.Errorf("%s: %s is not HOST:PORT, such as 127.0.0.1:%s", what, quote(text), defaultMAFPort)}
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

func network(dtls bool) string {
	if dtls {
		return "udp"
	}
	return "tcp"
}

func parseSuites(names []string) ([]uint16, error) {
	var ids, all = []uint16(nil), map[string]uint16{}
	var known []string
	for _, s := range tlspsk.CipherSuites() {
		all[s.Name] = s.ID
		known = append(known, s.Name)
	}
	for _, name := range names {
		id, ok := all[strings.ToUpper(name)]
		if !ok {
			return nil, &advised{fmt.Errorf("there is no cipher suite %s here", quote(name)),
				"one of " + strings.Join(known, ", "), exitUsage}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// notes shows what a saef.Device does to people, as notes.
type notes struct{ out *output }

func (n notes) Enabled(context.Context, slog.Level) bool { return true }
func (n notes) WithAttrs([]slog.Attr) slog.Handler       { return n }
func (n notes) WithGroup(string) slog.Handler            { return n }

// Handle shows the message and whose key it is about, and all when something
// is wrong.
func (n notes) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "KcID" || r.Level >= slog.LevelWarn {
			fmt.Fprintf(&b, " %s", a.Value)
		}
		return true
	})
	n.out.note("%s", b.String())
	return nil
}

// handshakeFailure finds advice for an error of saef's, which says by itself
// whether the MAF or Entity B was the other side.
func handshakeFailure(err error) error {
	plain := errors.New(strings.NewReplacer("saef: ", "", "tlspsk: ", "").Replace(err.Error()))
	var alert *tlspsk.AlertError
	var op *net.OpError
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &alert) && alert.Remote:
		return &advised{plain, refusalAdvice(alert.Alert), exitRefused}
	case errors.As(err, &op) && op.Op == "dial", errors.Is(err, syscall.ECONNREFUSED):
		return &advised{plain, "check the address, and whether the other side runs", exitUnreachable}
	case isTimeout(err):
		return &advised{plain, "check the address, and whether the other side speaks TLS there or DTLS", exitUnreachable}
	default:
		return &advised{plain, "", exitFailed}
	}
}

func refusalAdvice(a tlspsk.Alert) string {
	switch a {
	case tlspsk.AlertBadRecordMAC, tlspsk.AlertDecryptError, tlspsk.AlertUnknownPSKIdentity:
		return "another name or key: one of them is wrong or disabled there. Its log says which; strangers are not told"
	case tlspsk.AlertHandshakeFailure, tlspsk.AlertInsufficientSecurity:
		return "other cipher suites, as there is none that both sides have; or another address, as this one may know no pre-shared keys"
	case tlspsk.AlertAccessDenied:
		return "again in a while: it knows this device, but gives it nothing for now. Its log says why"
	case tlspsk.AlertInternalError:
		return "again later, and look into its log"
	}
	return ""
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}
