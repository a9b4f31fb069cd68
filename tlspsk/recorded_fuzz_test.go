package tlspsk

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzRecorded attacks whole sessions, to the last close_notify: what the peer
// said in a recording is altered, left out, doubled, cut or lengthened. Our side
// may do whatever it likes but for three things: to panic, to export another key,
// and to hand out data that the peer didn't send.
func FuzzRecorded(f *testing.F) {
	var all []*recording
	for _, peer := range []string{"gnutls", "mbedtls"} {
		b := readRecordings(f)[peer]
		for i := range b {
			f.Add(uint16(len(all)+i), []byte{0, 1, 0, 40, 1})
		}
		all = append(all, b...)
	}
	heard := make(map[*recording][]byte)
	for _, r := range all {
		heard[r] = r.replayAltered(f, r.events).heard
	}
	f.Fuzz(func(t *testing.T, n uint16, attacks []byte) {
		r := all[int(n)%len(all)]
		done := r.replayAltered(t, alter(r.events, attacks))
		if done.export != nil && !bytes.Equal(done.export, r.export) {
			t.Errorf("%s: another key", r.name)
		}
		if !r.dtls && !bytes.HasPrefix(heard[r], done.heard) || r.dtls && !datagramsOf(done.heard, heard[r]) {
			t.Errorf("%s: heard %q", r.name, done.heard)
		}
	})
}

// alter takes five octets for each attack: on which event, how, where, and with
// what.
func alter(events []event, attacks []byte) []event {
	events = slices.Clone(events)
	for len(attacks) >= 5 && len(events) > 0 {
		i := int(attacks[0]) % len(events)
		how, at, with := attacks[1], int(attacks[2])<<8|int(attacks[3]), attacks[4]
		attacks = attacks[5:]
		if events[i].ours {
			continue
		}
		data := bytes.Clone(events[i].data)
		at %= len(data) + 1
		switch how % 6 {
		case 0:
			if at < len(data) {
				data[at] ^= with
			}
		case 1:
			data = data[:at]
		case 2:
			data = slices.Insert(data, at, bytes.Repeat([]byte{with}, 1+int(with)%64)...)
		case 3:
			events = slices.Insert(events, i, events[i])
		case 4:
			j := at % len(events) // an event from elsewhere, ours too: a reflection
			data = bytes.Clone(events[j].data)
		case 5:
			data = nil
		}
		if len(data) == 0 {
			events = slices.Delete(events, i, i+1)
			continue
		}
		events[i].data = data
	}
	return events
}

// replayAltered lets our side loose on the events.
func (r *recording) replayAltered(t testing.TB, events []event) (done result) {
	play := func() {
		tape := newTape(&recording{dtls: r.dtls, events: events})
		tape.deaf = true
		// The peer has nothing to say to what it didn't say then.
		defer time.AfterFunc(time.Minute, func() { tape.Close() }).Stop()
		done = r.run(tape)
	}
	r.withItsRandoms(func() {
		if t, ok := t.(*testing.T); ok {
			synctest.Test(t, func(*testing.T) { play() })
			return
		}
		play()
	})
	return done
}

// datagramsOf tells whether all that was heard is what the peer said: over DTLS
// some of it may be missing, and it may come in another order. Its questions and
// answers are of one octet each after "ping" or "pong".
func datagramsOf(heard, said []byte) bool {
	for _, word := range []string{"ping", "pong"} {
		heard = bytes.ReplaceAll(heard, []byte(word), nil)
		said = bytes.ReplaceAll(said, []byte(word), nil)
	}
	return strings.Trim(string(heard), string(said)) == ""
}
