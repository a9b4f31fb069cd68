package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// samples has each type of packet, with each of its options, and its octets by
// hand.
var samples = []struct {
	name   string
	packet Packet
	octets string
}{
	{"connect", &Connect{CleanSession: true, KeepAlive: 60, ClientID: "a"},
		"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a"},
	{"connect, everything", &Connect{
		KeepAlive: 0x1234, ClientID: "ü", Will: &Will{Topic: "t", Payload: []byte("p"), QoS: 2, Retain: true},
		HasUsername: true, Username: "u", HasPassword: true, Password: []byte{0, 1},
	}, "\x10\x1b\x00\x04MQTT\x04\xf4\x12\x34\x00\x02\xc3\xbc\x00\x01t\x00\x01p\x00\x01u\x00\x02\x00\x01"},
	{"connack", &Connack{SessionPresent: true}, "\x20\x02\x01\x00"},
	{"connack, refused", &Connack{Code: ServerUnavailable}, "\x20\x02\x00\x03"},
	{"publish", &Publish{Topic: "a/b", Payload: []byte("x")}, "\x30\x06\x00\x03a/bx"},
	{"publish, everything", &Publish{Dup: true, QoS: 2, Retain: true, Topic: "a", ID: 7, Payload: []byte{}},
		"\x3d\x05\x00\x01a\x00\x07"},
	{"puback", &Ack{TypePuback, 1}, "\x40\x02\x00\x01"},
	{"pubrec", &Ack{TypePubrec, 1}, "\x50\x02\x00\x01"},
	{"pubrel", &Ack{TypePubrel, 1}, "\x62\x02\x00\x01"},
	{"pubcomp", &Ack{TypePubcomp, 0xffff}, "\x70\x02\xff\xff"},
	{"subscribe", &Subscribe{ID: 1, Filters: []Filter{{"a/+/#", 1}, {"#", 0}}},
		"\x82\x0e\x00\x01\x00\x05a/+/#\x01\x00\x01#\x00"},
	{"suback", &Suback{ID: 1, Codes: []byte{0, 1, 2, 0x80}}, "\x90\x06\x00\x01\x00\x01\x02\x80"},
	{"unsubscribe", &Unsubscribe{ID: 1, Topics: []string{"a", "+"}}, "\xa2\x08\x00\x01\x00\x01a\x00\x01+"},
	{"unsuback", &Ack{TypeUnsuback, 1}, "\xb0\x02\x00\x01"},
	{"pingreq", Signal(TypePingreq), "\xc0\x00"},
	{"pingresp", Signal(TypePingresp), "\xd0\x00"},
	{"disconnect", Signal(TypeDisconnect), "\xe0\x00"},
}

func read(octets string) (Packet, error) {
	return Read(bufio.NewReader(strings.NewReader(octets)), 1<<20)
}

func TestSamples(t *testing.T) {
	seen := make(map[Type]bool)
	for _, s := range samples {
		seen[s.packet.Type()] = true
		got, err := Append(nil, s.packet)
		if err != nil || string(got) != s.octets {
			t.Errorf("%s: Append = %x, %v, want %x", s.name, got, err, s.octets)
		}
		p, err := read(s.octets)
		if err != nil || !reflect.DeepEqual(p, s.packet) {
			t.Errorf("%s: Read = %+v, %v, want %+v", s.name, p, err, s.packet)
		}
		for n := 1; n < len(s.octets); n++ {
			if p, err := read(s.octets[:n]); err != io.ErrUnexpectedEOF {
				t.Errorf("%s cut to %d octets: %+v, %v", s.name, n, p, err)
			}
		}
	}
	if len(seen) != int(TypeDisconnect) {
		t.Errorf("there are samples of %d types", len(seen))
	}
}

