package tlspsk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
)

// A machine is one of the four state machines: which side is the victim, over
// which transport, and the tables of what it should do.
type machine struct {
	name           string
	victimIsClient bool
	dtls           bool
	table, faults  string
}

var machines = []machine{
	{"TLS server", false, false, tlsServerTable, clientFaults},
	{"TLS client", true, false, tlsClientTable, serverFaults},
	{"DTLS server", false, true, dtlsServerTable, clientFaults},
	{"DTLS client", true, true, dtlsClientTable, serverFaults},
}

func (m machine) hasRecord(name string) bool { return slices.Contains(m.records(), name) }

// records are the letters that are no handshake messages.
func (m machine) records() []string {
	if m.dtls {
		return slices.Sorted(maps.Keys(dtlsRecords))
	}
	return slices.Sorted(maps.Keys(tlsRecords))
}

// honest is what an honest peer of the victim says.
func (m machine) honest(v variant) []string {
	said := []string{"ClientHello", "ClientKeyExchange"}
	if m.victimIsClient {
		said = []string{"ServerHello", "ServerKeyExchange", "ServerHelloDone"}
		if !v.ecdhe() && v.hint == "" {
			said = slices.Delete(said, 1, 2)
		}
	}
	switch {
	case m.dtls && m.victimIsClient:
		said = slices.Insert(said, 0, "HelloVerifyRequest")
	case m.dtls:
		said = slices.Insert(said, 0, "ClientHello") // the first gets a cookie
	}
	return append(said, "ChangeCipherSpec", "Finished", "data", "data", "close_notify")
}

// An outcome is how a sequence ends for the victim.
type outcome struct {
	session  bool   // the handshake was completed
	end      string // an alert of ours by its name in the tables, refused, closed, eof; DTLS: alive, timeout, none
	refusals int    // no_renegotiation warnings that the victim sent
	data     string // what the application got
	hellos   int    // DTLS: HelloVerifyRequests that the victim sent
}

// How patient a victim should be. These are the engine's own limits; whoever
// changes those should think of both.
const (
	warningsTaken   = 16 // warnings and empty records in a row
	requestsRefused = 3  // to renegotiate; the next ends the session
	forgeriesTaken  = 1  // in a DTLS handshake; the next ends it
	keptEarly       = 4  // DTLS records of the next epoch
)

// A run is a victim that goes through a sequence according to a table.
type run struct {
	outcome
	cells    map[string]map[string]string
	state    string
	warnings int
	requests int // to renegotiate
}

// predictTLS says how a sequence must end, and after how many letters. It may be
// cut short where the table leaves open what happens.
func (m machine) predictTLS(table *stateTable, v variant, d delivery, script []string) (o outcome, cut []string, end int) {
	r := run{cells: table.cells, state: "hello"}
	i := 0
	for i < len(script) && r.end == "" {
		n := 1
		if d == joined {
			n = max(1, joinable(!m.victimIsClient, script[i:]))
		}
		if r.state == "open" {
			// Of messages in one record, none but the first counts, and that only by its type.
			r.step(m, v, d, script[i])
			i += n
			continue
		}
		for range n {
			if r.end != "" {
				break
			}
			if r.state == "open" {
				r.end = "unexpected" // in one record with Finished
				i++
				break
			}
			if r.cells[script[i]][r.state] == "?" {
				script = script[:i]
				break
			}
			r.step(m, v, d, script[i])
			i++
		}
	}
	if r.end == "" {
		r.end = "eof"
	}
	return r.outcome, script, min(i, len(script))
}

// step takes one letter.
func (r *run) step(m machine, v variant, d delivery, letter string) {
	verdict := r.cells[letter][r.state]
	if next, ok := strings.CutPrefix(verdict, ">"); ok {
		r.enter(next, v)
		return
	}
	switch verdict {
	case "data":
		r.data += "ping"
		r.warnings = 0
	case "warn":
		if r.warnings++; r.warnings > warningsTaken {
			r.end = "unexpected"
		}
	case "reneg":
		r.renegotiate(m, d)
	case "reneg*":
		for range requestsRefused + 1 {
			r.renegotiate(m, d)
		}
	case "":
		panic("no verdict on " + letter + " in " + r.state)
	default:
		r.end = verdict
	}
}

func (r *run) enter(state string, v variant) {
	r.state = state
	switch {
	case state == "kx" && v.ecdhe():
		r.state = "kx-ec"
	case state == "open":
		r.session = true
		r.warnings = 0
	}
}

