// Command maf administers a mafd and is Entity A, the device, on the command
// line. "maf demo" shows what all this is for.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/onem2m-maf/maf/internal/cli"
	"github.com/onem2m-maf/maf/internal/harden"
)

func main() {
	// maf holds keys as mafd does, if for seconds only.
	if err := harden.Process(); err != nil {
		fmt.Fprintf(os.Stderr, "maf: %v\n", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
