// Command maf administers a mafd and is Entity A, the device, on the command
// line. "maf demo" shows what all this is for.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/onem2m-maf/maf/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
