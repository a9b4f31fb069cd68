package tlspsk

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"net/netip"
	"time"
)

const (
	cookieLen      = 4 + 16
	cookieLifetime = 60 * time.Second
)

// cookies makes and checks the cookies of DTLS (RFC 6347 section 4.2.1): the
// time, and a MAC over it, the client's address and its random. A client that
// returns one receives at that address, and the server need not have kept
// anything of it. The random ties the cookie to one ClientHello, so that one
// cookie is not good for many sessions. It is used by one goroutine.
type cookies struct {
	mac   hash.Hash
	start time.Time
	sum   [sha256.Size]byte
}

func newCookies() *cookies {
	key := make([]byte, sha256.Size)
	rand.Read(key)
	return &cookies{mac: hmac.New(sha256.New, key), start: time.Now()}
}

// append appends a cookie for the client to dst.
func (c *cookies) append(dst []byte, from netip.AddrPort, random []byte) []byte {
	return c.appendAt(dst, c.now(), from, random)
}

// valid reports whether the cookie was made for the client not long ago.
func (c *cookies) valid(cookie []byte, from netip.AddrPort, random []byte) bool {
	if len(cookie) != cookieLen {
		return false
	}
	made := binary.BigEndian.Uint32(cookie)
	if age := c.now() - made; time.Duration(age)*time.Second > cookieLifetime {
		return false // too old, or from the future: the difference wraps
	}
	return hmac.Equal(c.appendAt(nil, made, from, random), cookie)
}

func (c *cookies) appendAt(dst []byte, now uint32, from netip.AddrPort, random []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, now)
	addr := from.Addr().As16()
	c.mac.Reset()
	c.mac.Write(dst[len(dst)-4:])
	c.mac.Write(addr[:])
	c.mac.Write(binary.BigEndian.AppendUint16(nil, from.Port()))
	c.mac.Write(random)
	return append(dst, c.mac.Sum(c.sum[:0])[:cookieLen-4]...)
}

// now is the time in whole seconds since the cookies' key was made.
func (c *cookies) now() uint32 { return uint32(time.Since(c.start) / time.Second) }
