package gateway

import (
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/onem2m-maf/maf/internal/version"
)

// listenTelemetry opens the listener for metrics and health, where one is
// configured, and registers what is only read when somebody asks.
func (g *Gateway) listenTelemetry() error {
	g.metrics.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		gatewayCollector{g},
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(g.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", g.ready)
	g.telemetry = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout:      30 * time.Second,
		MaxHeaderBytes:    1 << 14,
	}
	for _, address := range g.config.Telemetry.Listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return listenError("telemetry.listen", address, err)
		}
		g.sockets = append(g.sockets, l)
		g.Telemetry = append(g.Telemetry, l.Addr().String())
		g.log.Info("listening", "binding", "telemetry", "address", l.Addr().String())
		g.contacts = append(g.contacts, func() error { return g.telemetry.Serve(l) })
	}
	return nil
}

// ready says whether new associations can be expected to succeed: whether any
// MAF answers. Those that are there go on all the same.
func (g *Gateway) ready(w http.ResponseWriter, _ *http.Request) {
	all := g.entityB.Status()
	down := 0
	for _, maf := range all {
		if maf.Down != nil {
			down++
		}
	}
	if down > 0 && down == len(all) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, "no MAF can be reached")
		return
	}
	fmt.Fprintln(w, "ok")
}

var (
	associationsDesc = prometheus.NewDesc("mafgw_associations", "Open associations.", []string{"binding"}, nil)
	underWayDesc     = prometheus.NewDesc("mafgw_handshakes_under_way", "Handshakes under way.", []string{"binding"}, nil)
	admittedDesc     = prometheus.NewDesc("mafgw_handshakes_total", "Handshakes that were begun.", []string{"binding"}, nil)
	shedDesc         = prometheus.NewDesc("mafgw_handshakes_shed_total", "Handshakes that were ended to make room for others.", []string{"binding"}, nil)
	mafUpDesc        = prometheus.NewDesc("mafgw_maf_up", "Whether the MAF answered when it was last asked.", []string{"maf"}, nil)
	feedUpDesc       = prometheus.NewDesc("mafgw_maf_revocations_followed", "Whether the MAF's revocations are being followed.", []string{"maf"}, nil)
	certificateDesc  = prometheus.NewDesc("mafgw_certificate_expires_seconds", "When the certificate for the key API ends, in Unix time.", nil, nil)
	buildDesc        = prometheus.NewDesc("mafgw_build_info", "1.", []string{"version"}, nil)
)

// A gatewayCollector reads the gateway's state for Prometheus.
type gatewayCollector struct{ g *Gateway }

// Describe implements prometheus.Collector.
func (c gatewayCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c gatewayCollector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, b := range c.g.bindings {
		var underWay int
		var admitted, shed uint64
		for _, l := range b.listeners {
			s := l.Stats()
			underWay, admitted, shed = underWay+s.UnderWay, admitted+s.Admitted, shed+s.Shed
		}
		gauge(associationsDesc, float64(b.associations()), b.name)
		gauge(underWayDesc, float64(underWay), b.name)
		ch <- prometheus.MustNewConstMetric(admittedDesc, prometheus.CounterValue, float64(admitted), b.name)
		ch <- prometheus.MustNewConstMetric(shedDesc, prometheus.CounterValue, float64(shed), b.name)
	}
	for _, maf := range c.g.entityB.Status() {
		gauge(mafUpDesc, truth(maf.Down == nil), string(maf.MAF))
		gauge(feedUpDesc, truth(maf.Blind == nil), string(maf.MAF))
	}
	gauge(certificateDesc, float64(c.g.notAfter.Load()))
	gauge(buildDesc, 1, version.String())
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
