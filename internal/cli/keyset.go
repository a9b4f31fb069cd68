package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

func (a *app) keysetCommand() *cobra.Command {
	cmd := group("keyset", "The keys that the keys in the store are encrypted with",
		a.keysetList(), a.keysetStatus(), a.keysetAdd(), a.keysetPromote(), a.keysetRewrap(), a.keysetRetire(), a.keysetProtect())
	cmd.Long = `The keyset encrypts all keys in mafd's store. One of its keys, the primary, encrypts;
all of them decrypt. To replace the primary, while mafd serves:

  maf keyset add               a new key; with nodes that have copies of the
                               keyset's file, copy it to all of them now
  maf keyset promote ID        the new key encrypts from now on
  maf keyset rewrap --wait     what was encrypted before, except for connection
                               keys, which expire by themselves
  maf keyset retire OLD-ID     refused while anything needs the old key`
	a.socketFlag(cmd)
	return cmd
}

func (a *app) keysetList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys, and how many rows of the store need each",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keyset, err := a.keyset(cmd.Context())
			if err != nil {
				return err
			}
			rows := newTable(a.out.stdout, "ID", "STATE", "CREATED", "MASTER KEYS", "CONNECTION KEYS", "THE LAST EXPIRES")
			for _, k := range keyset.Keys {
				if a.out.json {
					err = a.out.result(k)
				} else {
					err = rows.row(keysetID(k.ID), k.State, cmp.Or(stamp(k.Created), "-"),
						strconv.Itoa(k.MasterKeys), strconv.Itoa(k.ConnectionKeys), cmp.Or(stamp(k.LastExpiry), "-"))
				}
				if err != nil {
					return err
				}
			}
			if keyset.Unknown > 0 {
				a.out.note("%d rows name a key that is not in the keyset; they are lost unless it comes back from a backup.", keyset.Unknown)
			}
			if a.out.json {
				return nil
			}
			return rows.flush()
		},
	}
}

func (a *app) keysetStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show what protects the keyset's file, and how far a rewrap has come",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keyset, err := a.keyset(cmd.Context())
			if err != nil {
				return err
			}
			fields := []field{{"file", protection(keyset.Protection)}, {"keys", strconv.Itoa(len(keyset.Keys))}}
			if keyset.Configured != keyset.Protection {
				fields = append(fields, field{"configured", protection(keyset.Configured) + ` ("maf keyset protect" makes it so)`})
			}
			if keyset.Unknown > 0 {
				fields = append(fields, field{"rows of other keys", strconv.Itoa(keyset.Unknown)})
			}
			return a.out.result(keyset, append(fields, rewrapFields(keyset.Rewrap)...)...)
		},
	}
}

func protection(kek string) string {
	if kek == "" {
		return "in the clear"
	}
	return "encrypted with " + kek
}

func (a *app) keysetAdd() *cobra.Command {
	return &cobra.Command{
		Use:   "add",
		Short: "Add a key, which encrypts nothing before it is promoted",
		Args:  arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			admin, err := a.admin()
			if err != nil {
				return err
			}
			key, err := admin.AddKeysetKey(cmd.Context())
			if err != nil {
				return err
			}
			return a.out.result(key, field{"added", keysetID(key.ID)})
		},
	}
}

func (a *app) keysetPromote() *cobra.Command {
	return a.keysetChange("promote", "promoted", "Make a key the one that encrypts", `Make a key the one that encrypts, at once and at every node that shares the
keyset's file. Nodes with copies of it must have the key already.`, (*adminapi.Admin).PromoteKeysetKey)
}

func (a *app) keysetRetire() *cobra.Command {
	return a.keysetChange("retire", "retired", "Destroy a key that nothing needs any more", `Destroy a key. It is refused for the primary, for a minute after another key was
promoted, and while a master key, or a connection key that has not expired, is
encrypted with it.

Backups of the store from before the rewrap can't be read any more, except with a
backup of the keyset from then.`, (*adminapi.Admin).RetireKeysetKey)
}

// keysetChange is a command that does something with one key.
func (a *app) keysetChange(verb, done, short, long string, do func(*adminapi.Admin, context.Context, uint32) error) *cobra.Command {
	return &cobra.Command{
		Use:   verb + " ID",
		Short: short,
		Long:  long,
		Args:  arguments(1, 1, "the key's ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil {
				return usageError{fmt.Errorf("%s is not the ID of a key", quote(args[0]))}
			}
			admin, err := a.admin()
			if err != nil {
				return err
			}
			if err := do(admin, cmd.Context(), uint32(id)); err != nil {
				return keysetAdvice(err)
			}
			return a.out.result(map[string]any{"id": id, done: true}, field{done, keysetID(uint32(id))})
		},
	}
}

