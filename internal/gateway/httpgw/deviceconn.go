package httpgw

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/saef"
)

// A deviceConn is one association. While it is idle it holds no buffer.
type deviceConn struct {
	server *Server
	conn   *saef.Conn
	peer   *policy.Peer
	name   string // the peer's identity, from the association
	reader http1.Reader
	state  atomic.Int32 // idle, busy or closed

	ctx    context.Context // ends with the connection
	cancel context.CancelCauseFunc
}

const (
	idle = iota
	busy
	closed
)

func newDeviceConn(s *Server, c *saef.Conn) *deviceConn {
	d := &deviceConn{server: s, conn: c, peer: s.config.Rules.Peer(c.Association()), name: c.Association().Peer()}
	d.reader.Reset(c)
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	return d
}

// serve serves requests, one after the other, until the connection ends.
func (d *deviceConn) serve() {
	defer d.reader.Reset(nil)
	defer d.abort(context.Canceled)
	for {
		d.conn.SetReadDeadline(time.Now().Add(d.server.config.Limits.IdleTimeout))
		if d.reader.Wait() != nil || !d.state.CompareAndSwap(idle, busy) {
			return
		}
		if !d.serveOne() || !d.state.CompareAndSwap(busy, idle) || d.server.state.Load() == draining {
			return
		}
	}
}

// closeIfIdle closes the connection unless a request is under way.
func (d *deviceConn) closeIfIdle() {
	if d.state.CompareAndSwap(idle, closed) {
		d.conn.Close()
	}
}

// abort ends the connection, and whatever is done for it.
func (d *deviceConn) abort(cause error) {
	d.cancel(cause)
	d.conn.Close()
}

// An exchange is what one request needs, lent to a connection while it has one.
type exchange struct {
	head    http1.Message
	body    []byte // as it came, of which the content that was parsed is made
	content []byte // as the CSE gets it
	answer  []byte // content of the CSE's answer
	out     []byte // head of the answer
	request Request
	entry   access.Entry
	unread  bool // the device may still be sending it
}

// keptBuffer is the size up to which an exchange keeps its buffers: as much as
// contents usually have at most. What is not used again the garbage collector
// takes from the pool.
const keptBuffer = 2 << 20

var exchanges = sync.Pool{New: func() any { return new(exchange) }}

func (x *exchange) release() {
	clear(x.head.Fields)
	*x = exchange{head: http1.Message{Fields: x.head.Fields[:0]}, body: kept(x.body), content: kept(x.content), answer: kept(x.answer), out: kept(x.out)}
	exchanges.Put(x)
}

func kept(b []byte) []byte {
	if cap(b) > keptBuffer {
		return nil
	}
	return b[:0]
}

// serveOne serves the request whose first octet is there, and reports whether
// another may follow.
func (d *deviceConn) serveOne() bool {
	x := exchanges.Get().(*exchange)
	defer x.release()
	begin := time.Now()
	limits := &d.server.config.Limits
	d.conn.SetReadDeadline(begin.Add(limits.ReadTimeout))
	x.entry = access.Entry{Binding: "http", Peer: d.name, KcID: d.conn.Association().KcID}
	answer, again := d.answer(x)
	if answer == nil { // nobody is there any more
		if x.entry.Operation != "" {
			x.entry.Reason, x.entry.Duration = context.Cause(d.ctx).Error(), time.Since(begin)
			d.server.config.Recorder.Record(x.entry)
		}
		return false
	}
	again = again && d.server.state.Load() == serving
	x.out = appendAnswer(x.out[:0], answer, again)
	d.conn.SetWriteDeadline(time.Now().Add(limits.WriteTimeout))
	err := d.write(x.out, answer.content)
	x.entry.Status = answer.status
	x.entry.Out = int64(len(answer.content))
	x.entry.Duration = time.Since(begin)
	d.server.config.Recorder.Record(x.entry)
	if x.unread && err == nil {
		d.linger()
	}
	return again && err == nil
}

