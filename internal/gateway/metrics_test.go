package gateway

import (
	"fmt"
	"log/slog"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

var (
	metricRow = regexp.MustCompile("(?m)^\\| `(mafgw_\\w+)` \\|([^|]*)\\|")
	reasonRow = regexp.MustCompile("(?m)^\\| `([a-z_*]+)` \\|")
	name      = regexp.MustCompile("`(\\w+)`")
)

func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMetricsDocumented: docs/gateway.md lists every metric with its labels, and
// no others.
func TestMetricsDocumented(t *testing.T) {
	c := Defaults()
	if err := c.LoadFile(configure(t, inCSE, time.Now(), "")); err != nil {
		t.Fatal(err)
	}
	c.Telemetry.Listen = []string{"127.0.0.1:0"}
	g, err := Start(c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Stop(t.Context())
	// A metric with labels is not there until it counts something.
	g.recorder.Record(access.Entry{Binding: "http"})
	g.recorder.refused(saef.Refusal{RemoteAddr: g.sockets[0].(*saef.Listener).Addr(), Err: saef.ErrTurnedAway})
	families, err := g.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "mafgw_") {
			continue // Go's own, and the process's
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got[f.GetName()] = fmt.Sprint(labels)
	}
	want := make(map[string]string)
	for _, row := range metricRow.FindAllStringSubmatch(manual(t), -1) {
		var labels []string
		for _, l := range name.FindAllStringSubmatch(row[2], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		want[row[1]] = fmt.Sprint(labels)
	}
	if !maps.Equal(got, want) {
		t.Errorf("the metrics are\n%v\nand docs/gateway.md has\n%v", got, want)
	}
	for _, used := range regexp.MustCompile(`mafgw_\w+`).FindAllString(manual(t), -1) {
		if _, ok := got[used]; !ok {
			t.Errorf("docs/gateway.md speaks of %s, which there is not", used)
		}
	}
}

// TestReasons: each kind of failed handshake has its reason, and docs/gateway.md
// says of each what to do.
func TestReasons(t *testing.T) {
	_, section, _ := strings.Cut(manual(t), "\n### When an association is refused\n")
	documented := make(map[string]bool)
	for _, row := range reasonRow.FindAllStringSubmatch(section, -1) {
		documented[row[1]] = true
	}
	wrap := func(err error) error { return fmt.Errorf("context: %w", err) }
	seen := make(map[string]bool)
	for want, err := range map[string]error{
		"turned_away":          saef.ErrTurnedAway,
		"maf_unavailable":      saef.ErrMAFUnavailable,
		"too_many_unknown":     saef.ErrTooManyUnknown,
		"revoked":              saef.ErrRevoked,
		"unknown_key":          tlspsk.ErrUnknownIdentity,
		"by_peer":              &tlspsk.AlertError{Alert: tlspsk.AlertBadRecordMAC, Remote: true},
		"alert_bad_record_mac": &tlspsk.AlertError{Alert: tlspsk.AlertBadRecordMAC},
		"broken_off":           os.ErrDeadlineExceeded,
	} {
		got := reasonOf(wrap(err))
		if got != want {
			t.Errorf("%v is %q, want %q", err, got, want)
		}
		if strings.HasPrefix(got, "alert_") {
			got = "alert_*"
		}
		if !documented[got] {
			t.Errorf("docs/gateway.md does not say what %s means", got)
		}
		seen[got] = true
	}
	for reason := range documented {
		if !seen[reason] {
			t.Errorf("docs/gateway.md has the reason %s, which there is not", reason)
		}
	}
}
