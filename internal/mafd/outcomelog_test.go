package mafd

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/internal/admission"
)

// TestLimiter: a flood of failures costs a bounded number of lines, and the
// number of those left out is told.
func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var missed []int
		l := limiter{rate: admission.Rate{Burst: 3, PerSecond: 2}, missed: func(n int) { missed = append(missed, n) }}
		passed := func(n int) (passed int) {
			for range n {
				if l.allow() {
					passed++
				}
			}
			return passed
		}
		if n := passed(10); n != 3 {
			t.Errorf("%d events passed at once, the burst is 3", n)
		}
		time.Sleep(time.Second)
		if n := passed(10); n != 2 {
			t.Errorf("%d events passed a second later, the rate is 2", n)
		}
		time.Sleep(reportAfter)
		synctest.Wait()
		if len(missed) != 1 || missed[0] != 15 {
			t.Errorf("reported as missed: %v, want 15 once", missed)
		}
		if n := passed(3); n != 3 {
			t.Errorf("%d events passed after silence, the burst is 3", n)
		}
		l.flush()
		if len(missed) != 1 {
			t.Errorf("reported again: %v", missed)
		}
		passed(1)
		l.flush()
		if len(missed) != 2 || missed[1] != 1 {
			t.Errorf("flush did not report: %v", missed)
		}
	})
}

// TestHostileIdentity: nothing that a stranger sends reaches the log as it is.
func TestHostileIdentity(t *testing.T) {
	for _, c := range []struct{ identity, want string }{
		{"Meter7@MAF.example.com", "KmID=meter7@maf.example.com"},
		{"", `identity="\"\""`},
		{"\x1b[2J\nlevel=INFO msg=handshake", `\\x1b[2J\\nlevel=INFO`},
		{"\u202egnp.exe@maf.example.com", `\\u202egnp`},
		{strings.Repeat("x", 1000), strings.Repeat("x", 128) + `\"..."`},
	} {
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", identityAttr([]byte(c.identity)))
		line := out.String()
		if !strings.Contains(line, c.want) {
			t.Errorf("%q is logged as %s", c.identity, line)
		}
		if strings.Count(line, "\n") != 1 || strings.ContainsAny(line, "\x1b\u202e") || len(line) > 300 {
			t.Errorf("%q makes the line %q", c.identity, line)
		}
	}
}
