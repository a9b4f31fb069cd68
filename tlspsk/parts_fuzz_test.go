package tlspsk

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

// The parts of DTLS that take what anybody sends, each against the plainest model
// of it.

// A plainMessage is a handshake message as a model keeps it: octet by octet.
type plainMessage struct {
	typ    wire.MessageType
	length int
	octets map[int]byte
}

// FuzzFragments: the assembler gives the messages that the fragments make up, in
// order, the first octet that came for each place, and holds no more than it may.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{0, 1, 0, 9, 0, 0, 0, 4, 0, 1, 0, 9, 0, 4, 0, 5})      // one in two pieces
	f.Add([]byte{1, 16, 0, 2, 0, 0, 0, 2, 0, 1, 0, 3, 0, 0, 0, 3})     // the second first
	f.Add([]byte{0, 1, 64, 0, 0, 0, 4, 0, 3, 20, 0, 12, 0, 3, 0, 5})   // long, and far ahead
	f.Add([]byte{0, 20, 0, 0, 0, 0, 0, 0, 0, 14, 0, 1, 0, 0, 0, 1, 0}) // empty
	f.Fuzz(func(t *testing.T, b []byte) {
		var a assembler
		model := make(map[uint16]*plainMessage)
		next, hadHello := uint16(0), false
		for n := byte(0); len(b) >= 8; n++ {
			h := wire.FragmentHeader{
				MessageSeq: next + uint16(b[0]%8) - 2,
				Type:       b[1],
				Length:     int(binary.BigEndian.Uint16(b[2:])),
			}
			h.Offset = int(binary.BigEndian.Uint16(b[4:])) % (h.Length + 1)
			h.Octets = int(binary.BigEndian.Uint16(b[6:])) % (h.Length - h.Offset + 1)
			b = b[8:]
			body := bytes.Repeat([]byte{n}, h.Octets)

			ahead := int(int16(h.MessageSeq - next))
			if got := a.add(h, append(wire.AppendFragmentHeader(nil, h), body...)); got != (ahead < 0) {
				t.Fatalf("%d messages ahead, repeated: %v", ahead, got)
			}
			long := h.Length > maxMessage
			if ahead >= 0 && ahead < assembleAhead && checkMessageLength(h.Type, h.Length) == nil && !(long && (hadHello || ahead > 0)) {
				m := model[h.MessageSeq]
				if m == nil {
					m = &plainMessage{h.Type, h.Length, make(map[int]byte)}
					model[h.MessageSeq] = m
				}
				if m.typ == h.Type && m.length == h.Length {
					for i, o := range body {
						if _, have := m.octets[h.Offset+i]; !have {
							m.octets[h.Offset+i] = o
						}
					}
				}
			}
			held := 0
			for _, p := range a.held {
				if p != nil {
					held += len(p.raw) + len(p.have)
				}
			}
			if most := (maxHello+assembleAhead*maxMessage)*9/8 + assembleAhead*(wire.DTLSHeaderLen+1); held > most {
				t.Fatalf("%d octets held, more than %d", held, most)
			}
			for {
				got := a.pop()
				m := model[next]
				if m == nil || len(m.octets) < m.length {
					if got != nil {
						t.Fatal("a message that is not complete")
					}
					break
				}
				want := wire.AppendFragmentHeader(nil, wire.FragmentHeader{Type: m.typ, Length: m.length, MessageSeq: next, Octets: m.length})
				for i := range m.length {
					want = append(want, m.octets[i])
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("message %d:\n%x\nwant\n%x", next, got, want)
				}
				hadHello = hadHello || isHello(m.typ)
				delete(model, next)
				next++
			}
		}
	})
}

// FuzzReplayWindow: no number is new twice, and none that is new and recent is
// turned away.
func FuzzReplayWindow(f *testing.F) {
	f.Add([]byte{0, 1, 0, 1, 0, 1})
	f.Add([]byte{0, 200, 0, 100, 0, 64, 0, 63, 255, 255, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var w replayWindow
		seen := make(map[uint64]bool)
		highest := uint64(0)
		for ; len(b) >= 2; b = b[2:] {
			seq := uint64(binary.BigEndian.Uint16(b))
			if b[0] >= 128 { // near the highest so far
				seq = highest + uint64(b[1]) - min(highest, 128)
			}
			recent := seq+windowSize > highest
			if got := w.fresh(seq); got != (recent && !seen[seq]) {
				t.Fatalf("%d, highest %d, seen %v: fresh %v", seq, highest, seen[seq], got)
			} else if got {
				w.mark(seq)
				seen[seq] = true
				highest = max(highest, seq)
			}
		}
	})
}

// FuzzCookie: the only cookie that is good is the one that the server made, for
// the address and the random that it made it for.
func FuzzCookie(f *testing.F) {
	f.Add(make([]byte, cookieLen), make([]byte, wire.RandomLen), uint16(5684))
	f.Add([]byte{}, []byte{1}, uint16(1))
	f.Fuzz(func(t *testing.T, guess, random []byte, port uint16) {
		c := newCookies()
		from := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), port)
		made := c.append(nil, from, random)
		if !c.valid(made, from, random) {
			t.Fatal("a good cookie is refused")
		}
		other := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), port)
		otherPort := netip.AddrPortFrom(from.Addr(), port+1)
		if c.valid(made, other, random) || c.valid(made, otherPort, random) || c.valid(made, from, append(random, 0)) {
			t.Error("a cookie is good for somebody else")
		}
		if !bytes.Equal(guess, made) && c.valid(guess, from, random) {
			t.Errorf("%x was guessed", guess)
		}
		for i := range made {
			made[i] ^= 1
			if c.valid(made, from, random) {
				t.Errorf("octet %d does not matter", i)
			}
			made[i] ^= 1
		}
	})
}
