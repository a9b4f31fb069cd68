package mafd

import (
	"errors"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// get asks the telemetry listener.
func (m *testMAF) get(t testing.TB, path string) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://" + m.Runtime.Telemetry[0] + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

var (
	documented = regexp.MustCompile("(?m)^\\| `(mafd_[a-z_]+)(?:\\{([a-z_,]*)\\})?` \\| (counter|gauge|histogram) \\|")
	scraped    = regexp.MustCompile(`(?m)^# TYPE (mafd_\S+) (\S+)$`)
)

// TestMetrics: every kind of event shows, under the names that docs/metrics.md
// lists and no others, and nothing in them tells who the devices are.
func TestMetrics(t *testing.T) {
	config := testConfig(shortDir(t))
	config.Telemetry.Listen = []string{"127.0.0.1:0"}
	m := startMAF(t, config)
	km := m.add(t, meterID, nil)
	for _, network := range []string{"tcp", "udp"} {
		established, err := m.device(t, network, meterID, km).Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.keys(t, m.certificate(t, cityCSE)).Get(t.Context(), established.KcID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.device(t, "tcp", "nobody@maf.example.com", km).Handshake(t.Context()); err == nil {
		t.Fatal("nobody got a key")
	}
	m.metrics.turnedAway.WithLabelValues("tls", "crowded").Inc() // has its own test
	m.metrics.commitFailures.Add(0)

	m.count(t.Context())
	suite := tlspsk.CipherSuites()[0].Name // both sides' first choice
	want := []string{
		`mafd_clients 1`,
		`mafd_handshake_failures_total{reason="unknown_client",transport="tls"} 1`,
		`mafd_handshakes_total{outcome="success",suite="` + suite + `",transport="tls"} 1`,
		`mafd_handshakes_total{outcome="success",suite="` + suite + `",transport="dtls"} 1`,
		`mafd_handshake_seconds_count{transport="tls"} 1`,
		`mafd_handshake_stage_seconds_count{stage="commit",transport="dtls"} 1`,
		`mafd_key_api_requests_total{code="200",kind="key"} 2`,
		`mafd_handshakes_admitted_total{transport="tls"} 2`,
		`mafd_store_commit_seconds_count 2`,
		`mafd_store_writable 1`,
		`mafd_store_bytes `,
		`mafd_certificate_expires_timestamp_seconds{certificate="key_api"} `,
		`mafd_config_reload_success 1`,
	}
	// A client knows that its handshake is done before it is counted.
	var text string
	defer func() {
		if t.Failed() {
			t.Log(text)
		}
	}()
	waitFor(t, "a scrape with all of that", func() bool {
		_, text = m.get(t, "/metrics")
		return !slices.ContainsFunc(want, func(line string) bool { return !strings.Contains(text, line) })
	})
	for _, secret := range []string{"meter7", "nobody", "city.example", "in-cse"} {
		if strings.Contains(text, secret) {
			t.Errorf("the scrape tells of %s", secret)
		}
	}

	manual, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var have, said []string
	for _, found := range scraped.FindAllStringSubmatch(text, -1) {
		have = append(have, found[1]+" "+found[2])
	}
	for _, found := range documented.FindAllStringSubmatch(string(manual), -1) {
		said = append(said, found[1]+" "+found[3])
		for label := range strings.SplitSeq(found[2], ",") {
			if label != "" && !regexp.MustCompile(`(?m)^`+found[1]+`(_bucket|_count)?\{(.*,)?`+label+`=`).MatchString(text) {
				t.Errorf("docs/metrics.md says that %s has the label %s", found[1], label)
			}
		}
	}
	slices.Sort(have)
	slices.Sort(said)
	if !slices.Equal(have, said) {
		t.Errorf("mafd has\n%s\nand docs/metrics.md\n%s", strings.Join(have, "\n"), strings.Join(said, "\n"))
	}
}

// TestHealth: who can't store keys is alive, but not ready, until it can.
func TestHealth(t *testing.T) {
	config := testConfig(shortDir(t))
	config.Telemetry.Listen = []string{"127.0.0.1:0"}
	m := startMAF(t, config)
	status := func(path string) int {
		status, _ := m.get(t, path)
		return status
	}
	if live, ready := status("/livez"), status("/readyz"); live != 200 || ready != 200 {
		t.Errorf("alive: %d, ready: %d", live, ready)
	}
	m.health.stored(errors.New("no space left on device"))
	if code, text := m.get(t, "/readyz"); code != 503 || !strings.Contains(text, "no space left") {
		t.Errorf("ready with a full disk: %d %s", code, text)
	}
	if live := status("/livez"); live != 200 {
		t.Errorf("a full disk is nothing that a restart mends: %d", live)
	}
	if _, text := m.get(t, "/metrics"); !strings.Contains(text, "mafd_store_writable 0") {
		t.Error("the metrics say that the store can be written to")
	}
	m.probe(t.Context())
	if ready := status("/readyz"); ready != 200 {
		t.Errorf("with room on the disk again: %d", ready)
	}
	// What the probe stored is nobody's, and goes.
	if removed, err := m.authority.Purge(t.Context()); err != nil || removed == 0 {
		t.Errorf("%d probes were purged, %v", removed, err)
	}
	clients, err := m.admin.Page(t.Context(), adminapi.Filter{}, onem2m.KmID{}, 0)
	if err != nil || len(clients.Clients) != 0 {
		t.Errorf("the probe made clients: %v, %v", clients, err)
	}
}

// TestNoTelemetry: without an address nothing listens.
func TestNoTelemetry(t *testing.T) {
	m := startMAF(t, testConfig(shortDir(t)))
	if len(m.Runtime.Telemetry) != 0 || len(m.telemetries) != 0 {
		t.Errorf("telemetry listens on %v", m.Runtime.Telemetry)
	}
}
