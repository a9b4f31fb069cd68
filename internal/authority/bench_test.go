package authority_test

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/store/sqlstore"
	"github.com/onem2m-maf/maf/onem2m"
)

// BenchmarkHandshake is all that a MAF Handshake costs beyond TLS: the lookup of
// the client, the opening of Km, the second look, the sealing of Kc and its
// commit to stable storage. cpu-us/op is the process's CPU time, user and
// system; the time per operation is mostly waiting for the disk.
func BenchmarkHandshake(b *testing.B) {
	for _, cached := range []bool{true, false} {
		for _, goroutines := range []int{64, 256, 1024} {
			b.Run(fmt.Sprintf("cached=%v/%d", cached, goroutines), func(b *testing.B) {
				benchmarkHandshake(b, goroutines, cached)
			})
		}
	}
}

func benchmarkHandshake(b *testing.B, goroutines int, cached bool) {
	const clients = 20_000
	m := newMAF(b)
	m.now = time.Now()
	m.db.Close()
	o := sqlstore.Options{}
	if !cached {
		// Big enough to hold a client from the begin of its handshake to the end,
		// too small to hold it until it comes again.
		o.ClientCache = goroutines
	}
	db, err := sqlstore.Open(ctx, filepath.Join(m.dir, "maf.db"), o)
	if err != nil {
		b.Fatal(err)
	}
	m.db = db
	if m.Authority, err = authority.New(ctx, m.config()); err != nil {
		b.Fatal(err)
	}
	ids := make([]onem2m.KmID, clients)
	identities := make([][]byte, clients)
	for i := range clients {
		ids[i] = onem2m.KmID{Relative: fmt.Sprintf("meter-%06d", i), FQDN: "maf.example.com"}
		identities[i] = []byte(ids[i].String())
	}
	addAll(b, m, ids)
	for _, identity := range identities { // fills the cache
		if _, err := m.MasterKey(ctx, identity, ""); err != nil {
			b.Fatal(err)
		}
	}
	var n atomic.Int64
	handshake := func() error {
		i := n.Add(1)
		master, err := m.MasterKey(ctx, identities[i%clients], "maf.example.com")
		if err != nil {
			return err
		}
		_, err = m.Establish(ctx, master, func(string, []byte, int) ([]byte, error) {
			exported := make([]byte, 48)
			rand.Read(exported)
			return exported, nil
		})
		return err
	}
	b.SetParallelism(max(1, goroutines/2)) // times GOMAXPROCS, which is 2 where it matters
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := handshake(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(cpuTime()-before)/1e3/float64(b.N), "cpu-us/op")
}

// addAll adds clients, many at a time.
func addAll(b *testing.B, m *maf, ids []onem2m.KmID) {
	errs := make(chan error, len(ids))
	for _, id := range ids {
		go func() {
			_, _, err := m.AddClient(ctx, authority.Client{KmID: id, IdB: inCSE, AEID: onem2m.AEID{Stem: "Cmeter"}}, secret.Key{})
			errs <- err
		}()
	}
	for range ids {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
