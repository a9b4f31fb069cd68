package mafd

import (
	"fmt"
	"strings"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// announce tells programs and people where everything is.
func (d *Daemon) announce() error {
	if err := d.state.writeRuntime(d.Runtime); err != nil {
		return err
	}
	r := &d.Runtime
	d.log.Info("serving", "fqdns", join(r.FQDNs), "tls", strings.Join(r.TLS, " "), "dtls", strings.Join(r.DTLS, " "),
		"keyapi", strings.Join(r.KeyAPI, " "), "admin", r.Admin, "state", r.State, "version", r.Version, "pid", r.PID)
	return nil
}

func join(fqdns []onem2m.FQDN) string {
	var b strings.Builder
	for i, f := range fqdns {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(f.String())
	}
	return b.String()
}

// firstStart tells people what this start made and what to do next, or "" when
// it was not the first.
func (d *Daemon) firstStart() string {
	if !d.state.first {
		return ""
	}
	var b strings.Builder
	r := &d.Runtime
	fmt.Fprintf(&b, "\nThis is the first start. mafd made, in %s:\n", r.State)
	for _, m := range d.state.made {
		fmt.Fprintf(&b, "  %-12s %s\n", m[0], m[1])
	}
	fmt.Fprintf(&b, "\nIt serves %s:\n", join(r.FQDNs))
	for _, line := range []struct {
		what      string
		addresses []string
	}{
		{"MAF Handshake, TLS", r.TLS},
		{"MAF Handshake, DTLS", r.DTLS},
		{"key API, HTTPS", r.KeyAPI},
		{"admin socket", []string{r.Admin}},
	} {
		if len(line.addresses) > 0 {
			fmt.Fprintf(&b, "  %-20s %s\n", line.what, strings.Join(line.addresses, ", "))
		}
	}
	fmt.Fprintf(&b, "\nNext, in another terminal, give a device its key:\n"+
		"  maf client add meter7@%s --entity-b //sp.example.com/in-cse%s\n\n", r.FQDNs[0], d.socketFlag())
	return b.String()
}

// socketFlag is what maf needs to be told to find this mafd.
func (d *Daemon) socketFlag() string {
	if found, err := adminapi.DefaultSocket(); err == nil && found == d.Runtime.Admin {
		return ""
	}
	return " --socket " + d.Runtime.Admin
}
