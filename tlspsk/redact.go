package tlspsk

import (
	"fmt"
	"log/slog"
)

// What holds a key shows everything but the key to fmt, log/slog and
// encoding/json: a Config in a log line or an error must not give it away.

// Format writes the Config as fmt would, without Key.
func (c Config) Format(s fmt.State, verb rune) {
	type plain Config // without methods
	c.Key = nil
	fmt.Fprintf(s, fmt.FormatString(s, verb), plain(c))
}

// LogValue returns the Config as text, without Key.
func (c Config) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", c)) }

// Format writes the PSK as fmt would, without Key.
func (p PSK) Format(s fmt.State, verb rune) {
	type plain PSK // without methods
	p.Key = nil
	fmt.Fprintf(s, fmt.FormatString(s, verb), plain(p))
}

// LogValue returns the PSK as text, without Key.
func (p PSK) LogValue() slog.Value { return slog.StringValue(fmt.Sprintf("%+v", p)) }

// MarshalText returns the PSK as text, without Key. (A Config can't be marshalled:
// it holds functions.)
func (p PSK) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%+v", p), nil }

// Format writes the two addresses. What else there is in a Conn is full of keys,
// to which fmt would find its way.
func (c *Conn) Format(s fmt.State, _ rune) {
	fmt.Fprintf(s, "tlspsk.Conn(%v, %v)", c.LocalAddr(), c.RemoteAddr())
}
