package mafd

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/onem2m-maf/maf/internal/version"
)

// listenTelemetry opens the listeners for metrics and health, where some are
// configured.
func (d *Daemon) listenTelemetry() error {
	d.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		daemonCollector{d},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, d.alive()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answerHealth(w, d.ready()) })
	d.telemetry = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    1 << 14,
	}
	return d.sockets("telemetry", d.config.Telemetry.Listen, &d.Runtime.Telemetry, socketKind{
		open:  listenTCP,
		adopt: net.FileListener,
		use:   func(l net.Listener) { d.telemetries = append(d.telemetries, l) },
	})
}

func answerHealth(w http.ResponseWriter, err error) {
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintln(w, "ok")
}

// aliveTimeout is how long the daemon may take to answer itself. Its locks are
// held for microseconds.
const aliveTimeout = 10 * time.Second

// alive returns an error when the daemon hangs, which only a restart would mend.
// A full disk is not that: see ready.
func (d *Daemon) alive() error {
	answered := make(chan struct{})
	go func() { // everything that handshakes pass through
		d.endpoint.tls.gate.Stats()
		d.endpoint.dtls.gate.Stats()
		d.endpoint.open()
		d.health.writable()
		close(answered)
	}()
	select {
	case <-answered:
		return nil
	case <-time.After(aliveTimeout):
		return fmt.Errorf("the MAF Handshake endpoint has not answered for %v", aliveTimeout)
	}
}

// ready returns nil when a device can expect its handshake to succeed.
func (d *Daemon) ready() error {
	if !d.endpoint.open() {
		return fmt.Errorf("mafd is stopping")
	}
	if err := d.health.writable(); err != nil {
		return fmt.Errorf("the key store can't be written to: %w", err)
	}
	return nil
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	underWayDesc    = describe("mafd_handshakes_under_way", "MAF Handshakes under way.", "transport")
	placesDesc      = describe("mafd_handshakes_under_way_limit", "MAF Handshakes that may be under way.", "transport")
	peakDesc        = describe("mafd_handshakes_under_way_peak", "The most MAF Handshakes that ever were under way.", "transport")
	sessionsDesc    = describe("mafd_sessions", "Sessions that are open after their handshake.", "transport")
	admittedDesc    = describe("mafd_handshakes_admitted_total", "MAF Handshakes that were begun.", "transport")
	shedDesc        = describe("mafd_handshakes_shed_total", "MAF Handshakes that were ended to make room for others.", "transport")
	clientsDesc     = describe("mafd_clients", "Clients, as counted within the last minute.")
	keysDesc        = describe("mafd_keys", "Kcs that were not purged yet, as counted within the last minute.")
	storeBytesDesc  = describe("mafd_store_bytes", "Size of the embedded store's files.")
	writableDesc    = describe("mafd_store_writable", "Whether the last write to the store succeeded.")
	certificateDesc = describe("mafd_certificate_expires_timestamp_seconds", "When a certificate ends, in Unix time: the key API's (key_api), and that of mafd's own authority (authority).", "certificate")
	buildDesc       = describe("mafd_build_info", "1.", "version", "go")
)

// A daemonCollector reads the daemon's state for Prometheus.
type daemonCollector struct{ d *Daemon }

// Describe implements prometheus.Collector.
func (c daemonCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c daemonCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for name, door := range map[string]*door{"tls": c.d.endpoint.tls, "dtls": c.d.endpoint.dtls} {
		s := door.gate.Stats()
		gauge(underWayDesc, float64(s.UnderWay), name)
		gauge(placesDesc, float64(cap(door.sessions)), name)
		gauge(peakDesc, float64(s.Peak), name)
		gauge(sessionsDesc, float64(len(door.sessions)), name)
		ch <- prometheus.MustNewConstMetric(admittedDesc, prometheus.CounterValue, float64(s.Admitted), name)
		ch <- prometheus.MustNewConstMetric(shedDesc, prometheus.CounterValue, float64(s.Shed), name)
	}
	if counts := c.d.counts.Load(); counts != nil {
		gauge(clientsDesc, float64(counts.clients))
		gauge(keysDesc, float64(counts.keys))
	}
	if size := c.d.storeSize(); size > 0 {
		gauge(storeBytesDesc, float64(size))
	}
	gauge(writableDesc, truth(c.d.health.writable() == nil))
	gauge(certificateDesc, float64(c.d.keyAPITLS.current.Load().shown().Leaf.NotAfter.Unix()), "key_api")
	gauge(certificateDesc, float64(c.d.ca.NotAfter().Unix()), "authority")
	gauge(buildDesc, 1, version.String(), runtime.Version())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// counts is how many rows the store has.
type counts struct{ clients, keys int }

// storeSize is how large the embedded store's files are.
func (d *Daemon) storeSize() (size int64) {
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(d.state.file(storeName + suffix)); err == nil {
			size += info.Size()
		}
	}
	return size
}
