package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what mafd serves, and where",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			admin, err := a.admin()
			if err != nil {
				return err
			}
			s, err := admin.Status(cmd.Context())
			if err != nil {
				return err
			}
			var names []string
			for _, fqdn := range s.FQDNs {
				names = append(names, fqdn.String())
			}
			return a.out.result(s,
				field{"serves", strings.Join(names, ", ")},
				field{"TLS", strings.Join(s.TLS, ", ")},
				field{"DTLS", strings.Join(s.DTLS, ", ")},
				field{"key API", strings.Join(s.KeyAPI, ", ")},
				field{"key API's CA", s.CA},
				field{"state", s.State},
				field{"version", s.Version})
		},
	}
	a.socketFlag(cmd)
	return cmd
}
