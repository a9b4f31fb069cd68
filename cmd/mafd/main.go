// Command mafd is the M2M Authentication Function of oneM2M TS-0003: devices
// get their connection keys from it, and Entity Bs fetch them here.
package main

import (
	"os"

	"github.com/onem2m-maf/maf/internal/mafd"
)

func main() { os.Exit(mafd.Main(os.Args[1:], os.Stdout, os.Stderr)) }
