package configfile

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A Setter reads one value of the configuration file. Its error follows the
// key's name in a message, so it starts with "must" or "holds". dir is the
// file's folder.
type Setter func(value any, dir string) error

// Text reads a text by a function of its own.
func Text(read func(s, dir string) error) Setter {
	return func(value any, dir string) error {
		s, ok := value.(string)
		if !ok {
			return fmt.Errorf("must be a text in quotes, not %s", kindOf(value))
		}
		return read(s, dir)
	}
}

// Path reads a path; a relative one starts at the file's folder.
func Path(p *string) Setter {
	return Text(func(s, dir string) error {
		if s != "" && !filepath.IsAbs(s) {
			s = filepath.Join(dir, s)
		}
		*p = s
		return nil
	})
}

// Choice reads one of some words.
func Choice(p *string, choices ...string) Setter {
	return Text(func(s, _ string) error {
		if !slices.Contains(choices, s) {
			return fmt.Errorf("must be one of %s, not %q", strings.Join(choices, ", "), s)
		}
		*p = s
		return nil
	})
}

// Level reads the level of a log.
func Level(p *slog.Level) Setter {
	levels := map[string]slog.Level{
		"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	}
	return Text(func(s, _ string) error {
		level, ok := levels[s]
		if !ok {
			return fmt.Errorf("must be one of debug, info, warn, error, not %q", s)
		}
		*p = level
		return nil
	})
}

// Duration reads a time with its unit, within bounds.
func Duration(p *time.Duration, low, high time.Duration) Setter {
	return func(value any, _ string) error {
		s, ok := value.(string)
		if !ok {
			return fmt.Errorf(`must be a time with its unit in quotes, such as "30s" or "24h", not %s`, kindOf(value))
		}
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf(`must be a time with its unit, such as "30s" or "24h", not %q`, s)
		}
		if d < low || d > high {
			return fmt.Errorf("must be from %s to %s, not %s", Short(low), Short(high), Short(d))
		}
		*p = d
		return nil
	}
}

// Bool reads true or false.
func Bool(p *bool) Setter {
	return func(value any, _ string) error {
		b, ok := value.(bool)
		if !ok {
			return fmt.Errorf("must be true or false without quotes, not %s", kindOf(value))
		}
		*p = b
		return nil
	}
}

// Int reads a whole number within bounds.
func Int(p *int, low, high int64) Setter {
	return func(value any, _ string) error {
		n, ok := value.(int64)
		if !ok {
			return fmt.Errorf("must be a whole number without quotes, not %s", kindOf(value))
		}
		if n < low || n > high {
			return fmt.Errorf("must be from %d to %d, not %d", low, high, n)
		}
		*p = int(n)
		return nil
	}
}

// List reads a list of texts, each by read, and reports every bad one.
func List[T comparable](p *[]T, read func(string) (T, error)) Setter {
	return func(value any, _ string) error {
		items, ok := value.([]any)
		if !ok {
			return fmt.Errorf(`must be a list such as ["a", "b"], not %s`, kindOf(value))
		}
		list := make([]T, 0, len(items))
		var bad []string
		for _, item := range items {
			s, ok := item.(string)
			if !ok {
				bad = append(bad, "holds "+kindOf(item)+" where a text in quotes belongs")
				continue
			}
			v, err := read(s)
			if err == nil && slices.Contains(list, v) {
				err = fmt.Errorf("holds %q twice", s)
			}
			if err != nil {
				bad = append(bad, err.Error())
				continue
			}
			list = append(list, v)
		}
		if len(bad) > 0 {
			return errors.New(strings.Join(bad, ", and "))
		}
		*p = list
		return nil
	}
}

// FQDNs reads a list of domain names.
func FQDNs(p *[]onem2m.FQDN) Setter {
	return List(p, func(s string) (onem2m.FQDN, error) {
		fqdn, err := onem2m.ParseFQDN(s)
		if err != nil {
			return "", fmt.Errorf("holds %q, which is not a domain name such as maf.example.com", s)
		}
		return fqdn, nil
	})
}

// Addresses reads a list of host:port to listen on.
func Addresses(p *[]string) Setter {
	return List(p, func(s string) (string, error) {
		_, port, err := net.SplitHostPort(s)
		if err != nil {
			return "", fmt.Errorf(`holds %q, which is not host:port such as "127.0.0.1:7443" or "[::]:7443"`, s)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
			return "", fmt.Errorf("holds %q, whose port is not a number from 0 to 65535", s)
		}
		return s, nil
	})
}

// Suites reads a list of cipher suites by their names.
func Suites(p *[]uint16) Setter {
	return List(p, func(s string) (uint16, error) {
		var names []string
		for _, suite := range tlspsk.CipherSuites() {
			if suite.Name == s {
				return suite.ID, nil
			}
			names = append(names, suite.Name)
		}
		return 0, fmt.Errorf("holds %q, which is not one of %s", s, strings.Join(names, ", "))
	})
}

// kindOf names the kind of a decoded TOML value for people.
func kindOf(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("the text %q", v)
	case int64:
		return fmt.Sprintf("the number %d", v)
	case float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return strconv.FormatBool(v)
	case []any:
		return "a list"
	case map[string]any:
		return "a table"
	default:
		return "a date or time"
	}
}

// Short writes a duration without the zeros at its end: "24h", not "24h0m0s".
func Short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
