package mqtt

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ErrTooLarge is wrapped by the error for a packet whose remaining length is
// over the limit.
var ErrTooLarge = errors.New("mqtt: packet is over the limit")

// Read reads one packet of which at most limit octets follow the fixed header.
// It returns io.EOF when r ends before the packet's first octet.
func Read(r *bufio.Reader, limit int) (Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	n, err := readRemaining(r)
	if err != nil {
		return nil, err
	}
	if n > limit {
		return nil, fmt.Errorf("%w: %v of %d octets", ErrTooLarge, Type(first>>4), n)
	}
	body, err := readBody(r, n)
	if err != nil {
		return nil, noEOF(err)
	}
	return Parse(first, body)
}

// readRemaining reads the remaining length (2.2.3). The standard says nothing of
// lengths with zeros in front; here, as in MQTT 5, only the shortest form is
// one, so that a packet has one encoding.
func readRemaining(r *bufio.Reader) (int, error) {
	n := 0
	for shift := 0; shift < 28; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, noEOF(err)
		}
		n |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 {
				return 0, errors.New("mqtt: remaining length is not in its shortest form")
			}
			return n, nil
		}
	}
	return 0, errors.New("mqtt: remaining length is over four octets (2.2.3)")
}

// readBody reads n octets. Memory grows with what has arrived, so that a
// header that promises much and is followed by nothing holds little.
func readBody(r *bufio.Reader, n int) ([]byte, error) {
	const step = 4 << 10
	body := make([]byte, min(n, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			return nil, err
		}
		if have = len(body); have == n {
			return body, nil
		}
		grown := make([]byte, min(n, 2*have))
		copy(grown, body)
		body = grown
	}
}

// noEOF makes an end within a packet an error that says so.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
