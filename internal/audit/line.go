package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// Form of a line. It is fixed to the octet, so that a line has one reading and a
// reading one line:
//
//	{"seq":7,"time":"2026-05-04T03:02:01.000000Z","event":"key.release", ... ,"outcome":"ok","hash":"..."}
//
// The hash is SHA-256, in hexadecimal, over the hash of the line before, also in
// hexadecimal (64 zeros before the first), and the line as far as before ,"hash".

const (
	hashLen = 2 * sha256.Size
	// maxText bounds each text of an event, and maxLine a line: six octets for
	// each of a text, and all names.
	maxText = 512
	maxLine = 8*6*maxText + 1024

	timeFormat = "2006-01-02T15:04:05.000000Z"
)

// A hash is in hexadecimal, in small letters.
type hash [hashLen]byte

var zeroHash = hash(bytes.Repeat([]byte("0"), hashLen))

func (h hash) String() string { return string(h[:]) }

func parseHash(s string) (hash, error) {
	if len(s) != hashLen {
		return hash{}, fmt.Errorf("a hash has %d hexadecimal digits, not %d", hashLen, len(s))
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return hash{}, errors.New("a hash has hexadecimal digits in small letters only")
		}
	}
	return hash([]byte(s)), nil
}

// next returns the hash of the line that body begins.
func (h hash) next(body []byte) (next hash) {
	d := sha256.New()
	d.Write(h[:])
	d.Write(body)
	var sum [sha256.Size]byte
	hex.Encode(next[:], d.Sum(sum[:0]))
	return next
}

// A position is that of a line in the chain.
type position struct {
	seq  uint64
	hash hash
}

// append writes the line of an event, which becomes the next in the chain.
func (p *position) append(b []byte, e *Event) []byte {
	p.seq++
	e.Seq = p.seq
	start := len(b)
	b = e.appendBody(b)
	p.hash = p.hash.next(b[start:])
	return appendHash(b, p.hash)
}

func appendHash(b []byte, h hash) []byte {
	b = append(b, `,"hash":"`...)
	b = append(b, h[:]...)
	return append(b, "\"}\n"...)
}

// appendBody writes the line as far as it is hashed.
func (e *Event) appendBody(b []byte) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, `,"time":"`...)
	b = e.Time.UTC().AppendFormat(b, timeFormat)
	b = append(b, '"')
	b = appendText(b, "event", string(e.Kind))
	b = appendText(b, "role", string(e.Role))
	b = appendText(b, "actor", e.Actor)
	b = appendText(b, "subject", e.Subject)
	b = appendText(b, "entityB", e.EntityB)
	b = appendText(b, "remote", e.Remote)
	b = appendText(b, "outcome", string(e.Outcome))
	b = appendText(b, "reason", e.Reason)
	if e.Count > 0 {
		b = append(b, `,"count":`...)
		b = strconv.AppendUint(b, e.Count, 10)
	}
	return appendText(b, "prev", e.Prev)
}

// appendText writes a member, unless it is empty. All but printable ASCII is
// escaped, so that no terminal and no log reader obeys what a stranger sent.
func appendText(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	for i := 0; i < len(text); {
		if i >= maxText {
			b = append(b, "..."...)
			break
		}
		c := text[i]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case ' ' <= c && c <= '~':
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(text[i:]) // U+FFFD for what is none
			b = appendEscape(b, r)
			i += n
		}
	}
	return append(b, '"')
}

const hexDigits = "0123456789abcdef"

func appendEscape(b []byte, r rune) []byte {
	if r > 0xffff { // a surrogate pair
		r -= 0x10000
		b = appendEscape(b, 0xd800+r>>10)
		r = 0xdc00 + r&0x3ff
	}
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// parseLine reads a line without its end. It takes what append writes and
// nothing else.
func parseLine(line []byte) (Event, hash, error) {
	var read struct {
		Seq                                           uint64
		Time                                          string
		Event                                         Kind
		Role                                          Role
		Actor, Subject, EntityB, Remote, Reason, Prev string
		Outcome                                       Outcome
		Count                                         uint64
		Hash                                          string
	}
	if err := json.Unmarshal(line, &read); err != nil {
		return Event{}, hash{}, errors.New("this is not a line of JSON")
	}
	at, err := time.Parse(timeFormat, read.Time)
	if err != nil {
		return Event{}, hash{}, errors.New("its time is not one")
	}
	h, err := parseHash(read.Hash)
	if err != nil {
		return Event{}, hash{}, err
	}
	e := Event{
		Seq: read.Seq, Time: at, Kind: read.Event, Role: read.Role, Actor: read.Actor,
		Subject: read.Subject, EntityB: read.EntityB, Remote: read.Remote,
		Outcome: read.Outcome, Reason: read.Reason, Count: read.Count, Prev: read.Prev,
	}
	if e.Prev != "" {
		if _, err := parseHash(e.Prev); err != nil {
			return Event{}, hash{}, err
		}
	}
	// json takes a value in many spellings, of which we write one.
	again := appendHash(e.appendBody(make([]byte, 0, len(line)+1)), h)
	if !bytes.Equal(again[:len(again)-1], line) {
		return Event{}, hash{}, errors.New("this is not how mafd writes lines")
	}
	return e, h, nil
}

// body returns the part of a good line that is hashed.
func body(line []byte) []byte { return line[:len(line)-len(`,"hash":""}`)-hashLen] }
