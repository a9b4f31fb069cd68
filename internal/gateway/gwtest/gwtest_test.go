package gwtest

import (
	"testing"

	"github.com/onem2m-maf/maf/saef"
)

// Each kind of device gets an association over each network, and Entity B
// learns what the MAF knows of it.
func TestAssociations(t *testing.T) {
	site := New(t)
	for peer, device := range map[string]*saef.Device{
		"//sp.example.com/in-cse/Cmeter7": site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"),
		"//sp.example.com/mn-cse":         site.CSE("hall", "//sp.example.com/mn-cse"),
		"11-lamp@maf.example.com":         site.Unnamed("lamp"),
	} {
		for _, network := range []string{"tcp", "udp"} {
			l := site.Listen(network)
			c, err := device.Dial(t.Context(), network, l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := l.AcceptAssociation()
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			if got.Association().Peer() != peer {
				t.Errorf("over %s: %s, want %s", network, got.Association().Peer(), peer)
			}
		}
	}
}
