package mafd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/adminapi/adminserver"
	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi/keyserver"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
)

// maxKeyAPIConnections bounds what strangers can hold open at the key API.
// There are few Entity Bs, and each keeps a handful of connections.
const maxKeyAPIConnections = 4096

// purgeEvery is how often expired keys are looked for.
const purgeEvery = time.Minute

// A Daemon is a running MAF. Start makes one, Stop ends it.
type Daemon struct {
	// Runtime tells where it listens. It does not change.
	Runtime adminapi.Runtime

	config   Config // as it was started; see live
	live     atomic.Pointer[Config]
	log      *slog.Logger
	outcomes *outcomeLog
	// The key API's log, and what limits it.
	keyAPILog      *slog.Logger
	keyAPIFailures *limiter

	state *stateDir
	db    *database
	ca    *pki.Authority

	registry *prometheus.Registry
	metrics  *metrics
	audit    *auditTrail
	health   *health
	counts   atomic.Pointer[counts] // nil until they are known

	places    connections
	authority *authority.Authority
	keyset    *keysetKeeper
	endpoint  *endpoint
	keyAPI    *http.Server
	keyAPITLS *liveTLS
	admin     *http.Server
	telemetry *http.Server

	handshakes, keyAPIs, telemetries []net.Listener
	adminSocket                      net.Listener

	failed chan error // what made serving impossible
	quit   context.CancelFunc
	wg     sync.WaitGroup // all goroutines that Start started, save for
	// those that accept handshakes.
	accepting sync.WaitGroup
}

// Start opens the state, listens, and serves. The configuration must be valid;
// ctx is for the start only.
// When it returns, every listener is open and its address is in Runtime, here
// and in the state folder.
func Start(ctx context.Context, config Config, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{config: config, log: log, outcomes: newOutcomeLog(log), failed: make(chan error, 1),
		registry: prometheus.NewRegistry(), health: &health{}}
	d.metrics = newMetrics(d.registry)
	d.loaded(config)
	d.keyAPILog, d.keyAPIFailures = newKeyAPILog(log)
	// All sockets are open before the first is served: a start that fails over
	// a port in use has answered nobody.
	for _, step := range []func(context.Context) error{d.fit, d.open, d.openAudit, d.wire, d.listen} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, d.release())
		}
	}
	d.serve()
	if err := d.announce(); err != nil {
		return nil, errors.Join(err, d.Stop(context.Background()))
	}
	return d, nil
}

// fit finds out how many connections there can be.
func (d *Daemon) fit(context.Context) error {
	files, err := openFiles()
	if err != nil {
		return err
	}
	if d.places, err = fit(files, d.config.Handshake.MaxConcurrent); err != nil {
		return err
	}
	if d.places.tls < d.config.Handshake.MaxConcurrent {
		d.log.Info("the limit of open files allows for less than handshake.max_concurrent over TLS",
			"files", files, "tls", d.places.tls, "keyapi", d.places.keyAPI)
	}
	return nil
}

// HandshakeStats returns the counters of the MAF Handshakes over TLS and DTLS.
func (d *Daemon) HandshakeStats() (tls, dtls admission.Stats) {
	return d.endpoint.tls.gate.Stats(), d.endpoint.dtls.gate.Stats()
}

// open locks and reads the state folder, and makes what a first start finds
// missing.
func (d *Daemon) open(ctx context.Context) (err error) {
	if d.state, err = openState(d.config.State); err != nil {
		return err
	}
	if d.ca, err = d.state.authority(time.Now()); err != nil {
		return err
	}
	d.db, err = d.state.database(ctx, d.config.Store, d.config.Keyset, watcher{d.metrics.transaction, d.log})
	return err
}

// wire connects the parts.
func (d *Daemon) wire(ctx context.Context) (err error) {
	d.authority, err = authority.New(ctx, authority.Config{
		FQDNs:   d.config.FQDNs,
		Clients: d.db.Clients(),
		Keys:    meteredKeys{d.db.Keys(), d.metrics, d.health},
		Sealer:  d.db.keyset,
		Revoked: d.db.revoked,
	})
	if err != nil {
		return err
	}
	d.endpoint = newEndpoint(d.authority, d.config.Handshake, d.places.tls, d.outcomes, d.metrics)
	d.endpoint.audit = d.audit
	first, err := d.config.keyAPITLS(d.ca)
	if err != nil {
		return err
	}
	d.keyAPITLS = &liveTLS{}
	d.keyAPITLS.current.Store(first)
	d.keyAPI = keyserver.NewServer(d.keyAPITLS.serverConfig(), auditedKeys{d.authority, d.audit}, d.keyAPILog)
	d.keyAPI.Handler = d.metrics.meteredAPI(d.audit.entityBs(d.keyAPITLS.vouched(d.keyAPI.Handler)))
	d.keyAPI.ConnContext = d.keyAPITLS.connContext
	d.keyAPI.ConnState = welcome
	d.keyset = d.newKeysetKeeper()
	admin := adminserver.Config{
		Clients:         auditedClients{d.authority, d.audit},
		Keyset:          auditedKeyset{d.keyset, d.audit},
		Status:          func() adminapi.Runtime { return d.Runtime },
		DefaultLifetime: d.config.Keys.DefaultLifetime,
		MinLifetime:     d.config.Keys.MinLifetime,
		MaxLifetime:     d.config.Keys.MaxLifetime,
		AllowKeyExport:  d.config.Admin.AllowKeyExport,
		BeforeKeyExport: d.audit.exportsKeys,
		Denied:          d.audit.deniedAdmin,
		Log:             d.log,
	}
	if d.config.ownAuthority() {
		admin.IssueEntityB = d.issueEntityBAudited
	}
	d.admin = adminserver.NewServer(admin)
	return nil
}

