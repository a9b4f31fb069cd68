package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/version"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A Gateway is a running one. Start makes it, Stop ends it.
type Gateway struct {
	// HTTP, CoAP, MQTT and Telemetry are the addresses where it listens. They do
	// not change.
	HTTP, CoAP, MQTT, Telemetry []string

	config   Config
	log      *slog.Logger
	metrics  *prometheus.Registry
	recorder *recorder
	state    *stateDir
	rules    *policy.Rules

	files       certificateFiles
	reloads     chan os.Signal // SIGHUP
	reloadError string         // what was logged last; reload's own
	notAfter    atomic.Int64   // when the certificate ends, in Unix time

	entityB   *saef.EntityB
	bindings  []*binding
	contacts  []func() error // serve what the CSE sends to devices, until closed
	sockets   []interface{ Close() error }
	telemetry *http.Server
	closers   []func() // backends

	failed chan error // what made serving impossible
	quit   context.CancelFunc
	wg     sync.WaitGroup // all goroutines that Start started
}

// A binding is one protocol that devices speak.
type binding struct {
	name, network string
	server        interface {
		Serve(*saef.Listener) error
		Shutdown(context.Context) error
	}
	associations func() int
	listeners    []*saef.Listener
}

// Start opens the state, listens and serves. The configuration must be valid.
// When it returns, every listener is open.
func Start(config Config, log *slog.Logger) (*Gateway, error) {
	g := &Gateway{
		config:  config,
		log:     log,
		metrics: prometheus.NewRegistry(),
		reloads: make(chan os.Signal, 1),
		failed:  make(chan error, 1),
	}
	g.recorder = newRecorder(log, config.Log.Access, g.metrics)
	// All sockets are open before the first is served: a start that fails over a
	// port in use has answered nobody.
	for _, step := range []func() error{g.open, g.identify, g.bind, g.listen} {
		if err := step(); err != nil {
			return nil, errors.Join(err, g.release())
		}
	}
	g.serve()
	g.announce()
	return g, nil
}

// announce says for whom the gateway serves: what one looks for first in a log.
func (g *Gateway) announce() {
	var mafs []string
	for name := range g.config.MAFs {
		mafs = append(mafs, string(name))
	}
	slices.Sort(mafs)
	g.log.Info("serving", "cse", g.config.CSE.String(), "mafs", strings.Join(mafs, " "), "state", g.config.State,
		"certificate_ends", time.Unix(g.notAfter.Load(), 0).UTC().Format(time.RFC3339), "version", version.String(), "pid", os.Getpid())
}

// open opens the state and makes the rules of what it remembers.
func (g *Gateway) open() (err error) {
	if g.state, err = openState(g.config.State); err != nil {
		return err
	}
	g.rules, err = policy.New(g.config.policy(g.state.claims))
	return err
}

func (c *Config) policy(memory policy.Memory) policy.Config {
	return policy.Config{CSE: c.CSE, Allowed: c.Allowed, Registrees: c.Registrees, Reserved: c.Reserved, Memory: memory}
}

func (c *Config) files() certificateFiles {
	return certificateFiles{certificate: c.Certificate, key: c.Key, ca: c.CA, cse: c.CSE}
}

// identify makes the Entity B.
func (g *Gateway) identify() error {
	g.files = g.config.files()
	pair, roots, _, err := g.files.load()
	if err != nil {
		return fmt.Errorf("certificate, key and ca: %w", err)
	}
	g.notAfter.Store(pair.Leaf.NotAfter.Unix())
	h := &g.config.Handshake
	engine := &tlspsk.Config{CipherSuites: h.Suites, HandshakeTimeout: h.Timeout}
	if h.RequireExtendedMasterSecret {
		engine.ExtendedMasterSecret = tlspsk.PolicyRequire
	}
	g.entityB = &saef.EntityB{
		MAFs:                   g.config.MAFs,
		Certificate:            pair,
		RootCAs:                roots,
		Config:                 engine,
		MaxHandshakes:          h.MaxConcurrent,
		MaxHandshakesPerSource: h.MaxPerSource,
		MaxFailures:            noLimit(h.FailureBurst),
		FailuresPerSecond:      h.FailuresPerSecond,
		MaxUnknown:             noLimit(h.UnknownBurst),
		UnknownPerSecond:       h.UnknownPerSecond,
		Log:                    g.log,
		OnRefused:              g.recorder.refused,
	}
	return nil
}

// noLimit says "none" the way saef does.
func noLimit(burst int) int {
	if burst == 0 {
		return -1
	}
	return burst
}

// listen opens all sockets of devices and of telemetry, and notes their real
// addresses.
func (g *Gateway) listen() error {
	for _, b := range g.bindings {
		for _, address := range g.addresses(b.name) {
			l, err := g.entityB.Listen(b.network, address)
			if err != nil {
				return listenError(b.name+".listen", address, err)
			}
			b.listeners = append(b.listeners, l)
			g.sockets = append(g.sockets, l)
			bound := map[string]*[]string{"http": &g.HTTP, "coap": &g.CoAP, "mqtt": &g.MQTT}[b.name]
			*bound = append(*bound, l.Addr().String())
		}
	}
	return g.listenTelemetry()
}

func (g *Gateway) addresses(binding string) []string {
	switch binding {
	case "http":
		return g.config.HTTP.Listen
	case "coap":
		return g.config.CoAP.Listen
	}
	return g.config.MQTT.Listen
}

func listenError(key, address string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err // without the address, which is said already
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s: another program listens on %s; stop it, or configure another address", key, address)
	}
	return fmt.Errorf("%s: cannot listen on %s: %w", key, address, err)
}

// serve starts everything that runs until Stop.
func (g *Gateway) serve() {
	ctx, quit := context.WithCancel(context.Background())
	g.quit = quit
	for _, b := range g.bindings {
		for _, l := range b.listeners {
			g.wg.Go(func() { g.failUnless(ctx, b.name, b.server.Serve(l)) })
			g.log.Info("listening", "binding", b.name, "address", l.Addr().String())
		}
	}
	for _, serve := range g.contacts {
		g.wg.Go(func() { g.failUnless(ctx, "notifications", serve()) })
	}
	g.wg.Go(func() { g.watchCertificates(ctx) })
}

// failUnless makes the gateway stop when a server ended by itself.
func (g *Gateway) failUnless(ctx context.Context, what string, err error) {
	if err == nil || ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return
	}
	select {
	case g.failed <- fmt.Errorf("%s: %w", what, err):
	default: // another was first
	}
}

// Stop ends the gateway: it accepts nothing more and lets requests under way
// finish until ctx ends. It must be called once.
func (g *Gateway) Stop(ctx context.Context) error {
	g.quit()
	begin := time.Now()
	var bindings sync.WaitGroup
	for _, b := range g.bindings {
		for _, l := range b.listeners {
			l.Close()
		}
		bindings.Go(func() {
			if err := b.server.Shutdown(ctx); err != nil {
				g.log.Warn("requests were cut off", "binding", b.name, "error", err.Error())
			}
		})
	}
	bindings.Wait()
	if g.telemetry != nil {
		g.telemetry.Close()
	}
	err := g.release()
	g.wg.Wait()
	g.log.Info("stopped", "after", time.Since(begin).Round(time.Millisecond))
	return err
}

// release gives back all that was opened, also when that was not all there is.
func (g *Gateway) release() error {
	for _, s := range g.sockets {
		s.Close() // again, where Stop has done so
	}
	if g.entityB != nil {
		g.entityB.Close()
	}
	for _, c := range g.closers {
		c()
	}
	if g.state != nil {
		return g.state.close()
	}
	return nil
}
