package httpgw

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
)

const (
	maxNotifiers      = 256 // connections of the CSE's at a time
	maxOfOne          = 16  // of these for one device, which may let each wait
	maxNotification   = 1 << 20
	notifyTimeout     = 30 * time.Second // for a whole delivery
	notifyDialTimeout = 5 * time.Second
)

// notifyServer is what Contacts serve.
type notifyServer struct {
	places chan struct{}
	all    sync.WaitGroup
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu  sync.Mutex
	now map[string]int // deliveries under way by owner; guarded by mu
}

func (s *notifyServer) init() {
	s.places = make(chan struct{}, maxNotifiers)
	s.now = make(map[string]int)
	s.ctx, s.cancel = context.WithCancel(context.Background())
}

// enter reports whether one more delivery to an owner may begin, after which
// leave must be called.
func (s *notifyServer) enter(owner string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now[owner] >= maxOfOne {
		return false
	}
	s.now[owner]++
	return true
}

func (s *notifyServer) leave(owner string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now[owner]--; s.now[owner] == 0 {
		delete(s.now, owner)
	}
}

// Close breaks off the deliveries under way.
func (c *Contacts) Close() { c.server.cancel() }

// Serve takes the CSE's notifications and delivers them, until l is closed. It
// returns when all are done. One request a connection: the one CSE that sends
// most of its notifications malformed fills them up to a fixed length.
func (c *Contacts) Serve(l net.Listener) error {
	defer c.server.all.Wait()
	for {
		c.server.places <- struct{}{}
		conn, err := l.Accept()
		if err != nil {
			<-c.server.places
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			c.config.Log.Error("can't accept notifications", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if !c.mayNotify(conn.RemoteAddr()) {
			c.config.Log.Debug("connection closed at once: notifications are not taken from there", "remote", conn.RemoteAddr())
			conn.Close()
			<-c.server.places
			continue
		}
		c.server.all.Go(func() {
			defer func() { <-c.server.places }()
			c.take(conn)
		})
	}
}

// mayNotify reports whether notifications are taken from an address.
func (c *Contacts) mayNotify(remote net.Addr) bool {
	at, err := netip.ParseAddrPort(remote.String())
	if err != nil {
		return false
	}
	if len(c.config.From) == 0 {
		return at.Addr().Unmap().IsLoopback()
	}
	return inAny(c.config.From, at.Addr())
}

// take takes one request of the CSE's and answers it.
func (c *Contacts) take(conn net.Conn) {
	defer conn.Close()
	begin := time.Now()
	conn.SetDeadline(begin.Add(notifyTimeout))
	defer context.AfterFunc(c.server.ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	n := notification{entry: access.Entry{Binding: "http", ToDevice: true}}
	a, err := c.deliver(conn, &n)
	if a == nil && err != nil {
		return // nobody is there
	}
	if err != nil {
		n.entry.Refused, n.entry.Reason = true, err.Error()
	}
	conn.Write(append(appendAnswer(nil, a, false), a.content...))
	n.entry.Status, n.entry.Out, n.entry.Duration = a.status, int64(len(a.content)), time.Since(begin)
	c.config.Recorder.Record(n.entry)
	// Closing while there is more to read would make the kernel drop the answer.
	if half, ok := conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
		io.CopyN(io.Discard, conn, 128<<10)
	}
}

// A notification is a request of the CSE's to a device.
type notification struct {
	head     http1.Message
	content  []byte
	id       string
	original string // the device's URL
	entry    access.Entry
}

// deliver reads a request and has the device answer it. An error is why it did
// not; there is an answer for the CSE all the same unless that has gone.
func (c *Contacts) deliver(conn net.Conn, n *notification) (*answer, error) {
	reader := http1.NewReader(conn)
	reader.Lenient = true
	defer reader.Reset(nil)
	err := reader.ReadRequest(&n.head)
	if err == nil {
		n.content, err = reader.ReadBody(&n.head, nil, maxNotification)
	}
	var e *http1.Error
	if errors.As(err, &e) {
		return n.answer(badRequest), err
	} else if err != nil {
		return nil, err
	}
	n.entry.In = int64(len(n.content))
	if err := c.whose(n); err != nil {
		return n.answer(onem2m.StatusNotFound), err
	}
	if !c.server.enter(n.entry.Peer) {
		return n.answer(onem2m.StatusTargetNotReachable), errors.New("too many notifications for this device are under way")
	}
	defer c.server.leave(n.entry.Peer)
	a, err := c.call(n)
	if err != nil {
		return n.answer(onem2m.StatusTargetNotReachable), err
	}
	return a, nil
}

func (n *notification) answer(status onem2m.ResponseStatusCode) *answer {
	return &answer{status: status, http: status.HTTPStatus(), id: n.id, params: &Parameters{}}
}

// whose finds out whose notification it is.
func (c *Contacts) whose(n *notification) error {
	for i := range n.head.Fields {
		switch f := &n.head.Fields[i]; {
		case f.Is("X-M2M-RI") && isPlain(f.Value, longestID, false):
			n.id = f.Value
		case f.Is("X-M2M-Origin") && isPlain(f.Value, longestFrom, false):
			n.entry.From = f.Value
		}
	}
	target := n.head.Target
	if _, path, ok := strings.Cut(target, "://"); ok { // the absolute form
		_, path, _ = strings.Cut(path, "/")
		target = "/" + path
	}
	token, ok := strings.CutPrefix(target, tokenPath)
	if !ok {
		return errors.New("a notification to no address of a device")
	}
	owner, original, rest, ok := c.open(token)
	if !ok {
		return errors.New("a notification to an address that is not the gateway's own making")
	}
	n.entry.Peer, n.entry.To, n.original = owner, original+rest, original+rest
	n.entry.Operation = n.head.Method
	if !slices.Contains([]string{"POST", "GET", "PUT", "DELETE"}, n.head.Method) {
		return errors.New("a method that oneM2M does not use")
	}
	return nil
}

// call delivers a notification and reads the device's answer.
func (c *Contacts) call(n *notification) (*answer, error) {
	if err := c.check(n.original); err != nil {
		return nil, err
	}
	u, err := url.Parse(n.original)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.server.ctx, notifyTimeout)
	defer cancel()
	conn, err := c.dial(ctx, u)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if n.id == "" {
		n.id = rand.Text() // the standard wants one, and one CSE sends none
	}
	if _, err := conn.Write(append(n.request(u), n.content...)); err != nil {
		return nil, err
	}
	reader := http1.NewReader(conn)
	reader.Lenient = true
	defer reader.Reset(nil)
	var m http1.Message
	if err := reader.ReadResponse(&m); err != nil {
		return nil, err
	}
	content, err := reader.ReadBody(&m, nil, maxNotification)
	if err != nil {
		return nil, err
	}
	return n.answered(&m, content)
}

// dial connects, within the networks that are allowed: the check is on the
// address that is really used, since a name can change between two looks.
func (c *Contacts) dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	d := net.Dialer{Timeout: notifyDialTimeout, Control: func(_, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !c.allows(at.Addr()) || c.isForbidden(ctx, at) {
			return fmt.Errorf("%s is not allowed for notifications", address)
		}
		return nil
	}}
	return d.DialContext(ctx, "tcp", withPort(u))
}

