package mafd

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"golang.org/x/net/netutil"

	"github.com/onem2m-maf/maf/internal/admission"
)

// A keyAPIDoor is where connections to the key API come in. Anybody can open some
// and be silent, so those that TLS has not authenticated yet have half of the
// places at most, and make room for newcomers as handshakes do. An Entity B that
// was authenticated has a part of the places, so that one that went wrong keeps
// no other out.
type keyAPIDoor struct {
	net.Listener
	gate      *admission.Gate // of those who have not been authenticated
	perSource int
	log       *slog.Logger

	mu      sync.Mutex
	sources map[netip.Prefix]int // connections; guarded by mu
}

func newKeyAPIDoor(l net.Listener, places int, log *slog.Logger) *keyAPIDoor {
	return &keyAPIDoor{
		Listener:  netutil.LimitListener(l, places),
		gate:      admission.NewGate(admission.Config{Total: max(1, places/2)}),
		perSource: max(1, places/4),
		log:       log,
		sources:   make(map[netip.Prefix]int),
	}
}

// Accept waits for a connection that may come in.
func (d *keyAPIDoor) Accept() (net.Conn, error) {
	for {
		conn, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := admission.Source(conn.RemoteAddr())
		if !d.enter(source) {
			d.log.Warn("key API: too many connections from one source", "remote", conn.RemoteAddr().String())
			conn.Close()
			continue
		}
		place, err := d.gate.Enter(source, func() { conn.Close() })
		if err != nil {
			d.leave(source)
			conn.Close()
			continue
		}
		return &visitor{Conn: conn, door: d, source: source, place: place}, nil
	}
}

func (d *keyAPIDoor) enter(source netip.Prefix) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sources[source] >= d.perSource {
		return false
	}
	d.sources[source]++
	return true
}

func (d *keyAPIDoor) leave(source netip.Prefix) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sources[source]--; d.sources[source] == 0 {
		delete(d.sources, source)
	}
}

// A visitor is one connection to the key API.
type visitor struct {
	net.Conn
	door   *keyAPIDoor
	source netip.Prefix
	place  *admission.Handshake
	once   sync.Once
}

func (v *visitor) Close() error {
	v.once.Do(func() {
		v.place.Leave(false)
		v.door.leave(v.source)
	})
	return v.Conn.Close()
}

// welcome is the server's ConnState. A first request shows that TLS is through,
// and so that a certificate was good.
func welcome(conn net.Conn, state http.ConnState) {
	if state != http.StateActive {
		return
	}
	if v, ok := conn.(*tls.Conn).NetConn().(*visitor); ok {
		v.place.Commit()
	}
}
