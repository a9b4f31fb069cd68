package cli

import (
	"encoding/hex"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

func (a *app) handshakeCommand() *cobra.Command {
	var (
		f       deviceFlags
		kcFile  string
		showKey bool
	)
	cmd := &cobra.Command{
		Use:   "handshake KmID",
		Short: "Be a device: get a connection key (Kc) from the MAF",
		Long: `Do a MAF Handshake as Entity A, and print the identifier of the connection key
(KcID) that comes of it. The MAF has it in its store by then.

The master key (Km) comes from --km-file or $` + kmVariable + `, not from the command line.`,
		Example: `  maf handshake meter7@maf.localhost --maf 127.0.0.1:7443 --km-file meter7.key
  maf handshake meter7@maf.localhost --maf 127.0.0.1:7443 --km-file meter7.key --dtls --kc-file meter7.kc`,
		Args: arguments(1, 1, "the KmID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id onem2m.KmID
			if err := parse("the KmID", args[0], &id); err != nil {
				return usageError{err}
			}
			device, err := f.device(a, id)
			if err != nil {
				return err
			}
			device.Log = nil // what it would tell is the result
			begin := time.Now()
			key, err := device.Handshake(cmd.Context())
			if err != nil {
				return handshakeFailure(err)
			}
			took := time.Since(begin)
			if kcFile != "" {
				if err := saef.FileCache(kcFile).Store(id, key); err != nil {
					return err
				}
			}
			return a.printKey(id, key, took, showKey, kcFile)
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&f.mafDTLS, "dtls", false, "over DTLS (UDP) instead of TLS")
	cmd.Flags().BoolVar(&showKey, "show-key", false, "print Kc as well")
	cmd.Flags().StringVar(&kcFile, "kc-file", "", `write Kc to this file, for "maf connect"`)
	return cmd
}

func (a *app) printKey(id onem2m.KmID, key saef.Key, took time.Duration, show bool, file string) error {
	v := struct {
		KmID        onem2m.KmID `json:"kmID"`
		KcID        onem2m.KcID `json:"kcID"`
		Kc          string      `json:"kc,omitempty"` // hexadecimal
		File        string      `json:"file,omitempty"`
		Established time.Time   `json:"established"`
		Millis      float64     `json:"milliseconds"`
	}{KmID: id, KcID: key.KcID, File: file, Established: key.Established.UTC(), Millis: float64(took.Microseconds()) / 1000}
	if show {
		v.Kc = hex.EncodeToString(key.Kc.Bytes())
	}
	return a.out.result(v,
		field{"KcID", key.KcID.String()},
		field{"Kc", v.Kc},
		field{"in file", file},
		field{"took", took.Round(100 * time.Microsecond).String()})
}
