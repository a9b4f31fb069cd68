package tlspsk

import (
	"io"
	"sync"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

const (
	// smallBuffer takes any flight of a usual handshake in one read, and is
	// what an idle connection holds.
	smallBuffer = 1 << 10
	// largeBuffer takes any record, of TLS or of DTLS.
	largeBuffer = wire.DTLSRecordHeaderLen + wire.MaxCiphertext
)

// largeBuffers are lent to connections while they receive or send records
// that do not fit in a small buffer. They hold application data at most, never
// keys.
var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// A recordBuffer reads records from a stream, with as few system calls and as
// little memory as they need. The zero value is ready to use.
type recordBuffer struct {
	buf   []byte // small, or large[:]
	r, w  int    // buf[r:w] has been received and not consumed
	small []byte
	large *[largeBuffer]byte // nil unless in use
	// trusting is set when the handshake is done. Before that a header that
	// promises a long record gets room for it only as the record arrives: else
	// six octets would hold a large buffer for as long as a handshake may take.
	trusting bool
}

// peek returns the next n octets without consuming them. They are valid until
// the next call of peek. n is at most largeBuffer.
func (b *recordBuffer) peek(from io.Reader, n int) ([]byte, error) {
	if b.r == b.w {
		b.shrink()
	}
	for b.w-b.r < n {
		b.makeRoom(n)
		m, err := from.Read(b.buf[b.w:])
		b.w += m
		if err != nil && b.w-b.r < n {
			if err == io.EOF && b.w > b.r {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return b.buf[b.r : b.r+n : b.r+n], nil
}

// consume drops n octets that peek has shown.
func (b *recordBuffer) consume(n int) { b.r += n }

// makeRoom makes b.buf hold more than b.buf[b.r:b.w], up to n octets in all.
func (b *recordBuffer) makeRoom(n int) {
	if b.small == nil {
		b.small = make([]byte, smallBuffer)
		b.buf = b.small
	}
	if have := b.w - b.r; n > len(b.buf) && (b.trusting || have == len(b.buf)) {
		b.grow(n)
	}
	if b.w == len(b.buf) || b.r+n > len(b.buf) {
		b.w = copy(b.buf, b.buf[b.r:b.w])
		b.r = 0
	}
}

// grow moves what is there to a longer buffer: a large one, or, as long as we
// are not trusting, one of twice the length until that is no less.
func (b *recordBuffer) grow(n int) {
	longer := 2 * len(b.buf)
	if b.trusting || longer > maxHello {
		b.large = largeBuffers.Get().(*[largeBuffer]byte)
		longer = largeBuffer
	}
	old := b.buf[b.r:b.w]
	if b.large != nil {
		b.buf = b.large[:]
	} else {
		b.buf = make([]byte, longer)
	}
	b.w, b.r = copy(b.buf, old), 0
}

// shrink gives a large buffer back that holds nothing any more.
func (b *recordBuffer) shrink() {
	b.r, b.w = 0, 0
	if b.large != nil {
		largeBuffers.Put(b.large)
		b.large = nil
	}
	b.buf = b.small
}
