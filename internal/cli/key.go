package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/onem2m"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := group("key", "Connection keys (Kc) that the MAF has issued", a.keyRevoke())
	a.socketFlag(cmd)
	return cmd
}

func (a *app) keyRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke KcID...",
		Short: "End connection keys before their time",
		Long: `End connection keys (Kc) before their time. Their Entity B is told at once, ends
the associations that go by them, and gets them no more.

The device makes itself a new key when it comes again. To keep it out, disable it:
maf client disable.`,
		Args: arguments(1, -1, "the KcID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ids := make([]onem2m.KcID, len(args))
			for i, arg := range args {
				if err := parse("the KcID", arg, &ids[i]); err != nil {
					return usageError{err}
				}
			}
			admin, err := a.admin()
			if err != nil {
				return err
			}
			for _, id := range ids {
				if err := admin.RevokeKey(cmd.Context(), id); err != nil {
					return fmt.Errorf("%s: %w", id, err)
				}
				err := a.out.result(struct {
					KcID    onem2m.KcID `json:"kcID"`
					Revoked bool        `json:"revoked"`
				}{id, true}, field{"revoked", id.String()})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
}
