package tlspsk

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/tlspsk/internal/wire"
)

const (
	// maxDatagram is the largest datagram that UDP carries.
	maxDatagram = 1 << 16
	// acceptBacklog is how many clients that have returned a cookie wait for
	// Accept. More are dropped; they come again.
	acceptBacklog = 512
	// readErrorPause keeps a socket that fails on and on from taking a core.
	readErrorPause = 10 * time.Millisecond
)

// NewPacketListener returns a DTLS listener on pc, which it takes over. The
// addresses that pc's ReadFrom returns must be *net.UDPAddr. One socket serves
// all peers: Close stops the accepting of new sessions, and the socket is
// closed when the last session has been.
func NewPacketListener(pc net.PacketConn, config *Config) net.Listener {
	l := &packetListener{
		socket:   newPacketSocket(pc),
		config:   config,
		cookies:  newCookies(),
		accepted: make(chan *Conn, acceptBacklog),
		closed:   make(chan struct{}),
		peers:    make(map[netip.AddrPort]*peer),
		byID:     make(map[connectionID]*listenerSession),
	}
	go l.readLoop()
	return l
}

// A packetListener gives each datagram to the session of its source address.
// For unknown addresses it keeps nothing until a valid cookie comes back.
type packetListener struct {
	socket   packetSocket
	config   *Config
	cookies  *cookies // owned by readLoop
	accepted chan *Conn
	closed   chan struct{} // closed when no new sessions are wanted

	mu    sync.Mutex // guards what follows
	peers map[netip.AddrPort]*peer
	byID  map[connectionID]*listenerSession // sessions and handshakes
	shut  bool                              // closed is closed
	over  bool                              // the socket is closed
}

// A connectionID is what our clients put in their records when they can
// (RFC 9146). It is random: who guesses one learns nothing and changes nothing,
// but clients that share a path should not be told apart by a counter.
type connectionID [8]byte

// A peer is what there is behind one address: at most one session, and at most
// one handshake that will take its place. Both may be there at once: a device
// that has lost its state comes back from the same address (RFC 6347 section
// 4.2.8), but a new ClientHello may also be forged, so the session stays until
// the handshake has proved that the client knows the key.
type peer struct {
	session, handshake *listenerSession
}

// Accept returns the next client, a *Conn. It has not done its handshake, but
// it has returned a valid cookie.
func (l *packetListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.accepted:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Addr returns the socket's address.
func (l *packetListener) Addr() net.Addr { return l.socket.LocalAddr() }

// Close stops the listener. Sessions that Accept has returned go on.
func (l *packetListener) Close() error {
	l.mu.Lock()
	if l.shut {
		l.mu.Unlock()
		return net.ErrClosed
	}
	l.shut = true
	close(l.closed)
	l.mu.Unlock()
	for {
		select {
		case c := <-l.accepted:
			c.Close() // nobody will
		default:
			return l.closeIfIdle()
		}
	}
}

// closeIfIdle closes the socket when there is nothing left to serve.
func (l *packetListener) closeIfIdle() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over || !l.shut || len(l.peers) > 0 || len(l.byID) > 0 {
		return nil
	}
	l.over = true
	return l.socket.Close()
}

func (l *packetListener) isOver() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

func (l *packetListener) readLoop() {
	b := make([]byte, maxDatagram)
	for {
		n, from, local, err := l.socket.read(b)
		if errors.Is(err, net.ErrClosed) || err != nil && l.isOver() {
			return // not every net.PacketConn has net.ErrClosed for us
		}
		if err != nil {
			time.Sleep(readErrorPause)
			continue
		}
		l.route(b[:n], from, local)
	}
}

