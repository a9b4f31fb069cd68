package suite

import (
	"bytes"
	"crypto/aes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"testing"
)

// An opensslSession is one of testdata/openssl.json, which testdata/openssl.c
// made: a session of OpenSSL with itself, and what libssl says of it.
type opensslSession struct {
	Suite                                     uint16
	DTLS, EMS, ETM                            bool
	PSK, ClientRandom, ServerRandom           octets
	Transcript                                octets // messages before the client's Finished
	Master                                    octets
	ClientFinished, ServerFinished            octets // verify_data
	Export, ExportEmptyContext, ExportContext octets
	Client, Server                            octets // all that was sent
}

// eachOpenSSLSession runs f for each session, with the master secret's PRF.
func eachOpenSSLSession(t *testing.T, f func(t *testing.T, v *opensslSession, s *Suite, master *PRF)) {
	file, err := os.Open("testdata/openssl.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	seen := make(map[uint16]bool)
	d := json.NewDecoder(file)
	d.DisallowUnknownFields()
	for d.More() {
		v := new(opensslSession)
		if err := d.Decode(v); err != nil {
			t.Fatal(err)
		}
		s := ByID(v.Suite)
		seen[v.Suite] = true
		t.Run(fmt.Sprintf("%s/dtls=%v,ems=%v,etm=%v", s.Name, v.DTLS, v.EMS, v.ETM), func(t *testing.T) {
			f(t, v, s, s.NewPRF(v.Master))
		})
	}
	for _, id := range Preferred() {
		if s := ByID(id); !s.ECDHE && !seen[id] {
			t.Errorf("no session with %s", s.Name)
		}
	}
}

func (s *Suite) hashOf(messages ...[]byte) []byte {
	h := s.NewHash()
	for _, m := range messages {
		h.Write(m)
	}
	return h.Sum(nil)
}

func TestOpenSSLKeys(t *testing.T) {
	eachOpenSSLSession(t, func(t *testing.T, v *opensslSession, s *Suite, master *PRF) {
		var sessionHash []byte
		if v.EMS {
			sessionHash = s.hashOf(v.Transcript)
		}
		if got := s.MasterSecret(PremasterSecret(v.PSK, nil), sessionHash, v.ClientRandom, v.ServerRandom); !bytes.Equal(got, v.Master) {
			t.Errorf("master secret %x, OpenSSL has %x", got, []byte(v.Master))
		}
		clientFinished, serverFinished := v.finished()
		if got := VerifyData(master, true, s.hashOf(v.Transcript)); !bytes.Equal(got, v.ClientFinished) {
			t.Errorf("the client's Finished %x, OpenSSL has %x", got, clientFinished)
		}
		if got := VerifyData(master, false, s.hashOf(v.Transcript, clientFinished)); !bytes.Equal(got, v.ServerFinished) {
			t.Errorf("the server's Finished %x, OpenSSL has %x", got, serverFinished)
		}
		for _, e := range []struct {
			context []byte
			want    octets
		}{{nil, v.Export}, {[]byte{}, v.ExportEmptyContext}, {[]byte("context"), v.ExportContext}} {
			got := make([]byte, len(e.want))
			Export(master, got, "EXPORTER-oneM2M-Connection", e.context, v.ClientRandom, v.ServerRandom)
			if !bytes.Equal(got, e.want) {
				t.Errorf("exported with context %q: %x, OpenSSL has %x", e.context, got, []byte(e.want))
			}
		}
	})
}

// finished returns both Finished messages as they are hashed. In DTLS their
// message_seq is 2: in this file each flight before is a whole one, without
// cookies.
func (v *opensslSession) finished() (client, server []byte) {
	message := func(seq byte, data []byte) []byte {
		b := []byte{20, 0, 0, VerifyDataLen}
		if v.DTLS {
			b = append(b, 0, seq, 0, 0, 0, 0, 0, VerifyDataLen)
		}
		return append(b, data...)
	}
	return message(2, v.ClientFinished), message(2, v.ServerFinished)
}

// TestOpenSSLRecords opens all protected records that OpenSSL sent, and seals
// their content to the same octets.
func TestOpenSSLRecords(t *testing.T) {
	eachOpenSSLSession(t, func(t *testing.T, v *opensslSession, s *Suite, master *PRF) {
		client, server, err := s.Protections(master, v.ClientRandom, v.ServerRandom, v.ETM)
		if err != nil {
			t.Fatal(err)
		}
		clientFinished, serverFinished := v.finished()
		v.checkRecords(t, "client", client, v.Client, clientFinished, 1)
		v.checkRecords(t, "server", server, v.Server, serverFinished, 2)
	})
}

// checkRecords expects a Finished, data as openssl.c sends it, the server twice
// as much, and close_notify.
func (v *opensslSession) checkRecords(t *testing.T, who string, p Protection, sent, finished []byte, times int) {
	t.Helper()
	type content struct {
		typ  uint8
		data []byte
	}
	want := []content{{22, finished}}
	for _, n := range []int{1, 15, 16, 47, 48} {
		data := make([]byte, n*times)
		for i := range data {
			data[i] = byte(i)
		}
		want = append(want, content{23, data})
	}
	want = append(want, content{21, []byte{1, 0}})
	for i, r := range v.protected(t, sent) {
		if i == len(want) {
			t.Fatalf("%s: more records than expected", who)
		}
		got, err := p.Open(r.header, bytes.Clone(r.fragment))
		if err != nil || r.header.Type != want[i].typ || !bytes.Equal(got, want[i].data) {
			t.Errorf("%s, record %d: type %d, %x, %v", who, i, r.header.Type, got, err)
			continue
		}
		if again := sealAs(p, r, got); !bytes.Equal(again, r.fragment) {
			t.Errorf("%s, record %d: sealed to %x, OpenSSL to %x", who, i, again, r.fragment)
		}
		if i == len(want)-1 {
			return
		}
	}
	t.Errorf("%s: records are missing", who)
}

type sentRecord struct {
	header   Header
	fragment []byte
}

// protected cuts what one side sent into records, and returns those after its
// ChangeCipherSpec.
func (v *opensslSession) protected(t *testing.T, sent []byte) (list []sentRecord) {
	t.Helper()
	on, seq := false, uint64(0)
	for len(sent) > 0 {
		h := Header{Type: sent[0], Version: binary.BigEndian.Uint16(sent[1:]), Seq: seq}
		rest := sent[3:]
		if v.DTLS {
			h.Seq = binary.BigEndian.Uint64(rest)
			rest = rest[8:]
		}
		n := 2 + int(binary.BigEndian.Uint16(rest))
		if on {
			list = append(list, sentRecord{h, rest[2:n]})
			seq++
		}
		on = on || h.Type == 20
		sent = rest[n:]
	}
	return list
}

// sealAs seals with what the other implementation chose freely: the IV of CBC,
// and the explicit part of a nonce, which OpenSSL begins at random.
func sealAs(p Protection, r sentRecord, plaintext []byte) []byte {
	switch p := p.(type) {
	case *cbcProtection:
		defer func(normal io.Reader) { rand.Reader = normal }(rand.Reader)
		rand.Reader = bytes.NewReader(r.fragment[:aes.BlockSize])
		return p.Seal(nil, r.header, plaintext)
	case *aeadProtection:
		if p.explicit == 0 {
			return p.Seal(nil, r.header, plaintext)
		}
		explicit := r.fragment[:p.explicit]
		p.setNonce(explicit)
		return p.aead.Seal(bytes.Clone(explicit), p.nonce[:], plaintext, r.header.append(nil, len(plaintext)))
	}
	return nil
}
