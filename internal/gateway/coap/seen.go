package coap

import (
	"slices"
	"time"
)

// What is kept of messages for recognising duplicates. A peer that sends more within
// EXCHANGE_LIFETIME gets its oldest ones forgotten: it can only make the endpoint do its
// own requests twice.
const (
	maxSeen    = 512
	maxAnswers = 16 << 10 // octets
)

// seen remembers messages by their IDs (RFC 7252 section 4.5). The Endpoint's mutex guards it.
type seen struct {
	entries map[uint16]*received
	order   []uint16 // by age
	octets  int      // of answers
	timer   *time.Timer
}

type received struct {
	id uint16
	at time.Time
	// acknowledged is set when an answer, or the promise of one, has been sent.
	acknowledged bool
	answer       []byte // the datagram that answers a duplicate; nil: none yet, or none any more
}

// note returns the entry of a message, and whether there was one before.
func (s *seen) note(id uint16, sweep func()) (entry *received, before bool) {
	now := time.Now()
	if entry = s.entries[id]; entry != nil {
		if now.Sub(entry.at) < exchangeLifetime {
			return entry, true
		}
		s.remove(slices.Index(s.order, id))
	}
	if len(s.order) == maxSeen {
		s.remove(0)
	}
	if s.entries == nil {
		s.entries = make(map[uint16]*received)
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(exchangeLifetime, sweep)
	}
	entry = &received{id: id, at: now}
	s.entries[id] = entry
	s.order = append(s.order, id)
	return entry, false
}

// remove forgets the i-th oldest entry.
func (s *seen) remove(i int) {
	s.octets -= len(s.entries[s.order[i]].answer)
	delete(s.entries, s.order[i])
	s.order = slices.Delete(s.order, i, i+1)
}

// answer keeps what duplicates of the message are answered with. It makes room by
// dropping the answers to the oldest messages: their duplicates will get none.
func (s *seen) answer(entry *received, datagram []byte) {
	if s.entries[entry.id] != entry {
		entry.answer = datagram // forgotten already
		return
	}
	s.octets += len(datagram) - len(entry.answer)
	entry.answer = datagram
	for i := 0; s.octets > maxAnswers && i < len(s.order); i++ {
		old := s.entries[s.order[i]]
		if old == entry {
			continue
		}
		s.octets -= len(old.answer)
		old.answer = nil
	}
}

// expire forgets what is older than EXCHANGE_LIFETIME.
func (s *seen) expire(sweep func()) {
	for len(s.order) > 0 {
		if age := time.Since(s.entries[s.order[0]].at); age < exchangeLifetime {
			s.timer = time.AfterFunc(exchangeLifetime-age, sweep)
			return
		}
		s.remove(0)
	}
	s.clear()
}

func (s *seen) clear() {
	if s.timer != nil {
		s.timer.Stop()
	}
	*s = seen{}
}
