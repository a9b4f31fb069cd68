package audit

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"time"
)

// A Syslog is a sink over the syslog protocol. A nil one is none. Only the log's
// goroutine uses it.
//
// Over UDP, and over TCP for the last lines before a connection breaks, nobody
// learns whether a line arrived.
type Syslog struct {
	network, address string
	host             string

	conn   net.Conn  // nil until it is needed
	retry  time.Time // no attempt before
	failed error     // why
}

const (
	// Facility authpriv, severity info: RFC 5424 6.2.1.
	syslogPriority = 10*8 + 6
	localSocket    = "/dev/log"

	dialTimeout  = 2 * time.Second
	writeTimeout = 5 * time.Second
	// syslogRetry is how long a receiver that failed is left alone, so that it
	// does not slow down the file.
	syslogRetry = 15 * time.Second
)

// NewSyslog returns a sink for "local", which is this machine's syslog, or for
// udp://host:port or tcp://host:port. It does not connect yet.
func NewSyslog(target string) (*Syslog, error) {
	host, err := os.Hostname()
	if err != nil || host == "" || len(host) > 255 {
		host = "-"
	}
	if target == "local" {
		return &Syslog{network: "unixgram", address: localSocket, host: host}, nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "udp" && u.Scheme != "tcp" || u.Host == "" || target != u.Scheme+"://"+u.Host {
		return nil, fmt.Errorf(`must be "local", or such as "udp://192.0.2.7:514" or "tcp://logs.example.com:601"`)
	}
	if _, port, err := net.SplitHostPort(u.Host); err != nil {
		return nil, errors.New("must name a port, such as " + u.Scheme + "://" + net.JoinHostPort(u.Hostname(), "514"))
	} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, fmt.Errorf("names a port that is not one: %q", port)
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && a.IsUnspecified() {
		return nil, errors.New("names no machine")
	}
	return &Syslog{network: u.Scheme, address: u.Host, host: host}, nil
}

// write sends whole lines.
func (s *Syslog) write(lines []byte, now time.Time) error {
	if s.conn == nil && now.Before(s.retry) {
		return s.failed
	}
	if err := s.send(lines, now); err != nil {
		s.close()
		s.retry, s.failed = now.Add(syslogRetry), fmt.Errorf("syslog: %w", err)
		return s.failed
	}
	return nil
}

func (s *Syslog) send(lines []byte, now time.Time) (err error) {
	if s.conn == nil {
		if s.conn, err = net.DialTimeout(s.network, s.address, dialTimeout); err != nil {
			return err
		}
	}
	if err := s.conn.SetWriteDeadline(now.Add(writeTimeout)); err != nil {
		return err
	}
	var out []byte
	for line := range bytes.Lines(lines) {
		out = s.frame(out, bytes.TrimSuffix(line, []byte("\n")), now)
		if s.network != "tcp" {
			if _, err := s.conn.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
	}
	if len(out) > 0 {
		_, err = s.conn.Write(out)
	}
	return err
}

// frame appends a message. This machine's syslog expects the old form (RFC 3164)
// without a host; others get RFC 5424, over TCP with its length before it (RFC
// 6587 3.4.1). MSG is ASCII, so it needs no byte order mark.
func (s *Syslog) frame(b, line []byte, now time.Time) []byte {
	if s.network == "unixgram" {
		b = fmt.Appendf(b, "<%d>%s mafd[%d]: ", syslogPriority, now.Format(time.Stamp), os.Getpid())
		return append(b, line...)
	}
	header := fmt.Sprintf("<%d>1 %s %s mafd %d audit - ", syslogPriority, now.UTC().Format(timeFormat), s.host, os.Getpid())
	if s.network == "tcp" {
		b = fmt.Appendf(b, "%d ", len(header)+len(line))
	}
	b = append(b, header...)
	return append(b, line...)
}

func (s *Syslog) close() {
	if s != nil && s.conn != nil {
		s.conn.Close() // nothing is buffered
		s.conn = nil
	}
}
