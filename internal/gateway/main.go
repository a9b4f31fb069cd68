package gateway

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/harden"
	"github.com/onem2m-maf/maf/internal/version"
)

// Exit codes, see docs/cli-output.md.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `mafgw lets devices reach a CSE through associations with keys from a MAF
(oneM2M TS-0003 clause 8.2.2.3), and lets none of them speak as another.

Usage: mafgw -config FILE [-check]

docs/gateway.md has a working configuration for each of some well-known CSEs.

`

// Main runs mafgw with the arguments after the program's name, until it fails
// or is told to stop by SIGINT or SIGTERM, and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	var file string
	var check, showVersion bool
	flags := flag.NewFlagSet("mafgw", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&file, "config", "", "configuration `file` (see docs/mafgw.toml)")
	flags.BoolVar(&check, "check", false, "check the configuration and end")
	flags.BoolVar(&showVersion, "version", false, "print the version and end")
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage // the flag package has said why
	case flags.NArg() > 0:
		fmt.Fprintf(stderr, "mafgw: there is no argument %q\n  try: mafgw -help\n", flags.Arg(0))
		return exitUsage
	case showVersion:
		fmt.Fprintln(stdout, version.String())
		return exitOK
	case file == "":
		fmt.Fprintln(stderr, "mafgw: it needs a configuration: which CSE it stands before, and where its MAF is\n  try: mafgw -config mafgw.toml; docs/gateway.md has examples")
		return exitUsage
	}
	// Before the first key is read.
	if err := harden.Process(); err != nil {
		fmt.Fprintf(stderr, "mafgw: %v\n", err)
		return exitFailed
	}
	config, err := loadConfig(file)
	if err != nil {
		fmt.Fprintf(stderr, "mafgw: the configuration does not work\n%v\n", err)
		return exitUsage
	}
	if check {
		fmt.Fprintln(stdout, "the configuration is good")
		return exitOK
	}
	if err := run(config, stderr); err != nil {
		fmt.Fprintf(stderr, "mafgw: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// loadConfig reads a configuration, and tries what needs nothing but itself
// and the files it names.
func loadConfig(file string) (Config, error) {
	c := Defaults()
	if err := c.LoadFile(file); err != nil {
		return c, err
	}
	if c.State == "" {
		if c.State = os.Getenv("STATE_DIRECTORY"); c.State == "" {
			return c, fmt.Errorf("%s: state is missing; name a folder for what the gateway has to remember", file)
		}
	}
	if _, err := policy.New(c.policy(nil)); err != nil {
		return c, fmt.Errorf("%s: %w", file, err)
	}
	files := c.files()
	if _, _, _, err := files.load(); err != nil {
		return c, fmt.Errorf("%s: certificate, key and ca: %w", file, err)
	}
	if _, err := c.MQTT.broker(); err != nil {
		return c, fmt.Errorf("%s: mqtt.%w", file, err)
	}
	return c, nil
}

// run serves until told to stop.
func run(config Config, stderr io.Writer) error {
	unix.Umask(0o077) // whatever is made here is nobody else's
	log := newLog(config.Log, stderr)
	// Who reads the log may go away; the gateway stays.
	signal.Ignore(syscall.SIGPIPE)
	signal.Ignore(syscall.SIGHUP) // until there is something to reload
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(stop)

	g, err := Start(config, log)
	if err != nil {
		return err
	}
	signal.Notify(g.reloads, syscall.SIGHUP)
	defer signal.Stop(g.reloads)
	var failure error
	select {
	case s := <-stop:
		log.Info("stopping", "signal", s.String())
	case failure = <-g.failed:
		log.Error("stopping", "error", failure.Error())
	}
	ctx, cancel := context.WithTimeout(context.Background(), config.ShutdownGrace)
	defer cancel()
	go func() { // asked twice, it doesn't wait for anyone
		<-stop
		cancel()
	}()
	return errors.Join(failure, g.Stop(ctx))
}

func newLog(c LogConfig, w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.Level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
