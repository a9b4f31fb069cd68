package sqlstore

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// cpuTime is the process's, user and system: what a commit costs is mostly not
// in the goroutine that waits for it.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// parallel runs op in so many goroutines and reports the CPU time of one.
func parallel(b *testing.B, goroutines int, op func(n int) error) {
	b.Helper()
	var n atomic.Int64
	b.SetParallelism(max(1, goroutines/2)) // times GOMAXPROCS, which is 2 where it matters
	b.ResetTimer()
	before := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := op(int(n.Add(1))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpuTime()-before)/1e3/float64(b.N), "cpu-us/op")
}

func open(tb testing.TB, path string, o Options) *DB {
	tb.Helper()
	db, err := Open(context.Background(), path, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { db.Close() })
	return db
}

func benchKey(n int) store.Key {
	k := store.Key{
		ID:       onem2m.KcID{FQDN: "maf.example.com"},
		KmID:     benchID(n),
		UID:      store.UID(n),
		IdB:      onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"},
		Expires:  time.Now().Add(24 * time.Hour),
		SealedKc: make([]byte, 77),
	}
	rand.Read(k.ID.Relative[:])
	rand.Read(k.SealedKc)
	return k
}

func benchID(n int) onem2m.KmID {
	return onem2m.KmID{Relative: fmt.Sprintf("meter-%07d", n), FQDN: "maf.example.com"}
}

func BenchmarkCommit(b *testing.B) {
	for _, goroutines := range []int{2, 64, 256, 1024} {
		b.Run(fmt.Sprint(goroutines), func(b *testing.B) {
			db := open(b, filepath.Join(b.TempDir(), "maf.db"), Options{})
			parallel(b, goroutines, func(n int) error {
				return db.Keys().Commit(context.Background(), benchKey(n))
			})
		})
	}
}

func BenchmarkClientLookup(b *testing.B) {
	const clients = 100_000
	path := filepath.Join(b.TempDir(), "maf.db")
	fillClients(b, path, clients)
	for name, o := range map[string]Options{"cached": {ClientCache: clients}, "uncached": {ClientCache: 1}} {
		for _, goroutines := range []int{2, 256} {
			b.Run(fmt.Sprintf("%s/%d", name, goroutines), func(b *testing.B) {
				db := open(b, path, o)
				get := func(n int) error {
					_, err := db.Clients().Get(context.Background(), benchID(n*7919%clients))
					return err
				}
				for n := range clients / 10 {
					if err := get(n); err != nil {
						b.Fatal(err)
					}
				}
				parallel(b, goroutines, func(n int) error { return get(n % (clients / 10)) })
			})
		}
	}
}

// fillClients makes a store with so many clients, the quick way.
func fillClients(tb testing.TB, path string, n int) {
	tb.Helper()
	open(tb, path, Options{}).Close()
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		tb.Fatal(err)
	}
	defer raw.Close()
	tx, err := raw.Begin()
	if err != nil {
		tb.Fatal(err)
	}
	for i := range n {
		if _, err := tx.Exec("INSERT INTO client ("+clientColumns+") VALUES (?, ?, 1, ?, ?, '', 86400, 0, 0, 0, randomblob(77))",
			benchID(i).String(), i, "//sp.example.com/in-cse", "//sp.example.com/in-cse/Cmeter"); err != nil {
			tb.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkOpen is a restart: the index of live keys is made anew.
func BenchmarkOpen(b *testing.B) {
	const keys = 300_000
	path := filepath.Join(b.TempDir(), "maf.db")
	fillClients(b, path, 0)
	raw, err := sql.Open("sqlite", path)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := raw.Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < ?)
		INSERT INTO kc (relative, km_id, uid, id_b, expires, sealed_kc)
		SELECT randomblob(16), 'meter7@maf.example.com', 1, '//sp.example.com/in-cse', i, randomblob(77) FROM n`, keys); err != nil {
		b.Fatal(err)
	}
	raw.Close()
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		db := open(b, path, Options{})
		runtime.GC()
		runtime.ReadMemStats(&after)
		db.Close()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/keys, "heap-B/key")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/keys, "us/key")
}

// BenchmarkPurge removes keys that expired, as they do, roughly in the order in
// which they came.
func BenchmarkPurge(b *testing.B) {
	db := open(b, filepath.Join(b.TempDir(), "maf.db"), Options{CommitInterval: -1})
	const keys = 20_000
	total := 0
	var spent time.Duration
	for b.Loop() {
		b.StopTimer()
		var wg sync.WaitGroup
		for range keys / 100 {
			wg.Go(func() {
				for n := range 100 {
					if err := db.Keys().Commit(context.Background(), benchKey(n)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		wg.Wait()
		b.StartTimer()
		before := cpuTime()
		for {
			n, done, err := db.Keys().Purge(context.Background(), time.Now().Add(48*time.Hour))
			if err != nil {
				b.Fatal(err)
			}
			total += n
			if done {
				break
			}
		}
		spent += cpuTime() - before
	}
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/float64(total), "cpu-us/key")
}
