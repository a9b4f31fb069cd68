package mqttgw

import (
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
)

// BenchmarkIdle reports what an idle association holds: the gateway's two
// connections and two goroutines, and the device's end of the TLS session, which is
// in this process as well.
func BenchmarkIdle(b *testing.B) {
	f := newFixture(b, quietBroker(b), policy.Config{}, func(c *Config) {
		c.Limits.Connections = 1 << 30
		c.Log = nil
	})
	device := f.site.AE("meter7", meter7)
	connect, err := mqtt.Append(nil, &mqtt.Connect{CleanSession: true, ClientID: "test"})
	if err != nil {
		b.Fatal(err)
	}
	open := func() {
		conn, err := device.Dial(b.Context(), "tcp", f.address)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { conn.Close() })
		conn.Write(connect)
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			b.Fatal(err)
		}
	}
	open()
	before, goroutines := inUse(), runtime.NumGoroutine()
	for range b.N {
		open()
	}
	b.ReportMetric(float64(inUse()-before)/float64(b.N), "B/association")
	b.ReportMetric(float64(runtime.NumGoroutine()-goroutines)/float64(b.N), "goroutines/association")
}

// quietBroker accepts every CONNECT and then does nothing.
func quietBroker(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.Cleanup(func() { conn.Close() })
			conn.Read(make([]byte, 100))
			conn.Write([]byte("\x20\x02\x00\x00"))
		}
	}()
	return l.Addr().String()
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
