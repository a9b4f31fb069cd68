//go:build !unix

package httpgw

import "net"

// A probe can't tell here whether an idle connection can be used again. A
// request that finds it closed fails, unless it is a RETRIEVE, which is repeated.
type probe struct{}

func newProbe(net.Conn) probe { return probe{} }

func (*probe) isAlive() bool { return true }
