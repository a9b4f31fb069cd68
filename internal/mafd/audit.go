package mafd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/audit"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/version"
	"github.com/onem2m-maf/maf/onem2m"
)

// AuditConfig is the audit log. See package audit.
type AuditConfig struct {
	Enabled bool
	Folder  string // empty for AuditFolder in the state folder
	Syslog  string // what audit.NewSyslog takes; empty for none
	// Handshakes is "durable" or "buffered": whether a device gets its Finished
	// only when its line is on stable storage.
	Handshakes string
	// OnFailure is "continue" or "refuse".
	OnFailure string
	// In MiB.
	FileSize, MinFree int
}

// auditQueue is how many events may wait, of some 500 octets each.
const auditQueue = 16384

// config turns settings, which are valid, into the log's.
func (c *AuditConfig) config(state string, log *slog.Logger) (audit.Config, error) {
	a := audit.Config{
		File: audit.FileConfig{
			Folder:  c.Folder,
			MaxSize: int64(c.FileSize) << 20,
			MinFree: int64(c.MinFree) << 20,
		},
		Refuse: c.OnFailure == "refuse",
		Queue:  auditQueue,
		Log:    log,
	}
	if a.File.Folder == "" {
		a.File.Folder = filepath.Join(state, adminapi.AuditFolder)
	}
	var err error
	if c.Syslog != "" {
		a.Syslog, err = audit.NewSyslog(c.Syslog)
	}
	return a, err
}

// syslogTarget reads where syslog is.
func syslogTarget(p *string) func(s, _ string) error {
	return func(s, _ string) error {
		if s != "" {
			if _, err := audit.NewSyslog(s); err != nil {
				return err
			}
		}
		*p = s
		return nil
	}
}

// An auditTrail records what mafd does. A nil one records nothing.
type auditTrail struct {
	log        *audit.Log // nil when it is off
	handshakes func(context.Context, audit.Event) error
	// Failures that strangers can cause are limited, as they are in the log.
	failures limiter
}

// openAudit opens the audit log, with this start in it.
func (d *Daemon) openAudit(context.Context) error {
	d.audit = &auditTrail{}
	c := &d.config.Audit
	if c.Enabled {
		config, err := c.config(d.state.path, d.log)
		if err != nil {
			return err
		}
		start := audit.Event{Subject: "mafd " + version.String()}
		if d.audit.log, err = audit.Open(config, start); err != nil {
			return err
		}
	}
	d.audit.begin(c.Handshakes == "durable")
	d.registry.MustRegister(d.audit)
	return nil
}

func (a *auditTrail) begin(durable bool) {
	a.handshakes = a.log.Record
	if durable {
		a.handshakes = a.log.Commit
	}
	a.failures = limiter{rate: failureRate, missed: func(n int) {
		a.record(audit.Event{Kind: audit.Unlisted, Role: audit.System, Outcome: audit.Refused, Count: uint64(n),
			Reason: "failures that strangers can cause were too many to list"})
	}}
}

func (a *auditTrail) close() error {
	if a == nil {
		return nil
	}
	a.failures.flush()
	return a.log.Close()
}

// record is for what has happened already, whatever becomes of its line: who
// must not go on without one was stopped by Ready.
func (a *auditTrail) record(e audit.Event) {
	a.log.Record(context.Background(), e)
}

// established is called with a Kc that is committed, before the device learns of
// it. An error says that it must not.
func (a *auditTrail) established(ctx context.Context, conn net.Conn, i *authority.Issued) error {
	if a == nil {
		return nil
	}
	return a.handshakes(ctx, audit.Event{
		Kind: audit.Handshake, Role: audit.Device, Actor: i.KmID.String(), Subject: i.KcID.String(),
		EntityB: i.IdB.String(), Remote: remote(conn), Outcome: audit.OK,
	})
}

// ready returns an error when the audit log can't be written and nothing must be
// done without.
func (a *auditTrail) ready() error {
	if a == nil {
		return nil
	}
	return a.log.Ready()
}

// failed records a handshake that failed.
func (a *auditTrail) failed(conn net.Conn, at *attempt, err error) {
	if a == nil || !a.failures.allow() {
		return
	}
	e := audit.Event{Kind: audit.Handshake, Role: audit.Unproven, Remote: remote(conn), Outcome: audit.Refused, Reason: reason(at, err)}
	if at.ours {
		e.Outcome = audit.Failed
	}
	if at.identity != nil {
		e.Actor = identityAttr(at.identity).Value.String()
	}
	if !at.issued.KcID.IsZero() { // there is a line that says so
		e.Role, e.Subject = audit.Device, at.issued.KcID.String()
		e.Reason = "after Kc was committed: " + e.Reason
	}
	a.record(e)
}

