// Command mafgw stands in front of an IN-CSE as Entity B of oneM2M TS-0003: it
// accepts associations with keys from a MAF, and lets no device speak as another.
package main

import (
	"os"

	"github.com/onem2m-maf/maf/internal/gateway"
)

func main() { os.Exit(gateway.Main(os.Args[1:], os.Stdout, os.Stderr)) }
