package tlspsk

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// A datagramRun is a DTLS victim that goes through a sequence according to a
// table.
type datagramRun struct {
	run
	copies    int    // of each datagram
	held      string // data that came before Finished
	early     int    // handshake records kept until there are keys, which are all forged
	forged    int
	lastHello bool // the last message was a ClientHello without a cookie
}

// predictDTLS says how a sequence must end, and returns it up to that end.
func (m machine) predictDTLS(table *stateTable, v variant, d delivery, script []string) (outcome, []string) {
	r := datagramRun{run: run{cells: table.cells, state: table.states[0]}, copies: 1}
	if d == doubled {
		r.copies = 2
	}
	for i, letter := range script {
		r.step(m, v, d, letter)
		if r.end != "" {
			return r.outcome, script[:i+1]
		}
	}
	switch r.state {
	case "open":
		r.end = "alive"
	case "start", "cookie":
		r.end = "none"
	default:
		r.end = "timeout"
	}
	return r.outcome, script
}

func (r *datagramRun) step(m machine, v variant, d delivery, letter string) {
	verdict := r.cells[letter][r.state]
	if letter == "repeat" && r.lastHello && r.state == "cookie" {
		verdict = "hello?"
	}
	if message, ok := puppetMessages[letter]; ok || letter == "clear Finished" {
		r.lastHello = message.typ == wire.TypeClientHello && r.state == "start"
	}
	switch verdict {
	case "-":
	case "later":
		r.held += "ping"
	case "early":
		r.early += r.copies
	case "forged":
		if r.forged += r.copies; r.forged > forgeriesTaken {
			r.end = "mac"
		}
	case "gap":
		r.leaveGap()
	case "hello>":
		r.state = "cookie"
		r.hellos += r.copies
	case "hello?":
		r.hellos += r.copies
	case "reneg":
		r.renegotiate(m, d)
	case "reneg*":
		for range requestsRefused + 1 {
			r.renegotiate(m, d)
		}
	default:
		if verdict == ">finished" {
			r.getKeys()
		}
		r.run.step(m, v, d, letter)
		if verdict == ">open" {
			r.data = r.held
		}
	}
}

// renegotiate is a request to renegotiate. Each fragment of one counts.
func (r *datagramRun) renegotiate(m machine, d delivery) {
	requests := 1
	if d == fragments && !m.victimIsClient {
		requests = 3
	}
	for range requests {
		r.run.renegotiate(m, whole)
	}
}

func (r *datagramRun) leaveGap() {
	if r.state == "finished" {
		r.state = "gap2"
	} else {
		r.state = "gap"
	}
}

// getKeys opens what was kept for that.
func (r *datagramRun) getKeys() {
	if r.forged = min(r.early, keptEarly); r.forged > forgeriesTaken {
		r.end = "mac"
	}
}

// A datagramVictim is the session that a puppet gets.
type datagramVictim struct {
	conn *Conn
	mu   sync.Mutex
	data []byte // guarded by mu
	ok   bool   // guarded by mu; the handshake was completed
	err  error  // guarded by mu
}

// work does the handshake, and reads all there is to read.
func (v *datagramVictim) work() {
	err := v.conn.Handshake()
	v.mu.Lock()
	v.ok, v.err = err == nil, err
	v.mu.Unlock()
	var b [100]byte
	for n := 0; err == nil; {
		n, err = v.conn.Read(b[:])
		v.mu.Lock()
		v.data, v.err = append(v.data, b[:n]...), err
		v.mu.Unlock()
	}
}

// playDTLS plays a script to a victim, and returns what came of it.
func (m machine) playDTLS(v variant, d delivery, script []string) (outcome, error) {
	n := newSimNet()
	p := newDTLSPuppet(n, !m.victimIsClient, v, d)
	verified := 0
	config := v.config(m.victimIsClient)
	config.VerifyConnection = func(context.Context, *ConnectionState) error { verified++; return nil }

	var victim *datagramVictim
	if m.victimIsClient {
		victim = &datagramVictim{conn: DatagramClient(simConn{n.socket(simClient), p.socket.addr}, config)}
		go victim.work()
		p.hear()
	} else {
		l := NewPacketListener(n.socket(puppetsServer), config)
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				if victim != nil {
					p.fault("a second session")
				}
				victim = &datagramVictim{conn: c.(*Conn)}
				go victim.work()
			}
		}()
	}
	for _, name := range script {
		p.play(name)
	}
	p.flush()
	p.hear()
	if victim == nil {
		return outcome{end: "none", hellos: p.verifyRequests}, p.verdict()
	}
	defer victim.conn.Close()
	o := p.await(victim)
	if n.sentSoFar() > 30+2*len(script) {
		p.fault("%d datagrams sent", n.sentSoFar())
	}
	if o.session != (verified == 1) {
		p.fault("VerifyConnection was called %d times", verified)
	}
	if o.session {
		p.checkSession(victim.conn)
	}
	p.checkAlerts(o)
	return o, p.verdict()
}

// await returns how it ended for the victim, or what becomes of it: a session
// that still carries data, or a handshake that times out.
func (p *dtlsPuppet) await(victim *datagramVictim) outcome {
	o := outcome{hellos: p.verifyRequests}
	victim.mu.Lock()
	err, ok := victim.err, victim.ok
	o.data = string(victim.data)
	victim.mu.Unlock()
	o.session = ok
	o.refusals = p.count(alertLevelWarning, AlertNoRenegotiation)
	switch {
	case ok && err == nil:
		o.end = "dead"
		p.play("data")
		p.flush()
		victim.mu.Lock()
		if string(victim.data) == o.data+"ping" && victim.err == nil {
			o.end = "alive"
		}
		victim.mu.Unlock()
		return o
	case err == nil:
		time.Sleep(defaultHandshakeTimeout)
		p.hear()
		victim.mu.Lock()
		err, o.session = victim.err, victim.ok
		victim.mu.Unlock()
	}
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		o.end = "timeout"
		return o
	}
	o.end = endOf(err, o.session)
	if o.session && err == io.EOF {
		o.end = "closed"
	}
	return o
}

// The same over datagrams, where most deviations may be anybody's: they are
// dropped, and what can't go on times out.
func TestStateMachineDTLS(t *testing.T) {
	for _, m := range machines {
		if !m.dtls {
			continue
		}
		for i, v := range variants {
			for d, name := range datagramDeliveries {
				if i > 0 && d != whole && !longRun() || testing.Short() && i > 1 && !v.connectionIDs {
					continue
				}
				t.Run(m.name+"/"+v.name+"/"+name, func(t *testing.T) {
					t.Parallel()
					table, err := readTable(m.table, m.faults, v, true)
					if err != nil {
						t.Fatal(err)
					}
					wrong := newTally(t)
					defer wrong.report()
					for script := range sequences(m.honest(v), table, i == 0 && d == whole, 0) {
						want, script := m.predictDTLS(table, v, d, script)
						if wrong.repeated(script) {
							continue
						}
						var got outcome
						var err error
						synctest.Test(t, func(*testing.T) { got, err = m.playDTLS(v, d, script) })
						wrong.add(script, want, got, err)
					}
				})
			}
		}
	}
}
