package pgstore

import (
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/seal"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store/pgtest"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
	"github.com/onem2m-maf/maf/internal/store/storetest"
	"github.com/onem2m-maf/maf/onem2m"
)

// The two stores side by side, in one run. cpu-us/op is the CPU time of this
// process, user and system, and server-cpu-us/op that of all of PostgreSQL's, with
// its writing to the disk in the background.

// BenchmarkCommit is a key's way to stable storage.
func BenchmarkCommit(b *testing.B) {
	eachStore(b, func(b *testing.B, db storetest.Store) func(n int) error {
		return func(int) error { return db.Keys().Commit(context.Background(), testKey()) }
	})
}

// BenchmarkGet is the lookup of a client, of which each handshake makes two: only
// the embedded store may answer from memory.
func BenchmarkGet(b *testing.B) {
	eachStore(b, func(b *testing.B, db storetest.Store) func(n int) error {
		addClients(b, func(n int) error { return db.Clients().Add(context.Background(), testClient(n)) })
		return func(n int) error {
			_, err := db.Clients().Get(context.Background(), testClient(n%clientCount).KmID)
			return err
		}
	})
}

// BenchmarkHandshake is all that a MAF Handshake costs beyond TLS.
func BenchmarkHandshake(b *testing.B) {
	eachStore(b, func(b *testing.B, db storetest.Store) func(n int) error {
		keyset, err := seal.File{Path: filepath.Join(b.TempDir(), "keyset")}.Create(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		maf, err := authority.New(b.Context(), authority.Config{
			FQDNs: []onem2m.FQDN{"maf.example.com"}, Clients: db.Clients(), Keys: db.Keys(), Sealer: keyset})
		if err != nil {
			b.Fatal(err)
		}
		addClients(b, func(n int) error {
			_, _, err := maf.AddClient(b.Context(), authority.Client{KmID: testClient(n).KmID, IdB: testClient(n).IdB}, secret.Key{})
			return err
		})
		return func(n int) error {
			master, err := maf.MasterKey(context.Background(), []byte(testClient(n%clientCount).KmID.String()), "maf.example.com")
			if err != nil {
				return err
			}
			_, err = maf.Establish(context.Background(), master, func(string, []byte, int) ([]byte, error) {
				exported := make([]byte, 48)
				rand.Read(exported)
				return exported, nil
			})
			return err
		}
	})
}

const clientCount = 10_000

// addClients adds them, many at a time.
func addClients(b *testing.B, add func(n int) error) {
	b.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range 500 {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < clientCount; n = int(next.Add(1)) - 1 {
				if err := add(n); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// eachStore runs the operation that prepare returns, in many goroutines, on each
// store.
func eachStore(b *testing.B, prepare func(b *testing.B, db storetest.Store) func(n int) error) {
	for _, name := range []string{"sqlite", "postgres"} {
		for _, goroutines := range []int{64, 512} {
			b.Run(fmt.Sprintf("%s/%d", name, goroutines), func(b *testing.B) {
				db, server := openStore(b, name)
				parallel(b, goroutines, server, prepare(b, db))
			})
		}
	}
}

func openStore(b *testing.B, name string) (storetest.Store, *pgtest.Server) {
	if name == "sqlite" {
		db, err := sqlstore.Open(context.Background(), filepath.Join(b.TempDir(), "maf.db"), sqlstore.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { db.Close() })
		return db, nil
	}
	server := pgtest.Start(b)
	return openTest(b, Options{URL: server.NewDatabase(b), PasswordFile: server.PasswordFile()}), server
}

func parallel(b *testing.B, goroutines int, server *pgtest.Server, op func(n int) error) {
	b.Helper()
	var n atomic.Int64
	b.SetParallelism(max(1, goroutines/2)) // times GOMAXPROCS, which is 2 where it matters
	b.ResetTimer()
	own, theirs := ownCPU(b), serverCPU(server)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := op(int(n.Add(1))); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((ownCPU(b)-own).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
	if server != nil {
		b.ReportMetric(float64((serverCPU(server)-theirs).Nanoseconds())/1e3/float64(b.N), "server-cpu-us/op")
	}
}

func ownCPU(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// serverCPU adds up the server's processes, in ticks of 10 ms.
func serverCPU(server *pgtest.Server) (sum time.Duration) {
	if server == nil {
		return 0
	}
	for _, pid := range server.Processes() {
		fields := pgtest.Stat(pid)
		for _, i := range []int{11, 12} { // utime, stime
			if len(fields) > i {
				ticks, _ := strconv.Atoi(fields[i])
				sum += time.Duration(ticks) * 10 * time.Millisecond
			}
		}
	}
	return sum
}
