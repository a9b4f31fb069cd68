package mqttgw

import (
	"runtime"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
)

// BenchmarkIdle reports what an idle association holds in this process: the
// gateway's two connections and goroutines, and both far ends of them as well,
// of which the device's TLS and its buffers are the larger part.
func BenchmarkIdle(b *testing.B) {
	broker := newBroker(b, nil)
	f := newFixture(b, broker.address(), policy.Config{}, func(c *Config) {
		c.Limits.Connections = 1 << 30
		c.Log = nil
	})
	device := f.site.AE("meter7", meter7)
	f.connect(device)
	before := inUse()
	goroutines := runtime.NumGoroutine()
	b.ResetTimer()
	for range b.N {
		f.connect(device)
	}
	b.StopTimer()
	b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/association")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(b.N), "goroutines/association")
}

func inUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// BenchmarkRequest measures one request and its answer through the gateway.
func BenchmarkRequest(b *testing.B) {
	broker := newBroker(b, echo)
	f := newFixture(b, broker.address(), policy.Config{}, func(c *Config) { c.Log = nil; c.Recorder = nil })
	client := f.connect(f.site.AE("meter7", meter7))
	s := broker.session()
	go func() {
		for range s.got {
		}
	}()
	p := &mqtt.Publish{Topic: meterReq, Payload: []byte(retrieve("Cmeter7", "r1"))}
	for b.Loop() {
		client.send(p)
		client.read()
	}
}