// Each of these is malformed in one way. The comments name what some parser
// that is in use makes of it.
var malformed = map[string]string{
	"type 0":                        "\x00\x00",
	"type 15":                       "\xf0\x00", // AUTH in MQTT 5
	"publish, NUL in the topic":     "\x30\x05\x00\x03a\x00b",
	"publish, control in the topic": "\x30\x05\x00\x03a\nb",
	"publish, topic not UTF-8":      "\x30\x05\x00\x03a\xffb",
	"publish, surrogate in UTF-8":   "\x30\x05\x00\x03\xed\xa0\x80",
	"publish, overlong UTF-8":       "\x30\x04\x00\x02\xc0\xaf", // '/' to a careless reader
	"publish, non-character":        "\x30\x05\x00\x03\xef\xbf\xbf",
	"publish, wildcard #":           "\x30\x05\x00\x03a/#", // a message to all
	"publish, wildcard +":           "\x30\x05\x00\x03+/b",
	"publish, no topic":             "\x30\x02\x00\x00",
	"publish, QoS 3":                "\x36\x07\x00\x03a/b\x00\x01",
	"publish, identifier 0":         "\x32\x07\x00\x03a/b\x00\x00",
	"publish, no identifier":        "\x32\x05\x00\x03a/b",
	"publish, DUP at QoS 0":         "\x38\x05\x00\x03a/b",
	"publish, topic past the end":   "\x30\x05\x00\x09a/b",
	"puback, identifier 0":          "\x40\x02\x00\x00",
	"puback, reason code":           "\x40\x03\x00\x01\x00", // MQTT 5
	"puback, flags":                 "\x42\x02\x00\x01",
	"pubrel, flags":                 "\x60\x02\x00\x01",
	"subscribe, flags":              "\x80\x08\x00\x01\x00\x03a/b\x00",
	"subscribe, QoS 3":              "\x82\x08\x00\x01\x00\x03a/b\x03",
	"subscribe, options":            "\x82\x08\x00\x01\x00\x03a/b\x41", // QoS 1 to who masks
	"subscribe, no filter":          "\x82\x02\x00\x01",
	"subscribe, empty filter":       "\x82\x05\x00\x01\x00\x00\x00",
	"subscribe, no QoS":             "\x82\x07\x00\x01\x00\x03a/b",
	"subscribe, # not last":         "\x82\x0a\x00\x01\x00\x05a/#/b\x00",
	"subscribe, # within a level":   "\x82\x07\x00\x01\x00\x02a#\x00",
	"subscribe, + within a level":   "\x82\x07\x00\x01\x00\x02+a\x00",
	"suback, no code":               "\x90\x02\x00\x01",
	"suback, reserved code":         "\x90\x03\x00\x01\x03",
	"unsubscribe, no topic":         "\xa2\x02\x00\x01",
	"pingreq, body":                 "\xc0\x01x",
	"disconnect, reason code":       "\xe0\x01\x00", // MQTT 5
	"connack, flags":                "\x20\x02\x02\x00",
	"connack, code":                 "\x20\x02\x00\x06",
	"connack, session, refused":     "\x20\x02\x01\x03",
	"connect, octets after":         "\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x01aX",
	"connect, reserved flag":        "\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a",
	"connect, password, no user":    "\x10\x0f\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x00",
	"connect, will QoS, no will":    "\x10\x0d\x00\x04MQTT\x04\x0a\x00\x00\x00\x01a",
	"connect, will retain, no will": "\x10\x0d\x00\x04MQTT\x04\x22\x00\x00\x00\x01a",
	"connect, will QoS 3":           "\x10\x13\x00\x04MQTT\x04\x1e\x00\x00\x00\x01a\x00\x01t\x00\x01p",
	"connect, will to wildcard":     "\x10\x13\x00\x04MQTT\x04\x06\x00\x00\x00\x01a\x00\x01#\x00\x01p",
	"connect, NUL in ClientID":      "\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01\x00",
	"length not shortest":           "\xc0\x80\x00",
	"length of five octets":         "\xc0\x80\x80\x80\x80\x01",
}

func TestMalformed(t *testing.T) {
	for name, octets := range malformed {
		if p, err := read(octets); err == nil || err == io.EOF || errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
}

// Other versions of the protocol are told from what is merely malformed.
func TestOtherVersions(t *testing.T) {
	for name, octets := range map[string]string{
		"MQTT 3.1":     "\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a",
		"MQTT 5":       "\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01a",
		"a bridge's":   "\x10\x0d\x00\x04MQTT\x84\x02\x00\x3c\x00\x01a", // mosquitto's private bit
		"another name": "\x10\x0d\x00\x04mqtt\x04\x02\x00\x3c\x00\x01a",
	} {
		if _, err := read(octets); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimit(t *testing.T) {
	octets, err := Append(nil, &Publish{Topic: "t", Payload: make([]byte, 20_000)})
	if err != nil {
		t.Fatal(err)
	}
	limit := 20_003
	if _, err := Read(bufio.NewReader(bytes.NewReader(octets)), limit); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	if _, err := Read(bufio.NewReader(bytes.NewReader(octets)), limit-1); !errors.Is(err, ErrTooLarge) {
		t.Errorf("over the limit: %v", err)
	}
	if _, err := read(""); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
}

// A header that promises 256 MiB costs no more than what comes after it.
func TestPromisesHoldNoMemory(t *testing.T) {
	const runs = 100
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		r := bufio.NewReaderSize(strings.NewReader("\x30\xff\xff\xff\x7fabc"), 16)
		if _, err := Read(r, maxRemaining); err != io.ErrUnexpectedEOF {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := (after.TotalAlloc - before.TotalAlloc) / runs; n > 16<<10 {
		t.Errorf("%d octets allocated for each", n)
	}
}

func TestAppendRefusesWhatDoesNotFit(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	for _, p := range []Packet{
		&Connect{ClientID: long},
		&Connect{HasUsername: true, Username: long},
		&Connect{Will: &Will{Topic: "t", Payload: []byte(long)}},
		&Publish{Topic: long},
		&Subscribe{ID: 1, Filters: []Filter{{Topic: long}}},
		&Unsubscribe{ID: 1, Topics: []string{long}},
	} {
		if b, err := Append([]byte("kept"), p); err == nil || string(b) != "kept" {
			t.Errorf("%v: %d octets, %v", p.Type(), len(b), err)
		}
	}
}

// What Parse accepts, Append writes back octet for octet.
func FuzzRead(f *testing.F) {
	for _, s := range samples {
		f.Add([]byte(s.octets))
	}
	for _, octets := range malformed {
		f.Add([]byte(octets))
	}
	f.Fuzz(func(t *testing.T, octets []byte) {
		source := bytes.NewReader(octets)
		r := bufio.NewReader(source)
		p, err := Read(r, 1<<16)
		if err != nil {
			return
		}
		taken := octets[:len(octets)-source.Len()-r.Buffered()]
		again, err := Append(nil, p)
		if err != nil || !bytes.Equal(again, taken) {
			t.Errorf("%x became %x, %v", taken, again, err)
		}
	})
}
