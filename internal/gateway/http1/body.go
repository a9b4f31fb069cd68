package http1

import (
	"io"
	"strconv"
)

// trusted is how much of a body must have come before room is made for all that
// was announced: else a line of text would hold that much for as long as the
// peer may take to send it.
const trusted = 64 << 10

// ReadBody appends the body of m to dst. One of more than limit octets is an
// *Error of status 413.
func (r *Reader) ReadBody(m *Message, dst []byte, limit int64) ([]byte, error) {
	switch m.length {
	case chunked:
		return r.readChunks(dst, limit)
	case untilClose:
		return r.readUntilClose(dst, limit)
	}
	if m.length > limit {
		return dst, tooLarge(limit)
	}
	return r.append(dst, int(m.length))
}

func tooLarge(limit int64) error { return refuse(413, "a body of more than %d octets", limit) }

// append appends n octets to dst.
func (r *Reader) append(dst []byte, n int) ([]byte, error) {
	for n > 0 {
		step := n
		if cap(dst)-len(dst) < n {
			step = min(n, max(trusted, cap(dst)-len(dst)))
		}
		start := len(dst)
		dst = grow(dst, step, n)
		if err := r.full(dst[start:]); err != nil {
			return dst[:start], err
		}
		n -= step
	}
	return dst, nil
}

// grow makes dst longer by step octets. If that takes a new array, it is one for
// all n to come, provided that as much as is trusted has come already; and of at
// least twice the room, else a body of many small chunks would be copied for each.
func grow(dst []byte, step, n int) []byte {
	length := len(dst) + step
	if length <= cap(dst) {
		return dst[:length]
	}
	room := max(length, 2*cap(dst))
	if len(dst) >= trusted {
		room = max(room, len(dst)+n)
	}
	longer := make([]byte, length, room)
	copy(longer, dst)
	return longer
}

func (r *Reader) readChunks(dst []byte, limit int64) ([]byte, error) {
	start := len(dst)
	for {
		line, err := r.line(8)
		if err != nil {
			return dst, err
		}
		n, ok := parseChunkSize(line)
		if !ok {
			return dst, refuse(400, "a malformed chunk size") // or an extension, for which nobody has a use
		}
		if int64(len(dst)-start)+n > limit {
			return dst, tooLarge(limit)
		}
		if n > 0 {
			if dst, err = r.append(dst, int(n)); err != nil {
				return dst, err
			}
		}
		if line, err = r.line(8); err != nil {
			return dst, err
		}
		if len(line) > 0 {
			return dst, refuse(400, "a trailer, or a chunk longer than its size")
		}
		if n == 0 {
			return dst, nil
		}
	}
}

// parseChunkSize reads up to seven hexadecimal digits.
func parseChunkSize(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 7 {
		return 0, false
	}
	for _, c := range b {
		if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f') {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(string(b), 16, 64)
	return n, err == nil
}

// readUntilClose reads what a sender of no length sends before it closes.
func (r *Reader) readUntilClose(dst []byte, limit int64) ([]byte, error) {
	start := len(dst)
	for {
		if r.buf == nil || r.r == r.w {
			if err := r.fill(); err == io.EOF {
				return dst, nil
			} else if err != nil {
				return dst, err
			}
		}
		dst = append(dst, r.buf[r.r:r.w]...)
		r.r = r.w
		if int64(len(dst)-start) > limit {
			return dst, tooLarge(limit)
		}
	}
}
