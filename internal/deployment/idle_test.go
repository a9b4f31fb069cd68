package deployment

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
)

// TestIdle: thousands of associations that do nothing cost little, and keep
// nobody out.
func TestIdle(t *testing.T) {
	devices, each := 100, 50
	if os.Getenv("MAF_LONG") == "" {
		devices, each = 10, 20
	}
	for _, c := range []struct{ binding, network string }{{"http", "tcp"}, {"coap", "udp"}} {
		t.Run(c.binding, func(t *testing.T) {
			cse := backendtest.Start(t, backendtest.LastWins)
			s := newSiteBefore(t, cse.URL, "coap = { listen = [\"127.0.0.1:0\"], associations_per_device = 64 }\n", "conns_per_device = 64")
			before := resident(t, s.gateway.Process.Pid)
			idle := make([]net.Conn, devices*each)
			var all sync.WaitGroup
			for i := range devices {
				device := s.register(t, fmt.Sprintf("meter%d", i))
				all.Go(func() {
					for k := range each {
						conn, err := device.Dial(t.Context(), c.network, s.addresses[c.binding])
						if err != nil {
							t.Error(err)
							return
						}
						idle[i*each+k] = conn
					}
				})
			}
			all.Wait()
			defer func() {
				for _, conn := range idle {
					if conn != nil {
						conn.Close()
					}
				}
			}()
			want := fmt.Sprintf("mafgw_associations{binding=%q} %d\n", c.binding, len(idle))
			until(t, want, func() bool {
				return strings.Contains(curl(t, "http://"+s.addresses["telemetry"]+"/metrics"), want)
			})
			kib := float64(resident(t, s.gateway.Process.Pid)-before) / float64(len(idle))
			t.Logf("%d idle associations, %.1f KiB each", len(idle), kib)
			if kib > 64 && !testing.Short() { // the race detector, which -short goes with, takes several times as much
				t.Errorf("an idle association takes %.1f KiB", kib)
			}
			conn, err := s.register(t, "one-more").Dial(t.Context(), "tcp", s.addresses["http"])
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if r, err := get(conn, "Sone-more"); err != nil || r.StatusCode != 200 {
				t.Errorf("one more: %v, %v", r, err)
			}
		})
	}
}
