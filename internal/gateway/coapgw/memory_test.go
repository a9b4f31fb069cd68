package coapgw

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/saef"
)

// BenchmarkIdle measures what the binding holds for an association: at rest from the
// beginning, and after its first request, until EXCHANGE_LIFETIME is over. What DTLS holds
// comes on top.
func BenchmarkIdle(b *testing.B) {
	const n = 200
	backend := newCSE(b, nil)
	g := newRig(b, backend.addr, nil)
	// A listener that nobody serves.
	listener := g.site.Listen("udp")
	conns := make([]*saef.Conn, n)
	devices := make([]*device, n)
	accepted := make(chan bool)
	go func() {
		for i := range conns {
			conns[i], _ = listener.AcceptAssociation()
		}
		close(accepted)
	}()
	g.listener = listener
	for i := range devices {
		devices[i] = g.dial(g.site.AE(fmt.Sprintf("m%d", i), fmt.Sprintf("//sp.example.com/in-cse/Cm%d", i)), nil)
	}
	<-accepted
	for b.Loop() {
		before := held()
		for _, c := range conns {
			g.server.admit(c)
		}
		time.Sleep(100 * time.Millisecond)
		idle := held()
		goroutines := runtime.NumGoroutine()
		for i, d := range devices {
			d.do(d.request(coap.GET, "in-cse", fmt.Sprintf("Cm%d", i), ""))
		}
		time.Sleep(100 * time.Millisecond)
		b.ReportMetric(float64(idle-before)/n, "B/idle")
		b.ReportMetric(float64(held()-idle)/n, "B/request+device's")
		b.ReportMetric(float64(goroutines)/n, "goroutines/(association+device)")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		g.server.Shutdown(ctx)
	}
}

// held returns the octets in use, on the heap and in stacks.
func held() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// BenchmarkRequest is a RETRIEVE through the gateway, with the device and the CSE in the
// same process.
func BenchmarkRequest(b *testing.B) {
	backend := newCSE(b, nil)
	g := newRig(b, backend.addr, nil)
	d := g.ae()
	for b.Loop() {
		if answer := d.do(d.request(coap.GET, "in-cse/c", "Cmeter7", "")); d.status(answer) != 2000 {
			b.Fatal(answer)
		}
	}
}
