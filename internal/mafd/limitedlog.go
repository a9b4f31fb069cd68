package mafd

import (
	"context"
	"log/slog"

	"github.com/onem2m-maf/maf/internal/admission"
)

// failureRate is how many lines about what anybody can make fail are written. An
// attacker must not fill the disk, nor hide in the noise which he makes.
var failureRate = admission.Rate{Burst: 200, PerSecond: 20}

// A limitedHandler writes all lines about what succeeded, and those of level Warn
// and above, about what failed, as failures allows.
type limitedHandler struct {
	slog.Handler
	failures *limiter
}

func (h limitedHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn && !h.failures.allow() {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h limitedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return limitedHandler{h.Handler.WithAttrs(attrs), h.failures}
}

func (h limitedHandler) WithGroup(name string) slog.Handler {
	return limitedHandler{h.Handler.WithGroup(name), h.failures}
}

// newKeyAPILog returns the log of the key API, and the limiter of its failures.
func newKeyAPILog(log *slog.Logger) (*slog.Logger, *limiter) {
	failures := &limiter{rate: failureRate, missed: func(n int) {
		log.Warn("key API: failures not logged, there were too many", "count", n)
	}}
	return slog.New(limitedHandler{log.Handler(), failures}), failures
}
