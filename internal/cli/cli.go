// Package cli is the maf command line tool, which cmd/maf wraps. What it
// prints follows docs/cli-output.md.
package cli

import (
	"context"
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/version"
)

// Main runs maf with the arguments after the program's name and returns its
// exit code. It stops early when ctx ends.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	app := &app{stdin: stdin, out: newOutput(stdout, stderr)}
	root := app.root()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	return app.out.failure(advise(cmd, err))
}

// app is what all commands share.
type app struct {
	stdin  io.Reader
	out    *output
	socket string // --socket
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "maf",
		Short: "Work with an M2M Authentication Function (oneM2M TS-0003)",
		Long: `maf administers a running mafd, and is Entity A, the device, on the command line.

Never heard of oneM2M? Run "maf demo": it shows in some seconds what this is for.`,
		Version:       version.String(),
		SilenceErrors: true, // Main prints them, by the rules
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // for groupOnly to complain about
		RunE:          groupOnly,
	}
	root.PersistentFlags().BoolVar(&a.out.json, "json", false, "print JSON for programs")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(a.clientCommand(), a.keyCommand(), a.keysetCommand(), a.entityBCommand(), a.auditCommand(), a.statusCommand(),
		a.handshakeCommand(), a.connectCommand(), a.proxyCommand(), a.demoCommand(), a.demoPlatform())
	return root
}

// admin returns the admin API of the mafd that --socket, the environment or
// the default names.
func (a *app) admin() (*adminapi.Admin, error) {
	if a.socket != "" {
		return adminapi.Open(a.socket), nil
	}
	socket, err := adminapi.DefaultSocket()
	if err != nil {
		return nil, err
	}
	return adminapi.Open(socket), nil
}

// socketFlag adds --socket to a command and those below it.
func (a *app) socketFlag(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&a.socket, "socket", "",
		"mafd's admin socket (default $"+adminapi.SocketVariable+", else in mafd's default state folder)")
}

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, RunE: groupOnly}
	cmd.AddCommand(commands...)
	return cmd
}

func groupOnly(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{errors.New("there is no command " + quote(cmd.CommandPath()+" "+args[0]))}
	}
	return cmd.Help()
}

// arguments demands at least min and at most max arguments (max < 0: any
// number), which are called what.
func arguments(min, max int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return usageError{errors.New(what + " is missing")}
		case max >= 0 && len(args) > max:
			return usageError{errors.New("one argument too many: " + quote(args[max]))}
		}
		return nil
	}
}
