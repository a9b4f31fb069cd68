package wire

import (
	"bytes"
	"testing"
)

func fullClientHello() *ClientHello {
	return &ClientHello{
		Version: VersionTLS12, Random: bytes.Repeat([]byte{1}, RandomLen), SessionID: []byte{2}, Cookie: []byte("cookie"),
		CipherSuites: []uint16{0x00ae, 0xc0a8}, NullCompression: true,
		Extensions: Extensions{
			ServerName: "maf.example.com", HasServerName: true, MaxFragmentLength: 1, RecordSizeLimit: 64, HasRecordSizeLimit: true,
			SupportedGroups: []uint16{29, 23}, PointFormats: true, Uncompressed: true, EncryptThenMAC: true, ExtendedMasterSecret: true,
			SupportedVersions: []uint16{0x0303}, HasRenegotiationInfo: true, RenegotiationInfo: []byte{},
			HasConnectionID: true, ConnectionID: []byte("id"),
		},
	}
}

// What we write we read back as it was.
func TestHelloRoundTrip(t *testing.T) {
	for _, dtls := range []bool{false, true} {
		want := fullClientHello().Marshal(dtls)
		var h ClientHello
		if err := h.Parse(want, dtls); err != nil {
			t.Fatal(err)
		}
		if got := h.Marshal(dtls); !bytes.Equal(got, want) {
			t.Errorf("ClientHello changes:\n%x\n%x", want, got)
		}
	}
	sh := ServerHello{Version: VersionTLS12, Random: make([]byte, RandomLen), CipherSuite: 0x00ae, Extensions: Extensions{
		HasServerName: true, ExtendedMasterSecret: true, EncryptThenMAC: true, HasRenegotiationInfo: true, MaxFragmentLength: 4, PointFormats: true}}
	want := sh.Marshal()
	if err := sh.Parse(want); err != nil || !bytes.Equal(sh.Marshal(), want) {
		t.Errorf("ServerHello changes: %v", err)
	}
}

// A hello cut anywhere, but for the end of its last field before the
// extensions, does not parse.
func TestHelloCut(t *testing.T) {
	whole := fullClientHello()
	body := whole.Marshal(true)
	whole.Extensions = Extensions{}
	withoutExtensions := len(whole.Marshal(true))
	for n := range body {
		var h ClientHello
		if err := h.Parse(body[:n], true); (err == nil) != (n == withoutExtensions) {
			t.Errorf("cut to %d octets: %v", n, err)
		}
	}
}

// FuzzClientHello: what parses, parses again from what we would write of it,
// to the same meaning, when it has no extension that we do not know.
func FuzzClientHello(f *testing.F) {
	for _, dtls := range []bool{false, true} {
		f.Add(fullClientHello().Marshal(dtls), dtls)
		f.Add((&ClientHello{Random: make([]byte, RandomLen), CipherSuites: []uint16{1}}).Marshal(dtls), dtls)
	}
	f.Fuzz(func(t *testing.T, body []byte, dtls bool) {
		var h, again ClientHello
		if h.Parse(body, dtls) != nil || !h.NullCompression || h.PointFormats && !h.Uncompressed || h.HasServerName && h.ServerName == "" {
			return
		}
		first := h.Marshal(dtls)
		if err := again.Parse(first, dtls); err != nil {
			t.Fatalf("what we wrote does not parse: %v\n%x", err, first)
		}
		if second := again.Marshal(dtls); !bytes.Equal(first, second) {
			t.Errorf("not stable:\n%x\n%x", first, second)
		}
		if dtls {
			var prefix ClientHello
			if err := prefix.ParsePrefix(body); err != nil || !bytes.Equal(prefix.Cookie, h.Cookie) || !bytes.Equal(prefix.Random, h.Random) {
				t.Errorf("the prefix reads otherwise: %v", err)
			}
		}
	})
}

func FuzzServerHello(f *testing.F) {
	f.Add((&ServerHello{Version: VersionTLS12, Random: make([]byte, RandomLen), CipherSuite: 0x00ae,
		Extensions: Extensions{HasServerName: true, HasRenegotiationInfo: true}}).Marshal())
	f.Fuzz(func(t *testing.T, body []byte) {
		var h, again ServerHello
		if h.Parse(body) != nil {
			return
		}
		first := h.Marshal()
		if err := again.Parse(first); err != nil {
			t.Fatalf("what we wrote does not parse: %v", err)
		}
		if !bytes.Equal(first, again.Marshal()) {
			t.Error("not stable")
		}
	})
}

// FuzzKeyExchange: these messages have one encoding only.
func FuzzKeyExchange(f *testing.F) {
	f.Add((&ServerKeyExchange{Hint: []byte("hint"), Group: 29, PublicKey: []byte{1}}).Marshal(true), true)
	f.Add((&ServerKeyExchange{Hint: []byte("hint")}).Marshal(false), false)
	f.Add((&ClientKeyExchange{Identity: []byte("meter7"), PublicKey: []byte{1}}).Marshal(true), true)
	f.Fuzz(func(t *testing.T, body []byte, ecdhe bool) {
		var s ServerKeyExchange
		if s.Parse(body, ecdhe) == nil && !bytes.Equal(s.Marshal(ecdhe), body) {
			t.Error("ServerKeyExchange has a second encoding")
		}
		var c ClientKeyExchange
		if c.Parse(body, ecdhe) == nil && !bytes.Equal(c.Marshal(ecdhe), body) {
			t.Error("ClientKeyExchange has a second encoding")
		}
		var v HelloVerifyRequest
		if v.Parse(body) == nil && !bytes.Equal(v.Append(nil), body) {
			t.Error("HelloVerifyRequest has a second encoding")
		}
	})
}

// FuzzDatagram: records and fragments never reach beyond their datagram.
func FuzzDatagram(f *testing.F) {
	for _, h := range []RecordHeader{
		{Type: Handshake, Version: VersionDTLS12, Length: 13},
		{Type: ConnectionID, Version: VersionDTLS12, Length: 13, ConnectionID: []byte("four")},
	} {
		b := AppendFragmentHeader(AppendDTLSRecordHeader(nil, h), FragmentHeader{Type: 1, Length: 1, Octets: 1})
		f.Add(append(b, 7), uint8(len(h.ConnectionID)))
	}
	f.Fuzz(func(t *testing.T, b []byte, idLen uint8) {
		for len(b) > 0 {
			h, fragment, rest, ok := NextRecord(b, int(idLen))
			if !ok {
				return
			}
			record := append(AppendDTLSRecordHeader(nil, h), fragment...)
			if !bytes.Equal(record, b[:len(b)-len(rest)]) {
				t.Fatal("record has a second encoding")
			}
			PutDTLSLength(record, len(h.ConnectionID))
			if !bytes.Equal(record, b[:len(b)-len(rest)]) {
				t.Fatal("PutDTLSLength sets another length")
			}
			for content := fragment; len(content) > 0; {
				fh, body, more, ok := NextFragment(content)
				if !ok {
					break
				}
				if len(body) != fh.Octets || fh.Offset+len(body) > fh.Length {
					t.Fatal("fragment beyond its message")
				}
				again := append(AppendFragmentHeader(nil, fh), body...)
				if !bytes.Equal(again, content[:len(content)-len(more)]) {
					t.Fatal("fragment has a second encoding")
				}
				content = more
			}
			b = rest
		}
	})
}
