package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/tlspsk"
)

const (
	// maxDatagram is more than one UDP datagram holds.
	maxDatagram = 64 << 10
	// queued is how many datagrams of one local peer wait, first of all for its
	// association. More are dropped, as datagrams are.
	queued = 16
	// afterFailure is how long a local peer's datagrams are dropped when it got no
	// association: a program that repeats itself must not hammer the MAF.
	afterFailure = time.Second
)

// datagrams carries UDP until ctx ends. Each local address has an association of
// its own, so that answers find their way back.
func (p *proxy) datagrams(ctx context.Context, listen string, listening func(net.Addr) error) error {
	pc, err := net.ListenPacket("udp", listen)
	if err != nil {
		return err
	}
	l := &datagramProxy{proxy: p, pc: pc.(*net.UDPConn), peers: make(map[netip.AddrPort]chan []byte)}
	defer l.pc.Close()
	defer context.AfterFunc(ctx, func() { l.pc.Close() })()
	if err := listening(l.pc.LocalAddr()); err != nil {
		return err
	}
	defer l.all.Wait()
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := l.pc.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		l.deliver(ctx, from, slices.Clone(buf[:n]))
	}
}

type datagramProxy struct {
	*proxy
	pc  *net.UDPConn
	all sync.WaitGroup

	mu    sync.Mutex
	peers map[netip.AddrPort]chan []byte // guarded by mu
	full  bool                           // and the log knows; guarded by mu
}

// deliver queues a datagram for the local peer that sent it.
func (l *datagramProxy) deliver(ctx context.Context, from netip.AddrPort, datagram []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	queue := l.peers[from]
	if queue == nil {
		if len(l.peers) >= maxProxied {
			if !l.full {
				l.log.Warn("too many local peers; newcomers' datagrams are dropped", "peers", len(l.peers))
			}
			l.full = true
			return
		}
		l.full = false
		queue = make(chan []byte, queued)
		l.peers[from] = queue
		l.all.Go(func() {
			l.serve(ctx, from, queue)
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.peers, from)
		})
	}
	select {
	case queue <- datagram:
	default:
	}
}

// serve carries the datagrams of one local peer, until Entity B closes or nothing
// has come from either side for some time.
func (l *datagramProxy) serve(ctx context.Context, peer netip.AddrPort, queue <-chan []byte) {
	conn, err := l.dial(ctx, "udp", net.UDPAddrFromAddrPort(peer))
	if err != nil {
		select {
		case <-ctx.Done():
		case <-time.After(afterFailure):
		}
		return
	}
	defer conn.Close()
	var answered atomic.Int64 // datagrams
	closed := make(chan error, 1)
	l.all.Go(func() { closed <- l.answers(conn, peer, &answered) })
	idle := time.NewTimer(l.idle)
	defer idle.Stop()
	for seen := int64(0); ; {
		select {
		case datagram := <-queue:
			if err := l.send(conn, peer, datagram); err != nil {
				return // answers knows why
			}
		case <-idle.C:
			n := answered.Load()
			if n == seen {
				l.log.Debug("idle association closed", "peer", peer.String())
				return
			}
			seen = n
		case err := <-closed:
			if !errors.Is(err, io.EOF) {
				l.log.Info("association cut", "peer", peer.String(), "error", err.Error())
			}
			return
		case <-ctx.Done():
			return
		}
		idle.Reset(l.idle)
	}
}

// send sends one datagram. What is too large for a record is the program's to
// find out, as it would be with a network's MTU.
func (l *datagramProxy) send(conn *tlspsk.Conn, peer netip.AddrPort, datagram []byte) error {
	_, err := conn.Write(datagram)
	if errors.Is(err, tlspsk.ErrTooLarge) {
		l.log.Warn("a datagram is too large and was dropped", "peer", peer.String(), "octets", len(datagram))
		return nil
	}
	return err
}

// answers carries what comes back, until the association ends.
func (l *datagramProxy) answers(conn *tlspsk.Conn, peer netip.AddrPort, count *atomic.Int64) error {
	buf := make([]byte, maxDatagram)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		count.Add(1)
		l.pc.WriteToUDPAddrPort(buf[:n], peer) // a peer that is gone will be idle
	}
}