func (d *Daemon) issueEntityB(id onem2m.CSEID, life time.Duration) (adminapi.EntityB, error) {
	b, err := d.ca.EntityB(id, time.Now(), life)
	if err != nil {
		return adminapi.EntityB{}, err
	}
	return adminapi.EntityB{
		CSEID:       id,
		Certificate: string(b.CertificatePEM),
		Key:         adminapi.Key{Key: b.KeyPEM},
		CA:          string(d.ca.CertificatePEM()),
		NotAfter:    b.NotAfter,
	}, nil
}

// serve starts everything that runs until Stop.
func (d *Daemon) serve() {
	ctx, quit := context.WithCancel(context.Background())
	d.quit = quit
	for _, l := range d.handshakes {
		d.accepting.Go(func() { d.endpoint.serve(l) })
	}
	for _, l := range d.keyAPIs {
		d.wg.Go(func() { d.failUnlessClosed("key API", d.keyAPI.ServeTLS(l, "", "")) })
	}
	d.wg.Go(func() { d.failUnlessClosed("admin API", d.admin.Serve(d.adminSocket)) })
	for _, l := range d.telemetries {
		d.wg.Go(func() { d.failUnlessClosed("telemetry", d.telemetry.Serve(l)) })
	}
	d.wg.Go(func() { d.purge(ctx) })
	d.wg.Go(func() { d.keyset.run(ctx) })
	d.wg.Go(func() { d.watchStore(ctx) })
}

// failUnlessClosed makes the daemon stop when a server ended by itself.
func (d *Daemon) failUnlessClosed(what string, err error) {
	if errors.Is(err, http.ErrServerClosed) {
		return
	}
	select {
	case d.failed <- fmt.Errorf("%s: %w", what, err):
	default: // another was first
	}
}

// purge removes expired keys from time to time, and counts what there is, until
// ctx ends.
func (d *Daemon) purge(ctx context.Context) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		d.count(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		n, err := d.authority.Purge(ctx)
		d.metrics.purged.Add(float64(n))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			d.log.Error("removing expired keys failed; they stay expired", "error", err.Error())
		case n > 0:
			d.log.Debug("removed expired keys", "count", n)
		}
	}
}

// count notes how much there is, for the metrics; without an answer what was
// known stands.
func (d *Daemon) count(ctx context.Context) {
	if clients, keys, err := d.db.Counts(ctx); err == nil {
		d.counts.Store(&counts{clients, keys})
	}
}

// Stop ends the daemon: it accepts nothing more, lets handshakes and requests
// under way finish until ctx ends, and closes the store. It must be called
// once.
func (d *Daemon) Stop(ctx context.Context) error {
	d.state.removeRuntime() // first, so that nobody is led to closed doors
	d.quit()
	var servers sync.WaitGroup
	for _, server := range []*http.Server{d.keyAPI, d.admin} {
		servers.Go(func() {
			if server.Shutdown(ctx) != nil {
				server.Close()
			}
		})
	}
	for _, l := range d.handshakes {
		l.Close()
	}
	// Who has been accepted is under way, even if it isn't begun yet: where the
	// service manager keeps the socket, nobody is turned away by a restart.
	accepted := make(chan struct{})
	go func() {
		d.accepting.Wait()
		close(accepted)
	}()
	select {
	case <-accepted:
	case <-ctx.Done():
	}
	d.endpoint.drain(ctx)
	<-accepted
	servers.Wait()
	d.telemetry.Close() // last: until here it said that mafd is stopping
	err := d.release()
	d.wg.Wait()
	d.outcomes.close()
	d.keyAPIFailures.flush()
	d.log.Info("stopped")
	return err
}

// release gives back all that was opened, also when that was not all there is.
func (d *Daemon) release() error {
	var errs []error
	for _, l := range slices.Concat(d.handshakes, d.keyAPIs, d.telemetries) {
		l.Close() // again, where Stop has done so
	}
	if d.adminSocket != nil {
		d.adminSocket.Close()
	}
	if d.db != nil {
		errs = append(errs, d.db.close())
	}
	errs = append(errs, d.audit.close())
	if d.state != nil {
		d.state.close()
	}
	return errors.Join(errs...)
}