// keysetAdvice adds hints that differ from those about clients.
func keysetAdvice(err error) error {
	if errors.Is(err, adminapi.CodeNotFound) || errors.Is(err, adminapi.CodeInUse) {
		return &advised{err, `"maf keyset list" shows all keys, and what needs them`, exitRefused}
	}
	return err
}

func (a *app) keysetRewrap() *cobra.Command {
	var rate int
	var wait bool
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Encrypt all master keys with the primary",
		Long: `Encrypt all master keys with the primary. It goes on in the background, also over
a restart of mafd, and no handshake notices. "maf keyset status" tells how far it is.
Given again while it runs, it goes on at the new rate.`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if rate < 1 {
				return usageError{errors.New("--rate is below 1")}
			}
			admin, err := a.admin()
			if err != nil {
				return err
			}
			r, err := admin.StartRewrap(cmd.Context(), adminapi.NewRewrap{Rate: rate})
			if err != nil {
				return err
			}
			if wait {
				if r, err = a.waitForRewrap(cmd.Context(), admin); err != nil {
					return err
				}
			}
			if err := a.out.result(r, rewrapFields(r)...); err != nil {
				return err
			}
			if wait && r.Failed > 0 {
				return &advised{fmt.Errorf("%d clients could not be rewrapped, %v among them: their rows were damaged or tampered with", r.Failed, r.FirstFailed),
					"restore them from a backup, or remove them and add them anew", exitFailed}
			}
			return nil
		},
	}
	cmd.Flags().IntVar(&rate, "rate", adminapi.DefaultRewrapRate, "at most so many in a second")
	cmd.Flags().BoolVar(&wait, "wait", false, "end when it has ended")
	return cmd
}

// waitForRewrap asks every now and then. Interrupted, it leaves the rewrap alone.
func (a *app) waitForRewrap(ctx context.Context, admin *adminapi.Admin) (adminapi.Rewrap, error) {
	pause := 50 * time.Millisecond
	told := time.Now()
	for {
		r, err := admin.Rewrap(ctx)
		if err != nil || !r.Running {
			return r, err
		}
		if time.Since(told) >= 2*time.Second {
			told = time.Now()
			a.out.note("%d clients seen, %d rewrapped%s", r.Seen, r.Rewrapped, trouble(r))
		}
		select {
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

func trouble(r adminapi.Rewrap) string {
	if r.Trouble == "" {
		return ""
	}
	return "; it waits: " + r.Trouble
}

func rewrapFields(r adminapi.Rewrap) []field {
	if r.Started.IsZero() {
		return nil
	}
	state := "done " + stamp(r.Ended)
	if r.Running {
		state = fmt.Sprintf("running since %s, at most %d in a second%s", stamp(r.Started), r.Rate, trouble(r))
	}
	fields := []field{{"rewrap", state}, {"clients seen", strconv.Itoa(r.Seen)}, {"rewrapped", strconv.Itoa(r.Rewrapped)}}
	if r.Failed > 0 {
		fields = append(fields, field{"failed", strconv.Itoa(r.Failed)})
	}
	return fields
}

func (a *app) keysetProtect() *cobra.Command {
	return &cobra.Command{
		Use:   "protect",
		Short: "Encrypt the keyset's file as mafd's configuration says",
		Long: `Write the keyset's file anew, encrypted with the key-encryption key that mafd's
configuration names (keyset.kek), or in the clear where it names none. What was
written before may still lie on the disk and in backups: replace the primary
afterwards ("maf keyset --help").`,
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			admin, err := a.admin()
			if err != nil {
				return err
			}
			if err := admin.ProtectKeyset(cmd.Context()); err != nil {
				return err
			}
			keyset, err := admin.Keyset(cmd.Context())
			if err != nil {
				return err
			}
			return a.out.result(map[string]string{"protection": keyset.Protection}, field{"file", protection(keyset.Protection)})
		},
	}
}

func (a *app) keyset(ctx context.Context) (adminapi.Keyset, error) {
	admin, err := a.admin()
	if err != nil {
		return adminapi.Keyset{}, err
	}
	return admin.Keyset(ctx)
}

func keysetID(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
