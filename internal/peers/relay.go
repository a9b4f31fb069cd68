package peers

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"testing"
)

// A Relay stands between one client and a server, passes on what they say, and records it. It
// is the independent witness of what was negotiated.
type Relay struct {
	Addr string // where the client connects to

	network string
	target  string
	drop    func(fromClient bool, datagram []byte) bool

	mu      sync.Mutex // guards the following
	chunks  []Chunk
	servers map[string]net.Conn // UDP: the socket towards the server, by the client's address
	closers []func() error
}

// A Chunk is what one side said at once: a datagram, or what one read of a stream gave.
type Chunk struct {
	FromClient bool
	Data       []byte
}

// NewRelay starts a relay to a server: "tcp" or "udp". It ends with the test.
func NewRelay(t testing.TB, network, target string) *Relay {
	t.Helper()
	return NewLossyRelay(t, network, target, nil)
}

// NewLossyRelay starts a relay that loses the datagrams for which drop returns true. It calls drop
// for one datagram at a time.
func NewLossyRelay(t testing.TB, network, target string, drop func(fromClient bool, datagram []byte) bool) *Relay {
	t.Helper()
	r := &Relay{network: network, target: target, drop: drop, servers: make(map[string]net.Conn)}
	var err error
	if network == "tcp" {
		err = r.listenTCP()
	} else {
		err = r.listenUDP()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// Chunks returns what went through so far, in the order of its arrival. The relay records
// before it passes on, so what a peer has received is there.
func (r *Relay) Chunks() []Chunk {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Chunk(nil), r.chunks...)
}

// Rebind makes the server see all clients at new addresses from now on, as when a NAT has forgotten
// them. What the server sends to the old ones still arrives.
func (r *Relay) Rebind() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.servers)
}

// record keeps one chunk; false when it is to be lost.
func (r *Relay) record(fromClient bool, data []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drop != nil && r.drop(fromClient, data) {
		return false
	}
	r.chunks = append(r.chunks, Chunk{fromClient, append([]byte(nil), data...)})
	return true
}

func (r *Relay) onClose(f func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closers = append(r.closers, f)
}

func (r *Relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.closers {
		f()
	}
}

func (r *Relay) listenTCP() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.Addr = ln.Addr().String()
	r.onClose(ln.Close)
	go func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", r.target)
			if err != nil {
				client.Close()
				continue
			}
			r.onClose(client.Close)
			r.onClose(server.Close)
			go r.pipe(server.(*net.TCPConn), client.(*net.TCPConn), true)
			go r.pipe(client.(*net.TCPConn), server.(*net.TCPConn), false)
		}
	}()
	return nil
}

func (r *Relay) pipe(to, from *net.TCPConn, fromClient bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			r.record(fromClient, buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			to.CloseWrite()
			return
		}
	}
}

func (r *Relay) listenUDP() error {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.Addr = pc.LocalAddr().String()
	r.onClose(pc.Close)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			server, err := r.serverFor(pc, from)
			if err != nil {
				continue
			}
			if r.record(true, buf[:n]) {
				server.Write(buf[:n])
			}
		}
	}()
	return nil
}

// serverFor returns the socket for what a client sends.
func (r *Relay) serverFor(pc net.PacketConn, client net.Addr) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if server := r.servers[client.String()]; server != nil {
		return server, nil
	}
	server, err := net.Dial("udp", r.target)
	if err != nil {
		return nil, err
	}
	r.servers[client.String()] = server
	r.closers = append(r.closers, server.Close)
	go r.answer(pc, client, server)
	return server, nil
}

func (r *Relay) answer(pc net.PacketConn, client net.Addr, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			// A refused port may open yet; a closed socket stays so.
			if errors.Is(err, syscall.ECONNREFUSED) {
				continue
			}
			return
		}
		if r.record(false, buf[:n]) {
			pc.WriteTo(buf[:n], client)
		}
	}
}
