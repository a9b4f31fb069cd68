package interop

import (
	"flag"
	"log"
	"os"
	"testing"
)

// scratch is a folder for what several tests share.
var scratch string

// TestMain runs more tests at once than there are processors: most of a test's time is
// another process's, or a retransmission timer's.
func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		flag.Set("test.parallel", "8")
	}
	var err error
	if scratch, err = os.MkdirTemp("", "maf-interop-"); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	os.RemoveAll(scratch)
	os.Exit(code)
}
