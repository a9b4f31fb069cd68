package mafd

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asProcess, when set in the environment, makes the test's program a mafd: so
// that a test can have one as a process of its own, and kill it.
const asProcess = "MAFD_TEST_PROCESS"

func TestMain(m *testing.M) {
	if os.Getenv(asProcess) != "" {
		os.Exit(Main(os.Args[1:], os.Stdout, os.Stderr))
	}
	goleak.VerifyTestMain(m)
}
