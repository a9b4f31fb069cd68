package mafd

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/admission"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// An outcomeLog writes a line about each MAF Handshake.
//
// Anybody can make handshakes fail, so lines about failures are limited and
// the rest is counted; see failureRate.
type outcomeLog struct {
	log      *slog.Logger
	failures limiter
}

func newOutcomeLog(log *slog.Logger) *outcomeLog {
	o := &outcomeLog{log: log}
	o.failures = limiter{rate: failureRate, missed: func(n int) {
		log.Warn("handshake failures not logged, there were too many", "count", n)
	}}
	return o
}

// handshake writes the line about a handshake that took so long and ended with
// err.
func (o *outcomeLog) handshake(conn *tlspsk.Conn, a *attempt, took time.Duration, err error) {
	level, message := slog.LevelInfo, "handshake"
	if err != nil {
		level, message = slog.LevelWarn, "handshake failed"
	}
	if !o.log.Enabled(context.Background(), level) || err != nil && !o.failures.allow() {
		return
	}
	attrs := make([]slog.Attr, 0, 10)
	if err != nil {
		attrs = append(attrs, slog.String("reason", reason(a, err)))
	}
	if a.identity != nil {
		attrs = append(attrs, identityAttr(a.identity))
	}
	if err != nil && a.serverName != "" {
		attrs = append(attrs, slog.String("sni", hostile(a.serverName)))
	}
	if err == nil { // and then the SNI, if any, is the KmID's FQDN
		attrs = append(attrs,
			slog.String("KcID", a.issued.KcID.String()),
			slog.String("IdB", a.issued.IdB.String()),
			slog.Time("expires", a.issued.Expires.UTC()))
	}
	if a.suite != 0 {
		attrs = append(attrs, slog.String("suite", tlspsk.CipherSuiteName(a.suite)), slog.Bool("ems", a.ems))
	}
	attrs = append(attrs,
		slog.String("transport", transport(conn.LocalAddr())),
		slog.String("remote", conn.RemoteAddr().String()),
		slog.Int64("microseconds", took.Microseconds()))
	o.log.LogAttrs(context.Background(), level, message, attrs...)
}

// turnedAway writes a line about a client that may not begin a handshake.
func (o *outcomeLog) turnedAway(conn net.Conn, err error) {
	if o.failures.allow() {
		o.log.Warn("handshake refused", "reason", err.Error(),
			"transport", transport(conn.LocalAddr()), "remote", conn.RemoteAddr().String())
	}
}

// acceptFailed reports that newcomers can't be let in.
func (o *outcomeLog) acceptFailed(addr net.Addr, err error) {
	if o.failures.allow() {
		o.log.Error("cannot accept connections", "transport", transport(addr), "address", addr.String(), "error", err.Error())
	}
}

// close tells how many lines were left out at last.
func (o *outcomeLog) close() { o.failures.flush() }

// reason says why a handshake failed: by the authority's word where it had
// one, which is more than the client got.
func reason(a *attempt, err error) string {
	if a.refused != nil {
		return a.refused.Error()
	}
	text := strings.TrimPrefix(err.Error(), "tlspsk: ")
	if wrongKm(a, err) {
		return "wrong Km: " + text
	}
	return text
}

// wrongKm reports whether a known client failed to prove its key.
func wrongKm(a *attempt, err error) bool {
	var alert *tlspsk.AlertError
	return a.master != nil && errors.As(err, &alert) && !alert.Remote &&
		(alert.Alert == tlspsk.AlertBadRecordMAC || alert.Alert == tlspsk.AlertDecryptError)
}

// identityAttr shows a psk_identity. What is a KmID has no hostile characters.
func identityAttr(identity []byte) slog.Attr {
	if id, err := onem2m.ParseKmID(string(identity)); err == nil {
		return slog.String("KmID", id.String())
	}
	return slog.String("identity", hostile(string(identity)))
}

// hostile shows a text from a stranger: a domain name as it is, and others
// short, in ASCII, and without anything that a terminal or a log reader would
// obey.
func hostile(s string) string {
	if fqdn, err := onem2m.ParseFQDN(s); err == nil {
		return fqdn.String()
	}
	const most = 128
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

func transport(addr net.Addr) string {
	if strings.HasPrefix(addr.Network(), "udp") {
		return "dtls"
	}
	return "tls"
}

// A limiter lets events through at a rate and counts the rest.
type limiter struct {
	rate admission.Rate
	// missed is called with the number of events that were not let through,
	// some time after the first of them.
	missed func(n int)

	mu      sync.Mutex
	bucket  admission.Bucket // guarded by mu, as what follows
	dropped int
	report  *time.Timer // set while dropped > 0
}

// reportAfter is how long a limiter collects before it calls missed.
const reportAfter = 10 * time.Second

// allow reports whether an event may pass.
func (l *limiter) allow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.bucket.Take(l.rate, time.Now()) {
		return true
	}
	l.dropped++
	if l.report == nil {
		l.report = time.AfterFunc(reportAfter, l.flush)
	}
	return false
}

// flush calls missed now, if there is anything to tell.
func (l *limiter) flush() {
	l.mu.Lock()
	n := l.dropped
	l.dropped = 0
	if l.report != nil {
		l.report.Stop()
		l.report = nil
	}
	l.mu.Unlock()
	if n > 0 {
		l.missed(n)
	}
}
