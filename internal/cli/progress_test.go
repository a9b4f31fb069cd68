package cli

import (
	"bytes"
	"testing"
	"time"
)

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		total, done int64
		since       time.Duration
		want        string
	}{
		{0, 0, 0, "500 devices"},
		{0, 70, 2 * time.Second, "500 devices  250/s"},
		{1000, 250, 10 * time.Second, "[#######.......................]  25%  500 devices  50/s  30s left"},
		{1000, 1000, 10 * time.Second, "[##############################] 100%  500 devices  50/s  0s left"},
		{1000, 1200, time.Millisecond, "[##############################] 100%  500 devices"}, // the file has grown
	} {
		p := &progress{what: "devices", total: c.total}
		if got := p.line(c.done, 500, c.since); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// TestProgressNowhere: what isn't a terminal gets no line.
func TestProgressNowhere(t *testing.T) {
	var out, failure bytes.Buffer
	p := newOutput(&out, &failure).progress("devices", 10)
	p.show(5, 5)
	p.end()
	if out.Len()+failure.Len() > 0 {
		t.Errorf("%q, %q", out.String(), failure.String())
	}
}
