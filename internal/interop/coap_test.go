package interop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// coapTalk is as much CoAP as it takes to be asked for one resource, and to ask for one: RFC 7252
// over DTLS, RFC 8323 over TLS.
var coapTalk = dialogue{ask: coapAsk, answer: coapAnswer}

const (
	coapGet     = 0x01
	coapContent = 0x45 // 2.05
	coapCSM     = 0xE1 // 7.01, RFC 8323 5.3

	coapConfirmable     = 0x40 // version 1, type 0
	coapAcknowledgement = 0x60
)

// coapMessage is the part of a message that this dialogue looks at.
type coapMessage struct {
	kind    byte // over DTLS: version and type
	code    byte
	id      uint16
	token   []byte
	payload []byte
}

func coapAnswer(network string, in []byte) ([]byte, error) {
	if network == "udp" {
		m, err := parseDatagram(in)
		if err != nil || m.code != coapGet {
			return nil, err // an empty message is an acknowledgement or a ping
		}
		return coapMessage{kind: coapAcknowledgement, code: coapContent, id: m.id, token: m.token, payload: []byte("pong")}.datagram(), nil
	}
	var out []byte
	for len(in) > 0 {
		m, rest, err := parseStream(in)
		if err != nil {
			return nil, err
		}
		in = rest
		switch m.code {
		case coapCSM:
			out = append(out, coapMessage{code: coapCSM}.stream()...)
		case coapGet:
			out = append(out, coapMessage{code: coapContent, token: m.token, payload: []byte("pong")}.stream()...)
		}
	}
	return out, nil
}

// coapAsk gets "/" of libcoap's example server.
func coapAsk(network string, c net.Conn) error {
	const welcome = "This is a test server made with libcoap"
	get := coapMessage{kind: coapConfirmable, code: coapGet, id: 0x7d34, token: []byte{1, 2, 3, 4}}
	request := get.datagram()
	if network == "tcp" {
		request = append(coapMessage{code: coapCSM}.stream(), get.stream()...)
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	var in []byte
	buf := make([]byte, 4096)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return err
		}
		in = append(in, buf[:n]...)
		for len(in) > 0 {
			m, rest, err := coapMessage{}, []byte(nil), error(nil)
			if network == "udp" {
				m, err = parseDatagram(in)
			} else {
				m, rest, err = parseStream(in)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return err
			}
			in = rest
			if m.code == coapContent {
				if !bytes.Equal(m.token, get.token) || !bytes.HasPrefix(m.payload, []byte(welcome)) {
					return fmt.Errorf("unexpected answer %q", m.payload)
				}
				return nil
			}
		}
	}
}

func (m coapMessage) datagram() []byte {
	b := []byte{m.kind | byte(len(m.token)), m.code}
	b = binary.BigEndian.AppendUint16(b, m.id)
	return append(append(b, m.token...), m.body()...)
}

func (m coapMessage) body() []byte {
	if m.payload == nil {
		return nil
	}
	return append([]byte{0xff}, m.payload...)
}

// stream frames the message for TLS; its body is shorter than 13 octets, so that the length fits
// the first nibble.
func (m coapMessage) stream() []byte {
	b := []byte{byte(len(m.body()))<<4 | byte(len(m.token)), m.code}
	return append(append(b, m.token...), m.body()...)
}

func parseDatagram(b []byte) (m coapMessage, err error) {
	if len(b) < 4 || len(b) < 4+int(b[0]&15) {
		return m, errors.New("not a CoAP message")
	}
	tokenEnd := 4 + int(b[0]&15)
	return coapMessage{b[0] & 0xf0, b[1], binary.BigEndian.Uint16(b[2:]), b[4:tokenEnd], skipOptions(b[tokenEnd:])}, nil
}

// skipOptions finds the payload behind the options.
func skipOptions(b []byte) (payload []byte) {
	for len(b) > 0 {
		if b[0] == 0xff {
			return b[1:]
		}
		delta, size := int(b[0]>>4), int(b[0]&15)
		b = b[1:]
		_, b = coapNumber(delta, b)
		size, b = coapNumber(size, b)
		b = b[min(size, len(b)):]
	}
	return nil
}

// coapNumber reads a nibble's extension (RFC 7252 3.1, RFC 8323 3.2).
func coapNumber(nibble int, b []byte) (int, []byte) {
	switch {
	case nibble == 13 && len(b) >= 1:
		return 13 + int(b[0]), b[1:]
	case nibble == 14 && len(b) >= 2:
		return 269 + int(binary.BigEndian.Uint16(b)), b[2:]
	}
	return nibble, b
}

func parseStream(b []byte) (m coapMessage, rest []byte, err error) {
	tokenLen := int(b[0] & 15)
	size, b := coapNumber(int(b[0]>>4), b[1:])
	if len(b) < 1+tokenLen+size {
		return m, nil, io.ErrUnexpectedEOF
	}
	m.code = b[0]
	m.token, b = b[1:1+tokenLen], b[1+tokenLen:]
	m.payload = skipOptions(b[:size])
	return m, b[size:], nil
}
