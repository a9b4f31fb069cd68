package mafd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/tlspsk"
)

// metrics counts what happens. docs/metrics.md lists all of them.
//
// No label holds what a peer says: strangers must not be able to make series
// without end, and who reads metrics is not to learn which devices there are.
type metrics struct {
	handshakes, failures, turnedAway *prometheus.CounterVec
	duration, stages                 *prometheus.HistogramVec

	commits                     prometheus.Histogram
	commitFailures              prometheus.Counter
	commitsWaiting              prometheus.Gauge
	transactionChanges          prometheus.Histogram
	transactions                prometheus.Histogram
	purged                      prometheus.Counter
	requests                    *prometheus.CounterVec
	release                     prometheus.Histogram
	followers                   prometheus.Gauge
	reloadGood, reloadCompleted prometheus.Gauge
}

// Buckets of times, in seconds.
var (
	// within is for what this machine does alone: 50 us to 6.5 s.
	within = prometheus.ExponentialBuckets(0.00005, 2, 18)
	// across is for what waits for a client too: 500 us to 65 s.
	across = prometheus.ExponentialBuckets(0.0005, 2, 18)
)

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		r.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		r.MustRegister(h)
		return h
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
		r.MustRegister(g)
		return g
	}
	// Without labels there is one series, which is there from the start.
	one := func(h *prometheus.HistogramVec) prometheus.Histogram {
		return h.WithLabelValues().(prometheus.Histogram)
	}
	return &metrics{
		handshakes: counter("mafd_handshakes_total",
			"MAF Handshakes that ended, by transport, cipher suite (none: it was not agreed on) and outcome (success, failure).",
			"transport", "suite", "outcome"),
		failures: counter("mafd_handshake_failures_total",
			"MAF Handshakes that failed, by reason.", "transport", "reason"),
		turnedAway: counter("mafd_handshakes_turned_away_total",
			"Clients that were turned away before their handshake, by reason.", "transport", "reason"),
		duration: histogram("mafd_handshake_seconds",
			"Time of a successful MAF Handshake as a whole, from its first octet to our Finished.", across, "transport"),
		stages: histogram("mafd_handshake_stage_seconds",
			"Time of a successful MAF Handshake's stages: hello (until the client has named itself), lookup (of its Km), proof (until its Finished is good), commit (Kc derived, sealed and on stable storage).",
			across, "transport", "stage"),

		commits: one(histogram("mafd_store_commit_seconds",
			"Time to store a new Kc, waiting for other changes included.", within)),
		commitFailures: plain(counter("mafd_store_commit_failures_total",
			"New Kcs that could not be stored; their handshakes failed.")),
		commitsWaiting: gauge("mafd_store_commits_under_way", "New Kcs that wait to be stored."),
		transactionChanges: one(histogram("mafd_store_transaction_changes",
			"Changes that share one write to the disk.", prometheus.ExponentialBuckets(1, 2, 11))),
		transactions: one(histogram("mafd_store_transaction_seconds",
			"Time of one write to the disk.", within)),
		purged: plain(counter("mafd_keys_purged_total", "Kcs removed after they had expired.")),

		requests: counter("mafd_key_api_requests_total",
			"Requests to the key API, by kind (key, revocations, other) and HTTP status.", "kind", "code"),
		release: one(histogram("mafd_key_api_seconds",
			"Time of requests for a key to the key API.", within)),
		followers: gauge("mafd_revocation_followers", "Entity Bs that wait for revocations."),

		reloadGood:      gauge("mafd_config_reload_success", "Whether the configuration file was good when it was last read."),
		reloadCompleted: gauge("mafd_config_loaded_timestamp_seconds", "When the configuration in use was read, in Unix time."),
	}
}

// plain is for a counter without labels.
func plain(c *prometheus.CounterVec) prometheus.Counter { return c.WithLabelValues() }

