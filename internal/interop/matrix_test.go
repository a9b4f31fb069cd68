package interop

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"

	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/tlspsk"
)

var (
	identity = []byte("meter7@maf.example.com")
	key      = []byte("0123456789abcdef") // text, for libcoap takes no other
)

const serverName = "maf.example.com"

// who says which side leaves an extension out.
type who string

const (
	nobody who = "on"
	we     who = "not-ours"
	they   who = "not-theirs"
)

// A cell is one handshake of the matrix.
type cell struct {
	foreign  *foreign
	weServe  bool
	network  string
	suite    string
	ems, etm who
	curve    tlspsk.CurveID // 0: plain PSK
}

func (c cell) name() string {
	name := fmt.Sprintf("%s/%s/ems=%s", c.row(), c.suite, c.ems)
	if isCBC(c.suite) {
		name += ",etm=" + string(c.etm)
	}
	if c.curve != 0 {
		name += "," + c.curve.String()
	}
	return name
}

// row names the line of the printed matrix, with the peer's role.
func (c cell) row() string {
	role := map[bool]string{true: "client", false: "server"}[c.weServe]
	proto := map[string]string{"tcp": "TLS", "udp": "DTLS"}[c.network]
	return c.foreign.name + " " + role + " " + proto
}

func isCBC(suite string) bool   { return strings.Contains(suite, "_CBC_") }
func isECDHE(suite string) bool { return strings.HasPrefix(suite, "TLS_ECDHE_") }

// cells lists every handshake of a peer's suite: each extension agreed on, left out by us, and left
// out by the peer where it can.
func cells(f *foreign, weServe bool, network, suite string) []cell {
	ways := func(h habit) []who {
		if h == optional {
			return []who{nobody, we, they}
		}
		return []who{nobody, we}
	}
	etms := []who{nobody}
	if isCBC(suite) {
		etms = ways(f.etm)
	}
	curves := []tlspsk.CurveID{0}
	if isECDHE(suite) {
		curves = []tlspsk.CurveID{tlspsk.X25519, tlspsk.CurveP256}
	}
	var list []cell
	for _, ems := range ways(f.ems) {
		for _, etm := range etms {
			for _, curve := range curves {
				list = append(list, cell{f, weServe, network, suite, ems, etm, curve})
			}
		}
	}
	return list
}

// mandatory tells the two suites of TS-0003 10.2.
func mandatory(suite string) bool {
	return suite == "TLS_PSK_WITH_AES_128_CBC_SHA256" || suite == "TLS_PSK_WITH_AES_128_CCM_8"
}

// TestMatrix is our server against every foreign client, and our client against every foreign
// server.
func TestMatrix(t *testing.T) {
	score := newScore()
	t.Cleanup(func() { t.Log(score) })
	for _, f := range foreigners() {
		for _, weServe := range []bool{true, false} {
			for _, network := range []string{"tcp", "udp"} {
				for _, suite := range allSuites() {
					if !f.has(weServe, network, suite) {
						continue
					}
					if testing.Short() && !mandatory(suite) {
						continue
					}
					for _, c := range cells(f, weServe, network, suite) {
						score.row(c)
						t.Run(c.name(), func(t *testing.T) {
							t.Parallel()
							defer func() { score.add(c, !t.Failed() && !t.Skipped()) }()
							c.run(t)
						})
					}
				}
			}
		}
	}
}

// run makes the handshake and holds the four accounts of it against each other: ours, the
// peer's, the wire's, and the derivation's.
func (c cell) run(t *testing.T) {
	e := exchange{foreign: c.foreign, weServe: c.weServe, config: c.config(), options: peers.Options{
		Network: c.network, Suites: []string{c.suite}, Identity: identity, PSK: key, ServerName: serverName,
		NoEMS: c.ems == they, NoEtM: c.etm == they, Bulk: bulkSize(c.network), Hint: "hint"}}
	e.run(t)
	e.mustSucceed(t)
	wire, err := peers.ReadHandshake(c.network, e.relay.Chunks())
	if err != nil {
		t.Fatal(err)
	}
	c.checkOurs(t, e.ours)
	c.checkWire(t, wire)
	c.checkTheirs(t, e.theirs, e.ours.export)
	checkExport(t, wire, e.ours, key)
}

func (c cell) config() tlspsk.Config {
	config := tlspsk.Config{CipherSuites: []uint16{suiteID(c.suite)}}
	if c.ems == we {
		config.ExtendedMasterSecret = tlspsk.PolicyDisable
	}
	if c.etm == we {
		config.EncryptThenMAC = tlspsk.PolicyDisable
	}
	if c.curve != 0 {
		config.CurvePreferences = []tlspsk.CurveID{c.curve}
	}
	if c.weServe {
		config.GetPSK = keys(identity, key)
		config.IdentityHint = []byte("hint")
	} else {
		config.Identity, config.Key, config.ServerName = identity, key, serverName
	}
	return config
}

// keys is a lookup that knows one identity.
func keys(identity, key []byte) func(context.Context, *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
	return func(_ context.Context, r *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
		if !bytes.Equal(r.Identity, identity) {
			return nil, tlspsk.ErrUnknownIdentity
		}
		return &tlspsk.PSK{Key: key, Data: "data"}, nil
	}
}

func suiteID(name string) uint16 {
	for _, s := range tlspsk.CipherSuites() {
		if s.Name == name {
			return s.ID
		}
	}
	return 0
}

