package storetest

import (
	"context"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
)

func testBoxes(t *testing.T, p *place) {
	ctx := context.Background()
	want := func(when, what string, got []store.BoxCount, err error, want ...store.BoxCount) {
		t.Helper()
		if err != nil || len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s: %+v, %v; want %+v", when, what, got, err, want)
		}
	}
	got, err := p.Clients().Boxes(ctx, 5)
	want("empty", "clients", got, err)
	got, err = p.Keys().Boxes(ctx, epoch, 5)
	want("empty", "keys", got, err)

	box := func(first string, n int) []byte { return append([]byte("\x01\x00\xff\x00"+first), byte(n)) }
	const keys = 3000 // more than any store looks at in one go
	var wg sync.WaitGroup
	for n := range keys {
		k := key(n)
		k.Expires = epoch.Add(time.Duration(n+1) * time.Second)
		k.SealedKc = box("a", n)
		if n%3 == 0 {
			k.SealedKc = box("b", n)
		}
		wg.Go(func() {
			if err := p.Keys().Commit(ctx, k); err != nil {
				t.Error(err)
			}
		})
		if n%100 == 0 {
			c := client(n)
			c.SealedKm = k.SealedKc
			must(t, p.Clients().Add(ctx, c))
		}
	}
	wg.Wait()
	short := client(keys)
	short.SealedKm = []byte{1}
	must(t, p.Clients().Add(ctx, short))
	at := func(second int) time.Time { return epoch.Add(time.Duration(second) * time.Second) }
	p.nowAndReopened(func(when string) {
		got, err := p.Clients().Boxes(ctx, 5)
		want(when, "clients", got, err,
			store.BoxCount{Prefix: "\x01", Count: 1},
			store.BoxCount{Prefix: "\x01\x00\xff\x00a", Count: 20},
			store.BoxCount{Prefix: "\x01\x00\xff\x00b", Count: 10})
		got, err = p.Keys().Boxes(ctx, epoch, 5)
		want(when, "keys", got, err,
			store.BoxCount{Prefix: "\x01\x00\xff\x00a", Count: 2000, Last: at(3000)},
			store.BoxCount{Prefix: "\x01\x00\xff\x00b", Count: 1000, Last: at(2998)})
		got, err = p.Keys().Boxes(ctx, at(2998), 5)
		want(when, "the last keys", got, err, store.BoxCount{Prefix: "\x01\x00\xff\x00a", Count: 2, Last: at(3000)})
		got, err = p.Keys().Boxes(ctx, at(2998), 0)
		want(when, "all in one", got, err, store.BoxCount{Count: 2, Last: at(3000)})
	})
}