// handshake counts one that ended with err.
func (m *metrics) handshake(transport string, a *attempt, ended time.Time, err error) {
	suite, outcome := "none", "success"
	if a.suite != 0 {
		suite = tlspsk.CipherSuiteName(a.suite)
	}
	if err != nil {
		outcome = "failure"
		m.failures.WithLabelValues(transport, reasonLabel(a, err)).Inc()
	}
	m.handshakes.WithLabelValues(transport, suite, outcome).Inc()
	if err != nil {
		return // how long failures take is their makers' choice
	}
	m.duration.WithLabelValues(transport).Observe(ended.Sub(a.began).Seconds())
	for _, stage := range []struct {
		name     string
		from, to time.Time
	}{
		{"hello", a.began, a.named}, {"lookup", a.named, a.found}, {"proof", a.found, a.proved}, {"commit", a.proved, a.committed},
	} {
		m.stages.WithLabelValues(transport, stage.name).Observe(stage.to.Sub(stage.from).Seconds())
	}
}

// reasonLabel sorts why a handshake failed into few kinds.
func reasonLabel(a *attempt, err error) string {
	for _, known := range []struct {
		err  error
		name string
	}{
		{authority.ErrMalformedIdentity, "malformed_identity"},
		{authority.ErrWrongFQDN, "wrong_fqdn"},
		{authority.ErrSNIMismatch, "sni_mismatch"},
		{authority.ErrUnknownClient, "unknown_client"},
		{authority.ErrDisabled, "disabled"},
		{errTooMany, "too_many_keys"},
		{authority.ErrRefused, "refused"},
	} {
		if errors.Is(a.refused, known.err) {
			return known.name
		}
	}
	var alert *tlspsk.AlertError
	var network net.Error
	switch {
	case a.ours:
		return "internal"
	case errors.Is(err, admission.ErrShed):
		return "shed"
	case wrongKm(a, err):
		return "wrong_key"
	case errors.As(err, &alert) && alert.Remote:
		return "ended_by_client"
	case errors.As(err, &alert):
		return "alert_" + alert.Alert.String() // one that we send, and there are few
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return "timeout"
	}
	return "broken_off"
}

// turnedAwayLabel is why Enter refused.
func turnedAwayLabel(err error) string {
	if errors.Is(err, admission.ErrCrowded) {
		return "crowded"
	}
	return "failing"
}

// transaction counts one of the store's.
func (m *metrics) transaction(changes int, took time.Duration, err error) {
	if err == nil {
		m.transactionChanges.Observe(float64(changes))
		m.transactions.Observe(took.Seconds())
	}
}

// A meteredKeys is a KeyStore whose commits are counted.
type meteredKeys struct {
	store.KeyStore
	metrics *metrics
	health  *health
}

// Commit implements store.KeyStore.
func (k meteredKeys) Commit(ctx context.Context, key store.Key) error {
	k.metrics.commitsWaiting.Inc()
	defer k.metrics.commitsWaiting.Dec()
	begin := time.Now()
	err := k.KeyStore.Commit(ctx, key)
	switch {
	case err == nil:
		k.metrics.commits.Observe(time.Since(begin).Seconds())
		k.health.stored(nil)
	case errors.Is(err, store.ErrExists), ctx.Err() != nil:
		// Neither says anything about the disk.
	default:
		k.metrics.commitFailures.Inc()
		k.health.stored(err)
	}
	return err
}

// meteredAPI counts the requests to the key API.
func (m *metrics) meteredAPI(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := "other"
		switch path := r.URL.EscapedPath(); {
		case path == keyapi.RevocationsPath:
			kind = "revocations"
			m.followers.Inc()
			defer m.followers.Dec()
		default:
			if _, ok := keyapi.ParsePath(path); ok {
				kind = "key"
				begin := time.Now()
				defer func() { m.release.Observe(time.Since(begin).Seconds()) }()
			}
		}
		answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		api.ServeHTTP(answer, r)
		m.requests.WithLabelValues(kind, strconv.Itoa(answer.status)).Inc()
	})
}

// A statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
