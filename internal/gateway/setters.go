package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/gateway/coapgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

// Readers of values that only the gateway's configuration has. Their errors
// follow the key's name in a message.

func anything(s string) (string, error) {
	if s == "" {
		return "", errors.New("holds an empty text")
	}
	return s, nil
}

// originator reads an AE-ID stem. One that no device can have would protect nobody.
func originator(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "/ ") {
		return "", fmt.Errorf(`holds %q, which is no AE-ID stem such as "CAdmin"`, s)
	}
	return s, nil
}

// topicName reads a CSE's name in MQTT topics, which is one level of them.
func topicName(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "/+#\x00") {
		return "", fmt.Errorf(`holds %q, which is no name in a topic; write it as in "in-cse" or ":in-cse"`, s)
	}
	return s, nil
}

func dialect(p *coapgw.Dialect) func(s, dir string) error {
	return func(s, _ string) error {
		if p.UnmarshalText([]byte(s)) != nil {
			return fmt.Errorf(`must be "release3" or "early", not %q`, s)
		}
		return nil
	}
}

func absoluteCSE(p *onem2m.CSEID) func(s, dir string) error {
	return func(s, _ string) error {
		id, err := onem2m.ParseCSEID(s)
		if err != nil || !id.IsAbsolute() {
			return fmt.Errorf(`must be an absolute CSE-ID such as "//sp.example.com/in-cse", not %q`, s)
		}
		*p = id
		return nil
	}
}

func network(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf(`holds %q, which is not a network such as "10.1.0.0/16" or "::1/128"`, s)
	}
	return p, nil
}

func baseURL(p *string, schemes ...string) func(s, dir string) error {
	return func(s, _ string) error {
		u, err := url.Parse(s)
		if err != nil || !slices.Contains(schemes, u.Scheme) || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("must be a URL such as %q, not %q", schemes[0]+"://127.0.0.1:8080", s)
		}
		*p = s
		return nil
	}
}

func hostPort(p *string) func(s, dir string) error {
	return func(s, _ string) error {
		host, port, err := net.SplitHostPort(s)
		if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || host == "" || n == 0 {
			return fmt.Errorf(`must be host:port such as "127.0.0.1:1883", not %q`, s)
		}
		*p = s
		return nil
	}
}

// mafs reads a table of MAF-FQDNs with the URL or URLs of each.
func mafs(p *map[onem2m.FQDN]string) configfile.Setter {
	return func(value any, _ string) error {
		table, ok := value.(map[string]any)
		if !ok || len(table) == 0 {
			return errors.New(`must be a table such as { "maf.example.com" = ["https://maf.example.com:7444"] }`)
		}
		all := make(map[onem2m.FQDN]string)
		for _, name := range slices.Sorted(maps.Keys(table)) {
			fqdn, err := onem2m.ParseFQDN(name)
			if err != nil {
				return fmt.Errorf("holds %q, which is not a domain name; put it in quotes", name)
			}
			var urls []string
			read := configfile.List(&urls, func(s string) (string, error) {
				var u string
				err := baseURL(&u, "https")(s, "")
				// Blanks part URLs further on, and the key API has its own paths.
				if err != nil || strings.ContainsAny(s, " \t") || strings.Count(strings.TrimSuffix(s, "/"), "/") != 2 {
					return "", fmt.Errorf(`holds %q, which is not a URL such as "https://maf.example.com:7444"`, s)
				}
				return u, nil
			})
			if one, ok := table[name].(string); ok {
				table[name] = []any{one}
			}
			if err := read(table[name], ""); err != nil {
				return fmt.Errorf("(%s) %w", name, err)
			}
			all[fqdn] = strings.Join(urls, " ")
		}
		*p = all
		return nil
	}
}

// allowances reads [[allow]] tables.
func allowances(p *[]policy.Allowance) configfile.Setter {
	return func(value any, dir string) error {
		tables, ok := value.([]any)
		if !ok {
			return errors.New("must be written as [[allow]], with kmid and ae or cse below")
		}
		var all []policy.Allowance
		for i, t := range tables {
			table, ok := t.(map[string]any)
			if !ok {
				return errors.New("must be written as [[allow]], with kmid and ae or cse below")
			}
			a, err := allowance(table, dir)
			if err != nil {
				return fmt.Errorf("(number %d) %w", i+1, err)
			}
			all = append(all, a)
		}
		*p = all
		return nil
	}
}

func allowance(table map[string]any, dir string) (a policy.Allowance, err error) {
	settings := map[string]configfile.Setter{
		"kmid": configfile.Text(func(s, _ string) error { a.KmID = s; return nil }),
		"ae":   configfile.List(&a.AEIDs, anything),
		"most": configfile.Int(&a.Most, 1, million),
		"cse":  configfile.Text(absoluteCSE(&a.CSE)),
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		set, ok := settings[name]
		if !ok {
			return a, fmt.Errorf("has %q, which is not one of kmid, ae, most, cse", name)
		}
		if err := set(table[name], dir); err != nil {
			return a, fmt.Errorf("has %q, which %w", name, err)
		}
	}
	if a.KmID == "" || (len(a.AEIDs) == 0) == a.CSE.IsZero() {
		return a, errors.New("must have kmid, and either ae or cse")
	}
	return a, nil
}
