package deployment

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/onem2m-maf/maf/internal/cli"
	"github.com/onem2m-maf/maf/internal/gateway"
	"github.com/onem2m-maf/maf/internal/mafd"
)

// programEnv makes this test binary one of the programs.
const programEnv = "MAF_DEPLOYMENT_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(programEnv) {
	case "mafd":
		os.Exit(mafd.Main(os.Args[1:], os.Stdout, os.Stderr))
	case "mafgw":
		os.Exit(gateway.Main(os.Args[1:], os.Stdout, os.Stderr))
	case "cse":
		serveCSE()
	case "maf":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}
