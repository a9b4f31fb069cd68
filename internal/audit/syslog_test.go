package audit

import (
	"bufio"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// RFC 5424 6: PRI VERSION TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD MSG.
var message = regexp.MustCompile(`^<86>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ mafd \d+ audit - (\{.*\})$`)

// TestSyslogUDP: each line is a datagram.
func TestSyslogUDP(t *testing.T) {
	receiver, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	c := config(t)
	c.File.Folder = "" // syslog alone
	if c.Syslog, err = NewSyslog("udp://" + receiver.LocalAddr().String()); err != nil {
		t.Fatal(err)
	}
	l := open(t, c)
	commit(t, l, 1)
	for n := range 2 { // the start, and what was committed
		b := make([]byte, maxLine)
		size, _, err := receiver.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		checkMessage(t, string(b[:size]), uint64(n+1))
	}
}

func checkMessage(t *testing.T, text string, seq uint64) {
	t.Helper()
	m := message.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("%q", text)
	}
	if e, _, err := parseLine([]byte(m[1])); err != nil || e.Seq != seq {
		t.Errorf("%q: %v, number %d, want %d", m[1], err, e.Seq, seq)
	}
}

// TestSyslogTCP: messages have their length before them; and while the file
// fails, the lines are in syslog, and the next file says that they are not in it.
func TestSyslogTCP(t *testing.T) {
	receiver, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	got := make(chan string, 100)
	go func() {
		defer close(got)
		conn, err := receiver.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for {
			length, err := in.ReadString(' ')
			if err != nil {
				return
			}
			n, err := strconv.Atoi(strings.TrimSpace(length))
			if err != nil {
				return
			}
			text := make([]byte, n)
			if _, err := io.ReadFull(in, text); err != nil {
				return
			}
			got <- string(text)
		}
	}()
	c := config(t)
	c.Refuse = true
	if c.Syslog, err = NewSyslog("tcp://" + receiver.Addr().String()); err != nil {
		t.Fatal(err)
	}
	l, disk := failing(t, c)
	commit(t, l, 2)
	disk.full.Store(true)
	commit(t, l, 3)
	if s := l.Stats(); s.Unwritable || s.Missed == 0 {
		t.Errorf("%+v", s)
	}
	disk.full.Store(false)
	commit(t, l, 2)
	l.Close()
	seq := uint64(0)
	for text := range got {
		seq++
		checkMessage(t, text, seq)
	}
	r := verify(t, c.File.Folder)
	if r.Last != seq || r.Elsewhere == 0 || uint64(r.Lines)+r.Elsewhere != seq {
		t.Errorf("%d messages, %+v", seq, r)
	}
	if changes := kinds(t, c.File.Folder, SinkChange); len(changes) == 0 || changes[len(changes)-1].Outcome != OK {
		t.Errorf("%+v", changes)
	}
}

func TestNewSyslog(t *testing.T) {
	for target, good := range map[string]bool{
		"local": true, "udp://192.0.2.7:514": true, "tcp://logs.example.com:601": true, "udp://[2001:db8::1]:514": true,
		"": false, "/dev/log": false, "udp://192.0.2.7": false, "http://192.0.2.7:514": false, "tcp://h:0": false,
		"tcp://h:70000": false, "tcp://h:601/path": false, "udp://u@h:514": false, "udp://0.0.0.0:514": false,
	} {
		if _, err := NewSyslog(target); (err == nil) != good {
			t.Errorf("%q: %v", target, err)
		}
	}
}

// TestSyslogFails: a receiver that isn't there is left alone for a while, and the
// file is enough.
func TestSyslogFails(t *testing.T) {
	c := config(t)
	c.Syslog = &Syslog{network: "unixgram", address: c.File.Folder + "/nothing"}
	c.Refuse = true
	l := open(t, c)
	commit(t, l, 3)
	l.Close()
	verify(t, c.File.Folder)
	if changes := kinds(t, c.File.Folder, SinkChange); len(changes) != 1 || changes[0].Subject != "syslog" || changes[0].Outcome != Failed {
		t.Errorf("%+v", changes)
	}
}