// isForbidden reports whether an address is one of those to which nothing goes.
func (c *Contacts) isForbidden(ctx context.Context, at netip.AddrPort) bool {
	ip := at.Addr().Unmap()
	for _, never := range c.config.Never {
		host, port, _ := net.SplitHostPort(never)
		if port != strconv.Itoa(int(at.Port())) {
			continue
		}
		all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil || slices.ContainsFunc(all, func(n netip.Addr) bool {
			// What is called at one of this machine's addresses may listen at all.
			return n.Unmap() == ip || isOwn(n.Unmap()) && isOwn(ip)
		}) {
			return true
		}
	}
	return false
}

// isOwn reports whether an address is one of this machine's.
func isOwn(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	all, err := net.InterfaceAddrs()
	return err != nil || slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip.AsSlice())
	})
}

// withPort returns the host and port of an HTTP URL.
func withPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// request is the head of a notification, made anew.
func (n *notification) request(u *url.URL) []byte {
	b := append([]byte(n.head.Method), ' ')
	b = append(append(b, u.RequestURI()...), " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", u.Host)
	b = appendField(b, "X-M2M-RI", n.id)
	if n.entry.From != "" {
		b = appendField(b, "X-M2M-Origin", n.entry.From)
	}
	var params Parameters
	for i := range n.head.Fields {
		f := &n.head.Fields[i]
		if p, ok := parameterOf(f); ok && parameterHeaders[p].request && isPlain(f.Value, parameterHeaders[p].longest, parameterHeaders[p].blanks) {
			params[p] = f.Value
		} else if f.Is("Content-Type") && isPlain(f.Value, 128, true) {
			b = appendField(b, "Content-Type", f.Value)
		}
	}
	b = appendParameters(b, &params)
	b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(n.content)), 10), "\r\n"...)
	return append(b, "Connection: close\r\n\r\n"...)
}

// answered makes the device's answer the CSE's, from checked parts only, as the
// other way round: a device could take the CSE down with its answer as well as with
// a request. Small devices just say 200, without a response status code.
func (n *notification) answered(m *http1.Message, content []byte) (*answer, error) {
	for i := range m.Fields {
		if f := &m.Fields[i]; f.Is("X-M2M-RI") {
			f.Value = n.id // whatever it is: the connection is this request's alone
		}
	}
	r, err := readResponse(m, content, n.id)
	if err != nil && m.Status/100 == 2 {
		r, err = &Response{Status: onem2m.StatusOK}, nil
	}
	if err == nil && m.Status/100 == 3 {
		err = errors.New("the device sends the CSE elsewhere")
	}
	if err != nil {
		return nil, err
	}
	a := &answer{status: r.Status, http: m.Status, id: n.id, params: &r.Params}
	if len(r.Content) > 0 && isJSONType(r.ContentType) {
		v, err := primitive.Parse(r.Content)
		if err != nil {
			return nil, fmt.Errorf("the device's answer: %w", err)
		}
		a.contentType, a.content = r.ContentType, v.Append(nil)
	}
	return a, nil
}
