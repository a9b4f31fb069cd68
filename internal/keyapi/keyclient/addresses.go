package keyclient

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

// goBack is how long an address that did not answer is left alone while a later
// one does.
const goBack = 30 * time.Second

// addresses are where one MAF is reached, the best first.
type addresses struct {
	hosts []string
	maf   onem2m.FQDN
	log   *slog.Logger // may be nil

	mu      sync.Mutex
	current int       // which one answered last; guarded by mu
	retry   time.Time // when those before current get another chance; guarded by mu
}

func (a *addresses) inUse() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hosts[a.current]
}

// order returns the addresses in the order in which one request tries them: the
// one that answered last, then the others. From time to time a request, and no
// other at the same time, finds out whether a better one is back.
func (a *addresses) order(now time.Time) []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	var order []int
	if a.current > 0 && !now.Before(a.retry) {
		a.retry = now.Add(goBack)
		order = append(order, 0)
	}
	order = append(order, a.current)
	for i := range a.hosts {
		if !slices.Contains(order, i) {
			order = append(order, i)
		}
	}
	return order
}

// answered notes that an address is good.
func (a *addresses) answered(i int, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i == a.current {
		return
	}
	if a.log != nil {
		a.log.Warn("the MAF is asked at another address", "MAF", a.maf, "now", a.hosts[i], "before", a.hosts[a.current])
	}
	a.current, a.retry = i, now.Add(goBack)
}