func (c cell) expectEMS() bool { return c.ems == nobody && c.foreign.ems != never }
func (c cell) expectEtM() bool { return isCBC(c.suite) && c.etm == nobody && c.foreign.etm != never }

func (c cell) checkOurs(t *testing.T, ours outcome) {
	t.Helper()
	s := ours.state
	if tlspsk.CipherSuiteName(s.CipherSuite) != c.suite || s.ExtendedMasterSecret != c.expectEMS() ||
		s.EncryptThenMAC != c.expectEtM() || s.CurveID != c.curve || !s.HandshakeComplete {
		t.Errorf("our side has %s, EMS %v, EtM %v, curve %v, complete %v", tlspsk.CipherSuiteName(s.CipherSuite),
			s.ExtendedMasterSecret, s.EncryptThenMAC, s.CurveID, s.HandshakeComplete)
	}
	if c.weServe && (!bytes.Equal(s.Identity, identity) || s.PSKData != "data") {
		t.Errorf("our server heard identity %q, data %v", s.Identity, s.PSKData)
	}
	// libcoap's clients name no server when given an address.
	if c.weServe && c.foreign.tells("session") && s.ServerName != serverName {
		t.Errorf("our server heard the name %q", s.ServerName)
	}
}

func (c cell) checkWire(t *testing.T, wire *peers.Handshake) {
	t.Helper()
	if tlspsk.CipherSuiteName(wire.Suite) != c.suite || wire.EMS != c.expectEMS() || wire.EtM != c.expectEtM() ||
		tlspsk.CurveID(wire.Curve) != c.curve || !bytes.Equal(wire.Identity, identity) {
		t.Errorf("on the wire: suite %#04x, EMS %v, EtM %v, curve %v, identity %q", wire.Suite, wire.EMS, wire.EtM, wire.Curve, wire.Identity)
	}
	if !c.weServe && wire.ServerName != serverName {
		t.Errorf("on the wire: server name %q", wire.ServerName)
	}
}

func (c cell) checkTheirs(t *testing.T, theirs peers.Report, export []byte) {
	t.Helper()
	f := c.foreign
	if !f.tells("session") {
		return
	}
	if len(theirs.Sessions) != 1 {
		t.Fatalf("the peer had %d sessions: %q", len(theirs.Sessions), theirs.Lines)
	}
	s := theirs.Sessions[0]
	if s.Suite != c.suite || !bytes.Equal(s.Identity, identity) || !bytes.Equal(s.Export, export) {
		t.Errorf("the peer has %s, identity %q and exports\n%x, we\n%x", s.Suite, s.Identity, s.Export, export)
	}
	if f.tells("flags") && (s.EMS == peers.Yes) != c.expectEMS() || f.tells("flags") && (s.EtM == peers.Yes) != c.expectEtM() {
		t.Errorf("the peer has EMS %v, EtM %v", s.EMS, s.EtM)
	}
	if f.tells("close") && !slices.Equal(theirs.Closed, []string{"notify"}) {
		t.Errorf("the peer saw the connection end by %q", theirs.Closed)
	}
}

// checkExport derives our exported key from the recording.
func checkExport(t *testing.T, wire *peers.Handshake, ours outcome, key []byte) {
	t.Helper()
	var secret []byte
	if wire.Curve != 0 {
		var err error
		if secret, err = wire.SharedSecret(ours.drawn); err != nil {
			t.Fatal(err)
		}
	}
	if derived := wire.Export(key, secret, label, length); !bytes.Equal(derived, ours.export) {
		t.Errorf("we export\n%x, derived from the recording\n%x", ours.export, derived)
	}
}

// score counts the cells that passed, for the table that the test prints.
type score struct {
	rows []string // set before the cells run
	mu   sync.Mutex
	pass map[string]int // guarded by mu
	all  map[string]int // guarded by mu
}

func newScore() *score { return &score{pass: make(map[string]int), all: make(map[string]int)} }

// row fixes the order of the lines.
func (s *score) row(c cell) {
	if !slices.Contains(s.rows, c.row()) {
		s.rows = append(s.rows, c.row())
	}
}

func (s *score) add(c cell, passed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[c.row()+c.suite]++
	if passed {
		s.pass[c.row()+c.suite]++
	}
}

// String prints one line per peer, role and protocol, and one column per suite, with the
// handshakes that went as expected out of those tried: each extension agreed on, left out by one
// side, left out by the other; X25519 and P-256.
func (s *score) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	b.WriteString("handshakes that went as expected, of those tried (-: the peer has no such suite)\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(w, "peer\t")
	for _, suite := range allSuites() {
		fmt.Fprintf(w, "%s\t", shortName(suite))
	}
	fmt.Fprintln(w)
	pass, all := 0, 0
	for _, row := range s.rows {
		fmt.Fprintf(w, "%s\t", row)
		for _, suite := range allSuites() {
			p, n := s.pass[row+suite], s.all[row+suite]
			pass, all = pass+p, all+n
			if n == 0 {
				fmt.Fprint(w, "-\t")
			} else {
				fmt.Fprintf(w, "%d/%d\t", p, n)
			}
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	fmt.Fprintf(&b, "in all %d of %d\n", pass, all)
	return b.String()
}

// shortName shortens a suite's name to a column's width.
func shortName(suite string) string {
	return strings.NewReplacer("TLS_", "", "PSK_WITH_", "", "_SHA256", "", "_SHA384", "", "_POLY1305", "", "AES_", "", "ECDHE_", "E:").Replace(suite)
}