// turnedAway records a client that could not even begin a handshake.
func (a *auditTrail) turnedAway(conn net.Conn, err error) {
	if a == nil || !a.failures.allow() {
		return
	}
	a.record(audit.Event{Kind: audit.Handshake, Role: audit.Unproven, Remote: remote(conn), Outcome: audit.Refused, Reason: err.Error()})
}

// reloaded records what SIGHUP led to.
func (a *auditTrail) reloaded(restart []string, err error) {
	e := audit.Event{Kind: audit.Reload, Role: audit.System, Outcome: audit.OK}
	if len(restart) > 0 {
		e.Reason = "changed, but only a restart puts it to use: " + strings.Join(restart, " ")
	}
	if err != nil {
		e.Outcome, e.Reason = audit.Refused, err.Error()
	}
	a.record(e)
}

func remote(conn net.Conn) string {
	return transport(conn.LocalAddr()) + ":" + conn.RemoteAddr().String()
}

// auditedKeys is the authority as the key API sees it: no key leaves without a
// line on stable storage.
type auditedKeys struct {
	*authority.Authority
	audit *auditTrail
}

func (k auditedKeys) Release(ctx context.Context, idB onem2m.CSEID, id onem2m.KcID) (authority.Released, error) {
	e := audit.Event{Kind: audit.Release, Role: audit.EntityB, Actor: idB.String(), Subject: id.String(), Remote: remoteOf(ctx), Outcome: audit.OK}
	released, err := k.Authority.Release(ctx, idB, id)
	switch {
	case err == nil:
		e.EntityB, e.Reason = idB.String(), "of "+released.KmID.String()
		if err := k.audit.log.Commit(ctx, e); err != nil {
			released.Kc.Wipe()
			return authority.Released{}, err
		}
		return released, nil
	case !k.audit.failures.allow(): // an Entity B that went wrong, or was taken over
	case errors.Is(err, authority.ErrNotFound):
		e.Outcome, e.Reason = audit.Refused, err.Error()
		k.audit.record(e)
	default:
		e.Outcome, e.Reason = audit.Failed, err.Error()
		k.audit.record(e)
	}
	return authority.Released{}, err
}

type remoteKey struct{}

func remoteOf(ctx context.Context) string {
	address, _ := ctx.Value(remoteKey{}).(string)
	return address
}

// entityBs is the key API with a line about each Entity B that is not let in for
// what is in its certificate. (Those whose certificate nobody vouches for don't
// get through TLS; the log has them.)
func (a *auditTrail) entityBs(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := &statusWriter{ResponseWriter: w}
		api.ServeHTTP(answer, r.WithContext(context.WithValue(r.Context(), remoteKey{}, r.RemoteAddr)))
		if answer.status != http.StatusForbidden || !a.failures.allow() {
			return
		}
		e := audit.Event{Kind: audit.RefuseEntityB, Role: audit.Unproven, Remote: r.RemoteAddr, Outcome: audit.Refused,
			Reason: "the certificate names no CSE-ID, or nobody vouches for it any more"}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			e.Actor = r.TLS.PeerCertificates[0].Subject.String()
		}
		a.record(e)
	})
}

var (
	auditLines = prometheus.NewDesc("mafd_audit_lines_total", "Lines of the audit log that were written.", nil, nil)
	auditLost  = prometheus.NewDesc("mafd_audit_dropped_total", "Audit events that were dropped since no sink could be written.", nil, nil)
	auditMiss  = prometheus.NewDesc("mafd_audit_missed_total", "Lines of the audit log that one sink did not get, while another did.", nil, nil)
	auditWait  = prometheus.NewDesc("mafd_audit_waiting", "Audit events that wait to be written.", nil, nil)
	auditUp    = prometheus.NewDesc("mafd_audit_writable", "1 while a sink of the audit log can be written, 0 while none can.", nil, nil)
)

// Describe implements prometheus.Collector.
func (a *auditTrail) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(a, ch) }

// Collect implements prometheus.Collector.
func (a *auditTrail) Collect(ch chan<- prometheus.Metric) {
	s := a.log.Stats()
	ch <- prometheus.MustNewConstMetric(auditLines, prometheus.CounterValue, float64(s.Written))
	ch <- prometheus.MustNewConstMetric(auditLost, prometheus.CounterValue, float64(s.Dropped))
	ch <- prometheus.MustNewConstMetric(auditMiss, prometheus.CounterValue, float64(s.Missed))
	ch <- prometheus.MustNewConstMetric(auditWait, prometheus.GaugeValue, float64(s.Waiting))
	up := 1.0
	if s.Unwritable {
		up = 0
	}
	ch <- prometheus.MustNewConstMetric(auditUp, prometheus.GaugeValue, up)
}
