package cli

import (
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/demo"
	"github.com/onem2m-maf/maf/onem2m"
)

func (a *app) demoCommand() *cobra.Command {
	var mafd string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See in some seconds what all this is for",
		Long: `Play the whole flow with the real programs on this machine: a device gets a key
from a MAF and opens an association with a platform that has never met it, and
some who have no right to do so try as well. Nothing is left behind.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			self, err := os.Executable()
			if err != nil {
				return err
			}
			// With "maf demo | head" there is still a folder to remove.
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGPIPE)
			defer stop()
			err = demo.Run(ctx, demo.Options{
				Maf: self, Mafd: mafd, Out: a.out.stdout, Progress: a.out.stderr,
				Colour: a.out.colour, JSON: a.out.json,
			})
			if errors.Is(err, demo.ErrNoMafd) {
				return &advised{err, "go install github.com/onem2m-maf/maf/cmd/mafd@latest, or name it with --mafd", exitFailed}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&mafd, "mafd", "", "the mafd program (default: the one beside maf)")
	return cmd
}

// demoPlatform is Entity B in the demo, which starts it as a process.
func (a *app) demoPlatform() *cobra.Command {
	return &cobra.Command{
		Use:    demo.PlatformCommand + " FOLDER MAF-FQDN KEY-API-URL",
		Hidden: true,
		Args:   cobra.ExactArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			maf, err := onem2m.ParseFQDN(args[1])
			if err != nil {
				return err
			}
			return demo.Platform(cmd.Context(), args[0], maf, args[2], a.out.stdout)
		},
	}
}
