package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
)

func (a *app) clientCommand() *cobra.Command {
	cmd := group("client", "Devices and their master keys",
		a.clientAdd(), a.clientList(), a.clientShow(), a.clientRemove(),
		a.clientImport(), a.clientExport(), a.clientGenerate(),
		a.clientSwitch("enable", false, "Let devices in again"),
		a.clientSwitch("disable", true, "Keep devices out, and their keys from being released, until enabled"))
	a.socketFlag(cmd)
	return cmd
}

func (a *app) clientAdd() *cobra.Command {
	var (
		entityB, aeID, cseID string
		lifetime             time.Duration
		disabled             bool
		km                   keySource
		kmOut                string
	)
	cmd := &cobra.Command{
		Use:   "add KmID --entity-b CSE-ID",
		Short: "Give a device its master key",
		Long: `Give a device its master key (Km), and say which Entity B it may reach.

KmID is the device's name at the MAF: NAME@MAF-FQDN, such as meter7@maf.localhost.
Without --km-file mafd makes a key of 32 octets and shows it this once.`,
		Example: `  maf client add meter7@maf.localhost --entity-b //sp.example.com/in-cse
  maf client add meter7@maf.localhost --entity-b //sp.example.com/in-cse --ae-id Smeter7 --km-file key.hex`,
		Args: arguments(1, 1, "the KmID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := adminapi.NewClient{Client: adminapi.Client{Lifetime: adminapi.Duration(lifetime), Disabled: disabled}}
			err := errors.Join(
				parse("the KmID", args[0], &c.KmID),
				parse("--entity-b", entityB, &c.EntityB),
				parse("--ae-id", aeID, &c.AEID),
				parse("--cse-id", cseID, &c.CSEID))
			if err != nil {
				return usageError{err}
			}
			if km.given() {
				if c.Km.Key, err = km.read(a.stdin); err != nil {
					return err
				}
			}
			return a.addClient(cmd, c, kmOut)
		},
	}
	f := cmd.Flags()
	f.StringVar(&entityB, "entity-b", "", "absolute CSE-ID of the one Entity B that the device may reach")
	f.StringVar(&aeID, "ae-id", "", "the device's AE-ID, if known: Entity B is told")
	f.StringVar(&cseID, "cse-id", "", "the device's CSE-ID, if it is a CSE: Entity B is told")
	f.DurationVar(&lifetime, "lifetime", 0, "how long each connection key (Kc) is good for (default: mafd's)")
	f.BoolVar(&disabled, "disabled", false, "don't let it in yet")
	f.StringVar(&kmOut, "km-out", "", "write the key that mafd makes to this new file instead of showing it")
	km.flags(f)
	cmd.MarkFlagRequired("entity-b")
	cmd.MarkFlagsMutuallyExclusive("ae-id", "cse-id")
	cmd.MarkFlagsMutuallyExclusive("km-out", "km-file")
	cmd.MarkFlagsMutuallyExclusive("km-out", "insecure-km")
	return cmd
}

func (a *app) addClient(cmd *cobra.Command, c adminapi.NewClient, kmOut string) error {
	admin, err := a.admin()
	if err != nil {
		return err
	}
	// The file is made first: a key that can't be written anywhere is lost.
	var out *keyFile
	if kmOut != "" {
		if out, err = newKeyFile(kmOut); err != nil {
			return err
		}
		defer out.abandon()
	}
	made, err := admin.Add(cmd.Context(), c)
	if err != nil {
		return err
	}
	fields := clientFields(made.Client)
	if !made.Km.IsZero() {
		text := fmt.Sprintf("%x", made.Km.Bytes())
		if out != nil {
			if err := out.write(text + "\n"); err != nil {
				return fmt.Errorf("the client was added but its key is lost (%w); remove it and add it again", err)
			}
			text = "in " + kmOut
			made.Km = adminapi.Key{}
		} else {
			a.out.note("This is the only time that the key (Km) is shown.")
		}
		fields = append(fields, field{"Km", text})
	}
	return a.out.result(made, fields...)
}

func (a *app) clientShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show KmID",
		Short: "Show all about a device but its key",
		Args:  arguments(1, 1, "the KmID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachClient(cmd, args, func(admin *adminapi.Admin, id onem2m.KmID) error {
				c, err := admin.Get(cmd.Context(), id)
				if err != nil {
					return err
				}
				return a.out.result(c, clientFields(c)...)
			})
		},
	}
}

func (a *app) clientRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove KmID...",
		Short: "Remove devices with all their keys",
		Args:  arguments(1, -1, "the KmID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachClient(cmd, args, func(admin *adminapi.Admin, id onem2m.KmID) error {
				if err := admin.Remove(cmd.Context(), id); err != nil {
					return err
				}
				return a.out.result(struct {
					KmID    onem2m.KmID `json:"kmID"`
					Removed bool        `json:"removed"`
				}{id, true}, field{"removed", id.String()})
			})
		},
	}
}

func (a *app) clientSwitch(verb string, disabled bool, short string) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " KmID...",
		Short: short,
		Args:  arguments(1, -1, "the KmID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.eachClient(cmd, args, func(admin *adminapi.Admin, id onem2m.KmID) error {
				c, err := admin.Change(cmd.Context(), id, adminapi.ClientChange{Disabled: &disabled})
				if err != nil {
					return err
				}
				return a.out.result(c, field{state(c), c.KmID.String()})
			})
		},
	}
}

// eachClient reads all KmIDs, so that a wrong one changes nothing, and then
// calls do on each until one fails.
func (a *app) eachClient(cmd *cobra.Command, args []string, do func(*adminapi.Admin, onem2m.KmID) error) error {
	ids := make([]onem2m.KmID, len(args))
	for i, arg := range args {
		if err := parse("the KmID", arg, &ids[i]); err != nil {
			return usageError{err}
		}
	}
	admin, err := a.admin()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := do(admin, id); err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	return nil
}

func clientFields(c adminapi.Client) []field {
	return []field{
		{"KmID", c.KmID.String()},
		{"entity B", c.EntityB.String()},
		{"AE-ID", c.AEID.String()},
		{"CSE-ID", c.CSEID.String()},
		{"Kc lifetime", c.Lifetime.String()},
		{"state", state(c)},
		{"created", stamp(c.Created)},
	}
}

// identity is what Entity B will know the device as.
func identity(c adminapi.Client) string {
	switch {
	case !c.AEID.IsZero():
		return c.AEID.String()
	case !c.CSEID.IsZero():
		return c.CSEID.String()
	default:
		return c.KmID.CredentialID().String()
	}
}

func state(c adminapi.Client) string {
	if c.Disabled {
		return "disabled"
	}
	return "enabled"
}

// parse reads an identifier; the empty text leaves it zero.
func parse(what, text string, id interface{ UnmarshalText([]byte) error }) error {
	if err := id.UnmarshalText([]byte(text)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