// route gives a datagram to whom it is for.
func (l *packetListener) route(b []byte, from netip.AddrPort, local []byte) {
	if hello, ok := parseInitialHello(b); ok {
		l.takeHello(&hello, b, from, local)
		return
	}
	session, handshake := l.find(b, from)
	// While a new handshake runs beside a session we can't tell whose a record
	// is; both try it, and authentication decides. The handshake comes first
	// because it copies b, and the session decrypts in place.
	if handshake != nil {
		handshake.d.deliver(b, from)
	}
	if session != nil {
		session.d.deliver(b, from)
	}
}

// find returns whom a datagram may be for: whose connection ID its first
// record carries, or else whose source it has.
func (l *packetListener) find(b []byte, from netip.AddrPort) (session, handshake *listenerSession) {
	h, _, _, ok := wire.NextRecord(b, len(connectionID{}))
	if !ok {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.Type == wire.ConnectionID {
		return l.byID[connectionID(h.ConnectionID)], nil
	}
	if p := l.peers[from]; p != nil {
		return p.session, p.handshake
	}
	return nil, nil
}

// An initialHello is what matters of the first fragment of a ClientHello.
type initialHello struct {
	wire.ClientHello // up to the cookie
	recordSeq        uint64
	messageSeq       uint16
}

// parseInitialHello reads a datagram that begins with an unprotected
// ClientHello, or with the first fragment of one that reaches past the cookie.
func parseInitialHello(b []byte) (hello initialHello, ok bool) {
	r, content, _, ok := wire.NextRecord(b, 0)
	if !ok || r.Type != wire.Handshake || r.Seq > lastRecord { // nor of a later epoch
		return hello, false
	}
	f, body, _, ok := wire.NextFragment(content)
	if !ok || f.Type != wire.TypeClientHello || f.Offset != 0 ||
		f.Length > maxHello || hello.ParsePrefix(body) != nil {
		return hello, false
	}
	hello.recordSeq, hello.messageSeq = r.Seq, f.MessageSeq
	return hello, true
}

// takeHello answers a ClientHello without a valid cookie with a cookie, and
// begins a handshake for one with it.
func (l *packetListener) takeHello(hello *initialHello, b []byte, from netip.AddrPort, local []byte) {
	if !l.cookies.valid(hello.Cookie, from, hello.Random) {
		l.sendCookie(hello, from, local)
		return
	}
	random := [wire.RandomLen]byte(hello.Random)
	l.mu.Lock()
	p := l.peers[from]
	if p != nil && p.handshake != nil && p.handshake.random == random {
		s := p.handshake
		l.mu.Unlock()
		s.d.deliver(b, from) // repeated
		return
	}
	if l.shut || len(l.accepted) == cap(l.accepted) ||
		p != nil && p.session != nil && p.session.random == random { // a late repetition
		l.mu.Unlock()
		return
	}
	if p == nil {
		p = new(peer)
		l.peers[from] = p
	}
	superseded := p.handshake
	s := l.newSession(hello, from, local)
	p.handshake = s
	l.accepted <- s.conn // there is room: only this goroutine adds
	l.mu.Unlock()

	if superseded != nil {
		superseded.d.end(errReplaced)
	}
	s.d.deliver(b, from)
}

// sendCookie answers a ClientHello. The answer is shorter than what it
// answers, so that we amplify nothing.
func (l *packetListener) sendCookie(hello *initialHello, to netip.AddrPort, local []byte) {
	var body, answer [128]byte
	verify := wire.HelloVerifyRequest{
		// RFC 6347 section 4.2.1: DTLS 1.0 here, whatever is negotiated later.
		Version: wire.VersionDTLS10,
		Cookie:  l.cookies.append(nil, to, hello.Random),
	}
	message := verify.Append(body[:0])
	b := wire.AppendDTLSRecordHeader(answer[:0], wire.RecordHeader{
		// The client's own number, since we do not count (section 4.2.1).
		Type: wire.Handshake, Version: wire.VersionDTLS10, Seq: hello.recordSeq})
	b = wire.AppendFragmentHeader(b, wire.FragmentHeader{
		Type: wire.TypeHelloVerifyRequest, Length: len(message), MessageSeq: hello.messageSeq, Octets: len(message)})
	b = append(b, message...)
	wire.PutDTLSLength(b, 0)
	l.socket.write(b, local, to) // if it is lost, the client asks again
}

// newSession makes the connection for a client with a valid cookie. l.mu is
// held.
func (l *packetListener) newSession(hello *initialHello, from netip.AddrPort, local []byte) *listenerSession {
	d := newDatagram(l.config, false, nil)
	s := &listenerSession{l: l, d: d, conn: newConn(d, l.config, false), random: [wire.RandomLen]byte(hello.Random), local: local}
	s.addr.Store(&from)
	d.out.send = s.send
	d.local = l.socket.received()
	d.setRemote(net.UDPAddrFromAddrPort(from))
	// We go on with the numbers that the client has reached.
	d.in.assembler.next = hello.messageSeq
	d.out.messageSeq = hello.messageSeq
	d.out.seq[0] = hello.recordSeq
	d.established, d.moved, d.release = s.promote, s.move, s.remove
	if !d.in.noID {
		rand.Read(s.id[:])
		d.in.connectionID = s.id[:]
		l.byID[s.id] = s
	}
	return s
}

// A listenerSession is what ties a session or handshake to its listener.
type listenerSession struct {
	l    *packetListener
	d    *datagram
	conn *Conn
	// random is that of the ClientHello that it began with.
	random [wire.RandomLen]byte
	addr   atomic.Pointer[netip.AddrPort] // the peer's; changed by move only, with l.mu held
	// local is the address of ours that the client has called, which a client
	// that moves goes on calling.
	local []byte
	id    connectionID
}

func (s *listenerSession) send(b []byte) error {
	return s.l.socket.write(b, s.local, *s.addr.Load())
}

// promote makes a handshake the session of its peer.
func (s *listenerSession) promote() {
	s.l.mu.Lock()
	p := s.l.peers[*s.addr.Load()]
	if p == nil || p.handshake != s {
		s.l.mu.Unlock()
		return
	}
	before := p.session
	p.session, p.handshake = s, nil
	s.l.mu.Unlock()
	if before != nil && !before.outlives(s) {
		before.d.end(errReplaced)
	}
}

// outlives reports whether a session goes on when its peer's address begins
// another one. A device that has lost its state begins another one in its own
// name. Another client in the same place has got the address from a NAT that
// forgot whose it was, which is what connection IDs are for.
func (s *listenerSession) outlives(next *listenerSession) bool {
	return s.conn.state.ConnectionID && !bytes.Equal(s.conn.state.Identity, next.conn.state.Identity)
}

// move notes that the session's peer has another address now. If the session
// of another peer is known by it, that stays: connection IDs tell them apart.
func (s *listenerSession) move(to netip.AddrPort) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	from := *s.addr.Load()
	if from == to {
		return
	}
	s.l.forget(from, s)
	s.addr.Store(&to)
	s.d.setRemote(net.UDPAddrFromAddrPort(to))
	p := s.l.peers[to]
	if p == nil {
		p = new(peer)
		s.l.peers[to] = p
	}
	if p.session == nil {
		p.session = s
	}
}

// remove makes the listener forget the session or handshake.
func (s *listenerSession) remove() error {
	s.l.mu.Lock()
	s.l.forget(*s.addr.Load(), s)
	if s.l.byID[s.id] == s {
		delete(s.l.byID, s.id)
	}
	s.l.mu.Unlock()
	return s.l.closeIfIdle()
}

// forget removes a session or handshake from an address. l.mu is held.
func (l *packetListener) forget(addr netip.AddrPort, s *listenerSession) {
	p := l.peers[addr]
	if p == nil {
		return
	}
	if p.session == s {
		p.session = nil
	}
	if p.handshake == s {
		p.handshake = nil
	}
	if p.session == nil && p.handshake == nil {
		delete(l.peers, addr)
	}
}
