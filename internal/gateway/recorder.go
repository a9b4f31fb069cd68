package gateway

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A recorder makes the access log and the metrics of requests and handshakes.
type recorder struct {
	log    *slog.Logger
	access string // see LogConfig

	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	octets   *prometheus.CounterVec
	refusals *prometheus.CounterVec

	mu         sync.Mutex
	second     int64 // guarded by mu: the Unix second that said counts
	said       int   // guarded by mu: refused handshakes logged in it
	suppressed int   // guarded by mu: not logged since the last that was
}

// refusalsPerSecond bounds what strangers can write into the log.
const refusalsPerSecond = 20

func newRecorder(log *slog.Logger, access string, r prometheus.Registerer) *recorder {
	rec := &recorder{
		log:    log,
		access: access,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mafgw_requests_total",
			Help: "Requests by binding, direction (in: a device's, out: the CSE's to a device), operation and outcome (passed, refused).",
		}, []string{"binding", "direction", "operation", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "mafgw_request_seconds",
			Help:    "Time from the last octet of a request to its answer, for requests that were passed on.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 16), // 0.5 ms to 16 s
		}, []string{"binding"}),
		octets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mafgw_content_octets_total",
			Help: "Octets of content from and to those who asked.",
		}, []string{"binding", "direction"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mafgw_handshakes_refused_total",
			Help: "Association handshakes that failed, by reason.",
		}, []string{"reason"}),
	}
	r.MustRegister(rec.requests, rec.duration, rec.octets, rec.refusals)
	return rec
}

// Record implements access.Recorder.
func (r *recorder) Record(e access.Entry) {
	direction, outcome := "in", "passed"
	if e.ToDevice {
		direction = "out"
	}
	if e.Refused {
		outcome = "refused"
	} else {
		r.duration.WithLabelValues(e.Binding).Observe(e.Duration.Seconds())
	}
	r.requests.WithLabelValues(e.Binding, direction, operation(e.Operation), outcome).Inc()
	r.octets.WithLabelValues(e.Binding, "in").Add(float64(e.In))
	r.octets.WithLabelValues(e.Binding, "out").Add(float64(e.Out))

	if r.access == "none" || r.access == "refused" && !e.Refused {
		return
	}
	level, attrs := slog.LevelInfo, []slog.Attr{
		slog.String("binding", e.Binding),
		slog.String("peer", e.Peer),
		slog.String("kcid", e.KcID.String()),
		slog.String("operation", strings.ToLower(e.Operation)),
		slog.String("from", e.From),
		slog.String("to", e.To),
		slog.Int("status", int(e.Status)),
		slog.Duration("duration", e.Duration.Round(time.Microsecond)),
		slog.Int64("in", e.In),
		slog.Int64("out", e.Out),
	}
	message := "request"
	if e.ToDevice {
		message = "request to a device"
	}
	if e.Refused {
		level, message = slog.LevelWarn, message+" refused"
		attrs = append(attrs, slog.String("reason", e.Reason))
	}
	r.log.LogAttrs(context.Background(), level, message, attrs...)
}

// operation is the label for an operation, of which a peer may send any.
func operation(name string) string {
	switch name := strings.ToLower(name); name {
	case "create", "retrieve", "update", "delete", "notify":
		return name
	}
	return "other"
}

// refused is EntityB's OnRefused.
func (r *recorder) refused(refusal saef.Refusal) {
	reason := reasonOf(refusal.Err)
	r.refusals.WithLabelValues(reason).Inc()
	more, ok := r.mayLog(time.Now().Unix())
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("peer", refusal.RemoteAddr.String()),
		slog.String("kcid", refusal.Identity),
		slog.String("reason", reason),
		slog.String("error", refusal.Err.Error()),
	}
	if more > 0 {
		attrs = append(attrs, slog.Int("not_logged_before", more))
	}
	r.log.LogAttrs(context.Background(), slog.LevelInfo, "association refused", attrs...)
}

// mayLog reports whether one more refusal may be logged in this second, and how
// many were not since the last.
func (r *recorder) mayLog(second int64) (suppressed int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if second != r.second {
		r.second, r.said = second, 0
	}
	if r.said >= refusalsPerSecond {
		r.suppressed++
		return 0, false
	}
	r.said++
	suppressed, r.suppressed = r.suppressed, 0
	return suppressed, true
}

// reasonOf sorts why handshakes fail into few kinds.
func reasonOf(err error) string {
	var alert *tlspsk.AlertError
	switch {
	case errors.Is(err, saef.ErrTurnedAway):
		return "turned_away"
	case errors.Is(err, saef.ErrMAFUnavailable):
		return "maf_unavailable"
	case errors.Is(err, saef.ErrTooManyUnknown):
		return "too_many_unknown"
	case errors.Is(err, saef.ErrRevoked):
		return "revoked"
	case errors.Is(err, tlspsk.ErrUnknownIdentity):
		return "unknown_key"
	case errors.As(err, &alert) && alert.Remote:
		return "by_peer"
	case errors.As(err, &alert):
		return "alert_" + alert.Alert.String()
	}
	return "broken_off"
}
