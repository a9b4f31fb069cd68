package interop

import (
	"errors"
	"slices"
	"testing"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

// A habit says when a peer uses an extension.
type habit int

const (
	never    habit = iota
	optional       // unless it is told not to
	always
)

// foreign is one other implementation, and what is expected of it. The matrix
// takes each of these claims at its word: a peer that cannot do what is listed here
// is a failure, and so is one that can do more.
type foreign struct {
	name     string
	suites   map[string][]string // by network
	refuses  []string            // of those, the ones that its server does not take
	ems, etm habit
	untold   []string // what it does not report: "session", "flags", "identity", "close"
	talk     dialogue
	// client runs it against addr in o, server starts it; both return how to wait for its end.
	client func(testing.TB, peers.Options) func() peers.Report
	server func(testing.TB, peers.Options) (addr string, wait func() peers.Report)
	// can asks the peer itself for its suites; nil when it cannot be asked.
	can func(t testing.TB, network string) []string
}

func (f *foreign) tells(what string) bool { return !slices.Contains(f.untold, what) }

// allSuites is every suite of tlspsk, by name, in its own order.
func allSuites() []string {
	var names []string
	for _, s := range tlspsk.CipherSuites() {
		names = append(names, s.Name)
	}
	return names
}

// The two ECDHE_PSK suites of RFC 8442 are found in Botan alone.
func withoutRFC8442() []string {
	return slices.DeleteFunc(allSuites(), func(name string) bool {
		return name == "TLS_ECDHE_PSK_WITH_AES_128_GCM_SHA256" || name == "TLS_ECDHE_PSK_WITH_AES_128_CCM_SHA256"
	})
}

func foreigners() []*foreign {
	common := map[string][]string{"tcp": withoutRFC8442(), "udp": withoutRFC8442()}
	return []*foreign{
		program("openssl", &foreign{suites: common, ems: optional, etm: optional}),
		program("gnutls", &foreign{suites: common, ems: optional, etm: optional}),
		program("mbedtls", &foreign{suites: common, ems: optional, etm: optional}),
		program("botan", &foreign{suites: map[string][]string{"tcp": allSuites(), "udp": allSuites()}, ems: always, etm: optional,
			untold: []string{"close"}}),
		program("node", &foreign{suites: map[string][]string{"tcp": withoutRFC8442()}, ems: optional, etm: optional,
			untold: []string{"flags", "close"}}),
		libcoap("openssl", common, "TLS_PSK_WITH_AES_128_CBC_SHA256", "TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256"),
		libcoap("gnutls", common),
		pion(),
	}
}

// deaf tells whether the peer, as a client, overhears an alert without protection. That is a
// lawful answer to the ease of forging one over DTLS.
func (f *foreign) deaf(network string) bool {
	return network == "udp" && (f.name == "gnutls" || f.name == "libcoap-gnutls")
}

// program is a foreign peer of package peers.
func program(name string, f *foreign) *foreign {
	f.name, f.talk = name, pingPong
	f.client = func(t testing.TB, o peers.Options) func() peers.Report {
		return peers.Get(t, name).Connect(t, o).Wait
	}
	f.server = func(t testing.TB, o peers.Options) (string, func() peers.Report) {
		p := peers.Get(t, name).Serve(t, o)
		return p.Addr, p.Wait
	}
	f.can = func(t testing.TB, network string) []string { return peers.Get(t, name).Suites(t, network) }
	return f
}

// libcoap is a pair of programs that speak CoAP over (D)TLS on the given library. They
// export nothing and take no options, so they witness the exchange itself.
func libcoap(library string, suites map[string][]string, refuses ...string) *foreign {
	return &foreign{
		name: "libcoap-" + library, suites: suites, refuses: refuses, ems: always, etm: always, talk: coapTalk,
		untold: []string{"session", "flags", "identity", "close"},
		client: func(t testing.TB, o peers.Options) func() peers.Report {
			p := peers.CoAPClient(t, library, o, "ping")
			return func() (r peers.Report) {
				r = p.Wait()
				r.DataOK = slices.Contains(r.Lines, "pong")
				return r
			}
		},
		server: func(t testing.TB, o peers.Options) (string, func() peers.Report) {
			p := peers.CoAPServer(t, library, o)
			return p.Addr, func() peers.Report {
				p.Stop() // it serves for ever
				return p.Wait()
			}
		},
	}
}

// has tells whether the peer has the suite, in the role that our side leaves it.
func (f *foreign) has(weServe bool, network, suite string) bool {
	return slices.Contains(f.suites[network], suite) && (weServe || !slices.Contains(f.refuses, suite))
}

// TestCapabilities asks each peer for its suites, and tries those that it is said to refuse, so
// that the table above cannot grow stale.
func TestCapabilities(t *testing.T) {
	for _, f := range foreigners() {
		t.Run(f.name, func(t *testing.T) {
			for _, network := range []string{"tcp", "udp"} {
				for _, suite := range f.refuses {
					addr, _ := f.server(t, peers.Options{Network: network, PSK: key, Hint: "hint"})
					out := dialOne(network, addr, cell{foreign: f, network: network, suite: suite}.config(), f.talk)
					if a := new(tlspsk.AlertError); !errors.As(out.err, &a) || !a.Remote || a.Alert != tlspsk.AlertHandshakeFailure {
						t.Errorf("over %s %s answers %s with %v", network, f.name, suite, out.err)
					}
				}
				if f.can == nil {
					continue
				}
				got, want := f.can(t, network), slices.Clone(f.suites[network])
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("over %s %s has\n%q, expected\n%q", network, f.name, got, want)
				}
			}
		})
	}
}
