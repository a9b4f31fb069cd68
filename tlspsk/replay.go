package tlspsk

// A replayWindow tells records that have been received from those that have
// not (RFC 6347 section 4.1.2.6). The zero value has seen nothing.
type replayWindow struct {
	next uint64 // one above the highest sequence number received
	seen uint64 // bit i: next-1-i has been received
}

const windowSize = 64

// fresh reports whether a record with this sequence number may still be new.
func (w *replayWindow) fresh(seq uint64) bool {
	if seq >= w.next {
		return true
	}
	age := w.next - 1 - seq
	return age < windowSize && w.seen>>age&1 == 0
}

// mark notes that the record has been received and authenticated. Marking
// before that would let anybody move the window past the peer.
func (w *replayWindow) mark(seq uint64) {
	if seq < w.next {
		w.seen |= 1 << (w.next - 1 - seq)
		return
	}
	w.seen = w.seen<<(seq+1-w.next) | 1
	w.next = seq + 1
}
