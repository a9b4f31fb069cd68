package mafd

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/harden"
	"github.com/onem2m-maf/maf/internal/systemd"
	"github.com/onem2m-maf/maf/internal/version"
)

// Exit codes, see docs/cli-output.md.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `mafd is an M2M Authentication Function (oneM2M TS-0003 clause 8.2.2.3).

Usage: mafd [-config FILE] [-state FOLDER]

Without a configuration it serves maf.localhost on this machine's loopback
addresses, makes all it needs in the state folder, and says so.

`

// Main runs mafd with the arguments after the program's name, until it fails
// or is told to stop by SIGINT or SIGTERM, and returns its exit code.
func Main(args []string, stdout, stderr io.Writer) int {
	var configFile, state string
	var check, showVersion bool
	flags := flag.NewFlagSet("mafd", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&configFile, "config", "", "configuration `file` (see docs/mafd.toml)")
	flags.StringVar(&state, "state", "", "state `folder`, before what the configuration says (default $STATE_DIRECTORY, else ~/.local/state/mafd)")
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
		fmt.Fprintf(stderr, "mafd: there is no argument %q\n  try: mafd -help\n", flags.Arg(0))
		return exitUsage
	case showVersion:
		fmt.Fprintln(stdout, version.String())
		return exitOK
	}
	config, err := loadConfig(configFile, state)
	if err == nil && check {
		_, _, err = config.keyAPIFiles()
	}
	if err != nil {
		fmt.Fprintf(stderr, "mafd: the configuration does not work\n%v\n", err)
		return exitUsage
	}
	if check {
		fmt.Fprintln(stdout, "the configuration is good")
		return exitOK
	}
	load := func() (Config, error) {
		if configFile == "" {
			return config, errors.New("mafd was started without a configuration file; there is nothing to read again")
		}
		return loadConfig(configFile, state)
	}
	if err := run(config, load, stderr); err != nil {
		fmt.Fprintf(stderr, "mafd: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// loadConfig puts together the defaults, the file, if any, and the flag.
func loadConfig(file, state string) (Config, error) {
	c := Defaults()
	if file != "" {
		if err := c.LoadFile(file); err != nil {
			return c, err
		}
	}
	c.State = cmp.Or(state, c.State)
	if c.State == "" {
		dir, err := adminapi.DefaultState()
		if err != nil {
			return c, fmt.Errorf("%w; name a state folder with -state", err)
		}
		c.State = dir
	}
	var err error
	if c.State, err = filepath.Abs(c.State); err != nil {
		return c, err
	}
	return c, c.Validate(file)
}

// run serves until told to stop. load reads the configuration again.
func run(config Config, load func() (Config, error), stderr io.Writer) (err error) {
	if err := harden.Process(); err != nil {
		return err
	}
	unix.Umask(0o077) // whatever is made here is nobody else's
	if config.Sockets, err = systemd.Sockets(); err != nil {
		return err
	}
	log, level := newLog(config.Log, stderr)
	// Who reads the log may go away; the MAF stays.
	signal.Ignore(syscall.SIGPIPE)
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(stop)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP) // before anybody can be told that it serves
	defer signal.Stop(hangup)

	d, err := Start(context.Background(), config, log)
	if err != nil {
		return err
	}
	if text := d.firstStart(); text != "" {
		fmt.Fprint(stderr, text)
	}
	manager := newManager(d, log)
	manager.tell(systemd.Ready, systemd.Status(d.status()))
	failure := d.until(stop, hangup, manager, func() { d.reload(load, level) })
	manager.tell(systemd.Stopping, systemd.Status("stopping"))
	ctx, cancel := context.WithTimeout(context.Background(), d.grace())
	defer cancel()
	go func() { // asked twice, it doesn't wait for anyone
		<-stop
		cancel()
	}()
	return errors.Join(failure, d.Stop(ctx))
}

// newLog returns the log, and how much is in it.
func newLog(c LogConfig, w io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	level.Set(c.Level)
	options := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), level
	}
	return slog.New(slog.NewTextHandler(w, options)), level
}