// renegotiate is a request to renegotiate. Each record with a part of one
// counts by its first octet: a client's hello, 01 00 ..., in two records is a
// request and something else; a HelloRequest, 00 00 00 00, is two requests.
func (r *run) renegotiate(m machine, d delivery) {
	requests := 1
	if d == split && m.victimIsClient {
		requests = 2
	}
	for range requests {
		if r.end != "" {
			return
		}
		if r.requests++; r.requests > requestsRefused {
			r.end = "failure"
			return
		}
		r.refusals++
	}
	if d == split && !m.victimIsClient {
		r.end = "unexpected"
	}
}

// playTLS plays a script to a victim, and returns what came of it.
func (m machine) playTLS(v variant, d delivery, script []string) (outcome, error) {
	return m.playWith(newTLSPuppet(!m.victimIsClient, v, d, script))
}

func (m machine) playWith(p *tlsPuppet) (outcome, error) {
	verified := 0
	config := p.variant.config(m.victimIsClient)
	config.VerifyConnection = func(context.Context, *ConnectionState) error { verified++; return nil }
	victim := newConn(newStream(p, m.victimIsClient), config, m.victimIsClient)

	var o outcome
	err := victim.Handshake()
	if err == nil {
		o.session = true
		var data []byte
		if data, err = io.ReadAll(victim); err == nil {
			err = io.EOF
		}
		o.data = string(data)
	}
	o.end = endOf(err, o.session)
	o.refusals = p.count(alertLevelWarning, AlertNoRenegotiation)
	if o.session != (verified == 1) {
		p.fault("VerifyConnection was called %d times", verified)
	}
	if o.session {
		p.checkSession(victim)
	}
	p.checkAlerts(o)
	return o, p.verdict()
}

// endOf names how it ended, by the victim's error.
func endOf(err error, session bool) string {
	var ae *AlertError
	switch {
	case errors.As(err, &ae) && ae.Remote && ae.Alert == AlertCloseNotify:
		return "closed"
	case errors.As(err, &ae) && ae.Remote:
		return "refused"
	case errors.As(err, &ae):
		for name, a := range tableAlerts {
			if a == ae.Alert {
				return name
			}
		}
		return ae.Alert.String()
	case err == io.EOF && session:
		return "closed"
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return "eof"
	}
	return fmt.Sprint(err)
}

// checkSession holds a session against the puppet's books.
func (p *puppet) checkSession(victim *Conn) {
	if !p.finishedOK {
		p.fault("the victim's Finished is wrong")
	}
	cs := victim.ConnectionState()
	export, err := cs.ExportKeyingMaterial(exportLabel, nil, 48)
	if err != nil || !bytes.Equal(export, p.export()) {
		p.fault("exports differ: %v", err)
	}
}

// checkAlerts checks that the puppet has heard the alert that the outcome
// names, and no other but refusals to renegotiate.
func (p *puppet) checkAlerts(o outcome) {
	others := slices.DeleteFunc(slices.Clone(p.alerts), func(a spokenAlert) bool {
		return a == spokenAlert{alertLevelWarning, AlertNoRenegotiation}
	})
	if a, ours := tableAlerts[o.end]; ours && !slices.Equal(others, []spokenAlert{{alertLevelFatal, a}}) || !ours && len(others) != 0 {
		p.fault("end %s, alerts sent: %v", o.end, p.alerts)
	}
}

// verdict is what an honest peer would not have said, if anything.
func (p *puppet) verdict() error {
	if len(p.faults) == 0 {
		return nil
	}
	return errors.New(strings.Join(p.faults, "; "))
}

// jumps yields the honest sequence with every part of it left out, and every
// part of it repeated.
func jumps(honest []string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for i := range len(honest) + 1 {
			for j := range len(honest) + 1 {
				if !yield(slices.Concat(honest[:i], honest[j:])) {
					return
				}
			}
		}
	}
}

// deviations yields the honest sequence up to each of its points, then n
// letters, then the honest sequence again from a point that is at most reach
// away: letters put in, put in the place of others, with others left out or
// repeated.
func deviations(honest, letters []string, n, reach int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		deviation := make([]string, n)
		var fill func(i, at int) bool
		fill = func(i, at int) bool {
			if at < n {
				for _, l := range letters {
					deviation[at] = l
					if !fill(i, at+1) {
						return false
					}
				}
				return true
			}
			for back := range 2*reach + 1 {
				// i, i+1, i-1, i+2, ...: first the ones that a careless victim
				// would take.
				j := i + (back+1)/2
				if back%2 == 0 {
					j = i - back/2
				}
				if j >= 0 && j <= len(honest) && !yield(slices.Concat(honest[:i], deviation, honest[j:])) {
					return false
				}
			}
			return true
		}
		for i := range len(honest) + 1 {
			if !fill(i, 0) {
				return
			}
		}
	}
}

