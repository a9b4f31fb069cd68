package http1

import (
	"bytes"
	"io"
	"sync"
)

// A Reader reads the messages of one connection. It holds a buffer only while
// there is something in it: an idle connection costs no more than the Reader.
type Reader struct {
	// Lenient takes what some CSEs send that no device may: a line that ends
	// with a bare LF, a request-target without its slash, no Host.
	Lenient bool

	src  io.Reader
	buf  *[MaxHead]byte // nil when empty
	r, w int            // buf[r:w] is to be read
	one  [1]byte
}

var buffers = sync.Pool{New: func() any { return new([MaxHead]byte) }}

// NewReader returns a Reader of src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// Reset makes the Reader one of src, and drops what was not read.
func (r *Reader) Reset(src io.Reader) {
	r.r, r.w = 0, 0
	r.release()
	r.src = src
}

// Wait blocks until the first octet of the next message is there. An io.EOF
// means that the peer has ended between two messages.
func (r *Reader) Wait() error {
	if r.r < r.w {
		return nil
	}
	r.release()
	n, err := r.src.Read(r.one[:])
	if n == 0 {
		if err == nil {
			err = io.ErrNoProgress
		}
		return err
	}
	r.buf = buffers.Get().(*[MaxHead]byte)
	r.buf[0], r.r, r.w = r.one[0], 0, 1
	return nil
}

// Buffered returns how many octets of what comes next have been read ahead.
func (r *Reader) Buffered() int { return r.w - r.r }

// ReadAhead reads once more from the connection, to learn whether the peer is
// still there. It reports false when it has no room to do so.
func (r *Reader) ReadAhead() (bool, error) {
	if r.w-r.r == MaxHead {
		return false, nil
	}
	return true, r.fill()
}

// release gives an empty buffer back.
func (r *Reader) release() {
	if r.buf != nil && r.r == r.w {
		buffers.Put(r.buf)
		r.buf, r.r, r.w = nil, 0, 0
	}
}

// fill reads more into the buffer, which has room.
func (r *Reader) fill() error {
	if r.buf == nil {
		r.buf, r.r, r.w = buffers.Get().(*[MaxHead]byte), 0, 0
	}
	if r.r > 0 {
		r.w = copy(r.buf[:], r.buf[r.r:r.w])
		r.r = 0
	}
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// head returns the octets of the next head, up to and with its empty line. They
// are valid until the next call of any method.
func (r *Reader) head() ([]byte, error) {
	seen := 0
	for {
		b := []byte(nil)
		if r.buf != nil {
			b = r.buf[r.r:r.w]
		}
		if n := r.endOfHead(b, seen); n > 0 {
			r.r += n
			return b[:n], nil
		}
		if len(b) == MaxHead {
			return nil, refuse(431, "a head of more than %d octets", MaxHead)
		}
		seen = max(0, len(b)-3)
		if err := r.fill(); err != nil {
			if err == io.EOF && len(b) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// endOfHead returns the length of the head that b begins with, or 0 when there
// is no end in it. Up to from there is none.
func (r *Reader) endOfHead(b []byte, from int) int {
	if !r.Lenient {
		if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
			return from + i + 4
		}
		return 0
	}
	for i := from; i < len(b); i++ {
		if b[i] != '\n' {
			continue
		}
		rest := b[i+1:]
		switch {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 2
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 3
		}
	}
	return 0
}

// line reads a line of at most max octets, without its CRLF.
func (r *Reader) line(max int) ([]byte, error) {
	for {
		var b []byte
		if r.buf != nil {
			b = r.buf[r.r:r.w]
		}
		if i := bytes.IndexByte(b, '\n'); i > max+1 || i < 0 && len(b) > max+1 {
			return nil, refuse(400, "a line of more than %d octets", max)
		} else if i == 0 || i > 0 && b[i-1] != '\r' {
			return nil, errBareLF
		} else if i > 0 {
			r.r += i + 1
			return b[:i-1], nil
		}
		if err := r.fill(); err != nil {
			return nil, unexpected(err)
		}
	}
}

// full reads len(p) octets.
func (r *Reader) full(p []byte) error {
	n := 0
	if r.buf != nil {
		n = copy(p, r.buf[r.r:r.w])
		r.r += n
		r.release()
	}
	_, err := io.ReadFull(r.src, p[n:])
	return unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
