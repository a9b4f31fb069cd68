package audit

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// cpu is what this process has used, all its threads together.
func cpu(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

var handshake = Event{
	Kind: Handshake, Role: Device, Actor: "meter7@maf.example.com", Subject: "E205BB0F98B6C9466B9927969CFA44F4@maf.example.com",
	EntityB: "//sp.example.com/in-cse", Remote: "tls:192.0.2.7:40123", Outcome: OK,
}

// BenchmarkRecord is what a handshake's line costs, on all threads together.
func BenchmarkRecord(b *testing.B) {
	c := config(b)
	c.File.MaxSize = 64 << 20
	c.Queue, c.Refuse = 16384, true
	l := open(b, c)
	before := cpu(b)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if err := l.Record(b.Context(), handshake); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/event")
	r := verify(b, c.File.Folder)
	if r.Lines < b.N {
		b.Fatalf("%d lines", r.Lines)
	}
	b.ReportMetric(float64(size(b, c.File.Folder))/float64(r.Lines), "octets/line")
}

func size(b *testing.B, folder string) (total int64) {
	files, err := Files(folder)
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			b.Fatal(err)
		}
		total += info.Size()
	}
	return total
}

// BenchmarkCommit is what a line costs that somebody waits for, who is alone.
func BenchmarkCommit(b *testing.B) {
	l := open(b, config(b))
	before := cpu(b)
	for b.Loop() {
		if err := l.Commit(b.Context(), handshake); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/event")
}

// BenchmarkVerify is what a line costs that is checked.
func BenchmarkVerify(b *testing.B) {
	c := config(b)
	l := open(b, c)
	const lines = 10_000
	for range lines {
		if err := l.Record(b.Context(), handshake); err != nil {
			b.Fatal(err)
		}
	}
	l.Close()
	b.SetBytes(size(b, c.File.Folder))
	before := cpu(b)
	for b.Loop() {
		verify(b, c.File.Folder)
	}
	b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/float64(b.N)/lines, "cpu-ns/line")
}