// twice yields the honest sequence with two letters put in at any two places.
func twice(honest, letters []string) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for i := range len(honest) + 1 {
			for j := i + 1; j <= len(honest); j++ {
				for _, a := range letters {
					for _, b := range letters {
						if !yield(slices.Concat(honest[:i], []string{a}, honest[i:j], []string{b}, honest[j:])) {
							return
						}
					}
				}
			}
		}
	}
}

// sequences are the scripts for a victim: all single deviations; as a rule, where
// it is to be thorough, also pairs in one place, followed by the honest sequence
// from a point within pairReach; in the long form all pairs anywhere, and triples.
func sequences(honest []string, table *stateTable, thorough bool, pairReach int) iter.Seq[[]string] {
	order, reach := table.orderLetters(), len(honest)
	if testing.Short() {
		reach = 1
	}
	list := []iter.Seq[[]string]{
		jumps(honest),
		deviations(honest, order, 1, reach),
		deviations(honest, table.letters[table.order:], 1, 1),
	}
	if thorough && !testing.Short() {
		list = append(list, deviations(honest, order, 2, pairReach))
	}
	if longRun() {
		list = append(list, twice(honest, table.letters), deviations(honest, order, 2, len(honest)))
		if thorough {
			list = append(list, deviations(honest, order, 3, 1))
		}
	}
	return func(yield func([]string) bool) {
		for _, l := range list {
			for script := range l {
				if !yield(script) {
					return
				}
			}
		}
	}
}

// Every deviation from the handshake ends as the tables say: with the alert
// that the RFCs name, and never with a session, unless it is none in truth.
func TestStateMachineTLS(t *testing.T) {
	for _, m := range machines {
		if m.dtls {
			continue
		}
		for i, v := range variants {
			for d, name := range deliveries {
				if v.connectionIDs || testing.Short() && (i > 1 || d != whole && d != joined) {
					continue
				}
				t.Run(m.name+"/"+v.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					table, err := readTable(m.table, m.faults, v, false)
					if err != nil {
						t.Fatal(err)
					}
					wrong := newTally(t)
					defer wrong.report()
					for script := range sequences(m.honest(v), table, i < 2 && d == whole, 1) {
						want, script, end := m.predictTLS(table, v, d, script)
						if wrong.repeated(script[:end]) {
							continue
						}
						got, err := m.playTLS(v, d, script)
						wrong.add(script, want, got, err)
					}
				})
			}
		}
	}
}

// A connection that is cut, after whatever octet, is no end of data: only
// close_notify is.
func TestTruncation(t *testing.T) {
	for _, m := range machines {
		if m.dtls {
			continue
		}
		v := variants[0]
		p := newTLSPuppet(!m.victimIsClient, v, whole, m.honest(v))
		if o, err := m.playWith(p); o.end != "closed" || err != nil {
			t.Fatalf("%s: %+v, %v", m.name, o, err)
		}
		all := p.given
		for n := 1; n < all; n++ {
			p := newTLSPuppet(!m.victimIsClient, v, whole, m.honest(v))
			p.cutAfter = n
			if o, err := m.playWith(p); o.end != "eof" || err != nil {
				t.Errorf("%s, cut after %d octets: %+v, %v", m.name, n, o, err)
			}
		}
	}
}

// A tally counts sequences, and reports the first few that went wrong.
type tally struct {
	t                     *testing.T
	all, sessions, failed int
	seen                  map[uint64]bool
}

func newTally(t *testing.T) *tally { return &tally{t: t, seen: make(map[uint64]bool)} }

// repeated reports whether the sequence, up to where it ends, has been tried.
func (y *tally) repeated(script []string) bool {
	h := fnv.New64a()
	for _, letter := range script {
		io.WriteString(h, letter+";")
	}
	again := y.seen[h.Sum64()]
	y.seen[h.Sum64()] = true
	return again
}

func (y *tally) add(script []string, want, got outcome, err error) {
	y.all++
	if got.session {
		y.sessions++
	}
	if got == want && err == nil {
		return
	}
	if y.failed++; y.failed <= 10 {
		y.t.Errorf("%s\nwant %+v\ngot  %+v (%v)", strings.Join(script, "; "), want, got, err)
	}
}

func (y *tally) report() {
	if y.sessions == 0 {
		y.t.Error("no sequence made a session: the test tests nothing")
	}
	y.t.Logf("%d sequences, %d with a session, %d wrong", y.all, y.sessions, y.failed)
}
