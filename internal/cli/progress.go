package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progressEvery is how often a progress line is drawn.
const progressEvery = 200 * time.Millisecond

// progress draws a line on a terminal about work that takes minutes. Elsewhere,
// and with --json, it draws nothing.
type progress struct {
	w     io.Writer // nil draws nothing
	what  string
	total int64 // of done; 0 when not known
	begun time.Time
	drawn time.Time
}

func (o *output) progress(what string, total int64) *progress {
	p := &progress{what: what, total: total, begun: time.Now()}
	if isTerminal(o.stderr) && !o.json {
		p.w = o.stderr
	}
	return p
}

// show says how much of the total is done, in how many items.
func (p *progress) show(done int64, items int) {
	if now := time.Now(); p.w != nil && now.Sub(p.drawn) >= progressEvery {
		p.drawn = now
		fmt.Fprintf(p.w, "\r\x1b[K%s", p.line(done, items, now.Sub(p.begun)))
	}
}

// end takes the line away, for what comes next.
func (p *progress) end() {
	if p.w != nil && !p.drawn.IsZero() {
		io.WriteString(p.w, "\r\x1b[K")
	}
}

func (p *progress) line(done int64, items int, since time.Duration) string {
	const width = 30
	var b strings.Builder
	if p.total > 0 {
		part := min(float64(done)/float64(p.total), 1)
		full := int(part * width)
		fmt.Fprintf(&b, "[%s%s] %3.0f%%  ", strings.Repeat("#", full), strings.Repeat(".", width-full), part*100)
	}
	fmt.Fprintf(&b, "%d %s", items, p.what)
	if seconds := since.Seconds(); seconds >= 1 {
		fmt.Fprintf(&b, "  %.0f/s", float64(items)/seconds)
		if p.total > 0 && done > 0 {
			left := time.Duration(float64(since) * (float64(p.total)/float64(done) - 1))
			fmt.Fprintf(&b, "  %v left", max(left, 0).Round(time.Second))
		}
	}
	return b.String()
}

// counted counts what is read of a file.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// fileSize is a regular file's size, and 0 for others.
func fileSize(f *os.File) int64 {
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		return info.Size()
	}
	return 0
}