// linger takes, before the connection is closed, what the device is still
// sending: else its system would drop the answer that says why.
func (d *deviceConn) linger() {
	if d.conn.CloseWrite() != nil {
		return
	}
	d.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	io.CopyN(io.Discard, d.conn, 4<<20)
}

// write sends an answer, in one record when it fits.
func (d *deviceConn) write(head, content []byte) error {
	const record = 16 << 10
	n := min(len(content), max(0, record-len(head)))
	if _, err := d.conn.Write(append(head, content[:n]...)); err != nil || n == len(content) {
		return err
	}
	_, err := d.conn.Write(content[n:])
	return err
}

// read reads a request with its content. Of a nil error both are complete.
func (d *deviceConn) read(x *exchange) error {
	if err := d.reader.ReadRequest(&x.head); err != nil {
		return err
	}
	if x.head.ExpectContinue && x.head.HasBody() && d.reader.Buffered() == 0 {
		// The deadline that stands may be that of an earlier answer.
		d.conn.SetWriteDeadline(time.Now().Add(d.server.config.Limits.WriteTimeout))
		if _, err := d.conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return err
		}
	}
	var err error
	x.body, err = d.reader.ReadBody(&x.head, x.body[:0], d.server.config.Limits.MaxContent)
	x.entry.In = int64(len(x.body))
	return err
}

// answer reads a request and finds the answer to it: the CSE's, or why the CSE
// is not asked. It is nil when the peer is gone.
func (d *deviceConn) answer(x *exchange) (a *answer, again bool) {
	if err := d.read(x); err != nil {
		var e *http1.Error
		if !errors.As(err, &e) {
			return nil, false
		}
		// What follows on this connection may be anything.
		x.unread = true
		return x.refused(&refusal{badRequest, e.Status, e.Reason, true}), false
	}
	a, refused := d.handle(x)
	if refused != nil {
		a = x.refused(refused)
	}
	if d.ctx.Err() != nil {
		return nil, false
	}
	return a, !x.head.Close
}

// watchAfter is for how long a CSE may take before we look whether the device is
// still there. Most requests are done earlier and need no second goroutine.
const watchAfter = 250 * time.Millisecond

// ask asks the CSE. When the device closes the connection, or it is closed since
// its key was revoked, the request to the CSE ends as well; but not a registration
// whose outcome the rules have to learn: else a device could leave AEs at the CSE
// that nobody may speak as, as many as it likes.
func (d *deviceConn) ask(r *Request, learns bool) (*Response, error) {
	ctx := d.ctx
	if learns {
		ctx = d.server.ctx
	}
	w := watch{d: d, done: make(chan struct{})}
	timer := time.AfterFunc(watchAfter, w.run)
	response, err := d.server.config.Backend.Do(ctx, r)
	if !timer.Stop() {
		w.stop()
	}
	return response, err
}

var errGone = errors.New("the device has gone")

// A watch reads from a device while the CSE is being asked, and cancels that
// when the device is gone.
type watch struct {
	d    *deviceConn
	done chan struct{}

	mu      sync.Mutex
	stopped bool // guarded by mu
}

func (w *watch) run() {
	defer close(w.done)
	if !w.begin() {
		return
	}
	for {
		room, err := w.d.reader.ReadAhead()
		var timeout interface{ Timeout() bool }
		if errors.As(err, &timeout) && timeout.Timeout() {
			return // stop has been called
		}
		if err != nil {
			w.d.cancel(errGone)
		}
		if err != nil || !room {
			return
		}
	}
}

func (w *watch) begin() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.d.conn.SetReadDeadline(time.Time{})
	}
	return !w.stopped
}

// stop returns when nobody reads any more.
func (w *watch) stop() {
	w.mu.Lock()
	w.stopped = true
	w.d.conn.SetReadDeadline(time.Unix(1, 0))
	w.mu.Unlock()
	<-w.done
}
