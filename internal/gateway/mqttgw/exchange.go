package mqttgw

import (
	"slices"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
)

// exchanges are the requests in one direction of an association that wait for
// their responses.
type exchanges struct {
	mu   sync.Mutex
	open []exchange // in order of arrival; guarded by mu
}

// An exchange is one request that waits.
type exchange struct {
	requestID string
	begun     time.Time
	entry     access.Entry    // what is known so far
	learn     *policy.Request // when the answer is to be learned from
}

// add notes a request, in place of one with the same identifier: a duplicate.
// When that makes more than most, the one that has waited longest is given up
// and returned.
func (e *exchanges) add(x exchange, most int) (given exchange, up bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i := e.find(x.requestID); i >= 0 {
		e.open[i] = x
		return exchange{}, false
	}
	e.open = append(e.open, x)
	if len(e.open) <= most {
		return exchange{}, false
	}
	given = e.open[0]
	e.open = slices.Delete(e.open, 0, 1)
	return given, true
}

// take ends the exchange with the given identifier.
func (e *exchanges) take(requestID string) (exchange, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := e.find(requestID)
	if i < 0 {
		return exchange{}, false
	}
	x := e.open[i]
	e.open = slices.Delete(e.open, i, i+1)
	return x, true
}

// takeAll ends all.
func (e *exchanges) takeAll() []exchange {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.open
	e.open = nil
	return all
}

func (e *exchanges) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.open)
}

// find runs with mu held.
func (e *exchanges) find(requestID string) int {
	return slices.IndexFunc(e.open, func(x exchange) bool { return x.requestID == requestID })
}
