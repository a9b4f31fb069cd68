package authority_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/onem2m"
)

// Devices shake hands and gateways fetch while an administrator disables and
// enables, and expired keys are purged. Whoever starts after a change has
// returned must see it, and who is not concerned must not notice.
func TestConcurrency(t *testing.T) {
	m := newMAF(t)
	const clients, rounds = 4, 12
	// phase[i] counts client i's changes: 4n while it is enabled, 4n+2 while it is
	// disabled, odd while that is being changed.
	var phase [clients]atomic.Int64
	id := func(i int) onem2m.KmID {
		return onem2m.KmID{Relative: fmt.Sprint("m", i), FQDN: meter.FQDN}
	}
	// verdict checks the outcome of what client i did since phase before.
	verdict := func(what string, i int, before int64, err error) {
		refused := errors.Is(err, authority.ErrDisabled) || errors.Is(err, authority.ErrNotFound)
		if err != nil && !refused {
			t.Errorf("%s: %v", what, err)
		}
		if phase[i].Load() != before {
			return // changed meanwhile: both outcomes are right
		}
		switch before % 4 {
		case 0:
			if err != nil {
				t.Errorf("%s of an enabled client: %v", what, err)
			}
		case 2:
			if err == nil {
				t.Errorf("%s of a disabled client", what)
			}
		}
	}
	stop := make(chan struct{})
	var workers, admins sync.WaitGroup
	var handshakes atomic.Int64
	for i := range clients {
		m.add(authority.Client{KmID: id(i), Lifetime: time.Hour})
		kept := m.mustHandshake(id(i))
		for range 4 {
			workers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					s := newSession()
					before := phase[i].Load()
					_, err := m.handshake(id(i), s)
					verdict("handshake", i, before, err)
					if err == nil {
						handshakes.Add(1)
						before = phase[i].Load()
						_, err = m.Release(ctx, inCSE, s.kcID())
						verdict("release of a new key", i, before, err)
					}
					before = phase[i].Load()
					_, err = m.Release(ctx, inCSE, kept.kcID())
					verdict("release", i, before, err)
					m.mustNotRelease("meanwhile", other, kept.kcID())
				}
			})
		}
		admins.Go(func() {
			for range rounds {
				for _, disabled := range []bool{true, false} {
					time.Sleep(5 * time.Millisecond) // some work in each phase
					phase[i].Add(1)
					_, err := m.UpdateClient(ctx, id(i), func(c *authority.Client) error { c.Disabled = disabled; return nil })
					if err != nil {
						t.Error(err)
					}
					phase[i].Add(1)
				}
			}
		})
	}
	workers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := m.Purge(ctx); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Millisecond)
			}
		}
	})
	admins.Wait()
	close(stop)
	workers.Wait()
	if handshakes.Load() == 0 {
		t.Error("no handshake succeeded")
	}
}
