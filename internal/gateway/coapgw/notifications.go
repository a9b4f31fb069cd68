package coapgw

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// NotificationsConfig says how the CSE reaches devices.
type NotificationsConfig struct {
	// Address is the gateway's, as the CSE reaches it: "127.0.0.1:5684".
	Address string
	// From are the addresses that may send there: the CSE's. None: loopback.
	From []netip.Prefix
	// CSE is the CSE's own ID, the originator of a notification that names none.
	CSE onem2m.CSEID
	// Dialect is the CSE's.
	Dialect Dialect
	// MaxContent bounds the content of a request (64 kB).
	MaxContent int
	// Key makes the tokens in addresses. Gateways that share it deliver each other's.
	// None: a random one, with which all addresses are lost at a restart.
	Key saef.Secret
}

// maxCallers is how many sockets of the CSE's are remembered: some CSEs use a new one for
// each notification.
const maxCallers = 256

const (
	// callerRequests is how many requests of one caller are worked on at once.
	callerRequests = 256
	// longestQueue is how many requests of the CSE's for one device there may be. The
	// CSE may have one socket for all: a device that answers none of its notifications
	// must not keep those of others waiting.
	longestQueue = 4
)

// Notifications take what the CSE asks of devices, and hand it to them over their own
// associations.
type Notifications struct {
	config NotificationsConfig
	base   string // what all of the gateway's addresses begin with
	key    saef.Secret

	mu      sync.Mutex
	servers []*Server                  // where devices may be; guarded by mu
	callers map[netip.AddrPort]*caller // guarded by mu
}

// A caller is one socket of the CSE's.
type caller struct {
	endpoint *coap.Endpoint
	blocks   coap.Blocks
	used     time.Time // guarded by Notifications.mu
}

func (c *caller) close() {
	c.endpoint.Close()
	c.blocks.Close()
}

// NewNotifications checks the configuration.
func NewNotifications(c NotificationsConfig) (*Notifications, error) {
	if host, port, err := net.SplitHostPort(c.Address); err != nil || host == "" || port == "" || !isPlain(c.Address, false) {
		return nil, fmt.Errorf("notification address %q: not one such as 127.0.0.1:5684", c.Address)
	}
	if !c.CSE.IsAbsolute() {
		return nil, errors.New("notifications: the CSE-ID is not absolute")
	}
	if c.MaxContent == 0 {
		c.MaxContent = 64 << 10
	}
	if len(c.From) == 0 {
		c.From = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	n := &Notifications{config: c, base: "coap://" + c.Address + "/" + addressPath + "/", key: keyOrRandom(c.Key),
		callers: make(map[netip.AddrPort]*caller)}
	return n, nil
}

// serve adds a Server whose devices can be reached.
func (n *Notifications) serve(s *Server) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers = append(n.servers, s)
}

// Serve takes what comes on conn until it is closed, and returns nil then.
func (n *Notifications) Serve(conn *net.UDPConn) error {
	defer n.close()
	b := make([]byte, maxDatagram)
	for {
		size, from, err := conn.ReadFromUDPAddrPort(b)
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			continue // what the kernel tells of an earlier answer
		}
		if c := n.caller(conn, from); c != nil {
			c.endpoint.Receive(b[:size])
		}
	}
}

func (n *Notifications) close() {
	n.mu.Lock()
	callers := n.callers
	n.callers = make(map[netip.AddrPort]*caller)
	n.mu.Unlock()
	for _, c := range callers {
		c.close()
	}
}

// caller returns the caller at an address, or nil when it may not call.
func (n *Notifications) caller(conn *net.UDPConn, from netip.AddrPort) *caller {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c := n.callers[from]; c != nil {
		c.used = time.Now()
		return c
	}
	if !n.mayCall(from.Addr().Unmap()) || !n.makeRoom() {
		return nil
	}
	c := &caller{used: time.Now(), blocks: coap.Blocks{SZX: coap.MaxSZX, Max: n.config.MaxContent}}
	c.endpoint = coap.NewEndpoint(coap.Config{
		Send: func(b []byte) error {
			_, err := conn.WriteToUDPAddrPort(b, from)
			return err
		},
		Handle:      func(ctx context.Context, m *coap.Message) *coap.Message { return n.handle(ctx, c, m) },
		MaxHandling: callerRequests,
	})
	n.callers[from] = c
	return c
}

func (n *Notifications) mayCall(from netip.Addr) bool {
	for _, p := range n.config.From {
		if p.Contains(from) {
			return true
		}
	}
	return false
}

// makeRoom forgets the caller that has rested longest when there are too many. n.mu is held.
func (n *Notifications) makeRoom() bool {
	if len(n.callers) < maxCallers {
		return true
	}
	var oldest netip.AddrPort
	for at, c := range n.callers {
		if o := n.callers[oldest]; c.endpoint.Idle() && (o == nil || c.used.Before(o.used)) {
			oldest = at
		}
	}
	o := n.callers[oldest]
	if o == nil {
		return false
	}
	delete(n.callers, oldest)
	go o.close()
	return true
}

// handle answers a message of the CSE's.
func (n *Notifications) handle(ctx context.Context, c *caller, m *coap.Message) *coap.Message {
	d, refused := checkOptions(m, n.config.Dialect)
	if refused != nil {
		return newRefusal(refused, d, &httpgw.Request{})
	}
	return c.blocks.Serve(ctx, m, func(ctx context.Context, whole *coap.Message) *coap.Message {
		return n.deliver(ctx, whole, d)
	})
}

// deliver hands a request to the device whose token is in its path, and returns the answer.
func (n *Notifications) deliver(ctx context.Context, m *coap.Message, d Dialect) *coap.Message {
	r := &httpgw.Request{}
	r.ID, _ = d.text(m.Options, requestID)
	id, begun := r.ID, time.Now()
	owner, path, ok := n.addressee(m.Options)
	if !ok {
		return newRefusal(&refusal{status: onem2m.StatusNotFound, reason: "no address of the gateway's"}, d, r)
	}
	a := n.find(owner)
	if a == nil {
		return newRefusal(&refusal{status: unreachable, reason: "the device has no association"}, d, r)
	}
	entry := access.Entry{Binding: "coap", Peer: a.name, KcID: a.conn.Association().KcID, ToDevice: true,
		To: "/" + strings.Join(path, "/"), In: int64(len(m.Payload))}
	response, refused := n.ask(ctx, a, m, d, r, path)
	entry.Operation, entry.From = operationName(r.Operation), r.From
	var answer *coap.Message
	if refused != nil {
		entry.Refused, entry.Reason, entry.Status = true, refused.reason, refused.status
		r.ID = id
		answer = newRefusal(refused, d, r)
	} else {
		entry.Status = response.Status
		answer = newAnswer(response, d, r.Operation, id)
	}
	entry.Out, entry.Duration = int64(len(answer.Payload)), time.Since(begun)
	a.server.config.Recorder.Record(entry)
	return answer
}

// addressee tells whose the path of a request is, and what remains of it for the device.
// Some CSEs put a whole path into one option.
func (n *Notifications) addressee(o coap.Options) (owner onem2m.KmID, path []string, ok bool) {
	all := strings.Split(strings.Join(o.Strings(coap.URIPath), "/"), "/")
	if len(all) < 4 || all[0] != addressPath {
		return owner, nil, false
	}
	owner, ok = n.owner(all[1])
	return owner, all[4:], ok
}

// find returns the newest association of a peer.
func (n *Notifications) find(owner onem2m.KmID) *association {
	n.mu.Lock()
	servers := n.servers
	n.mu.Unlock()
	for _, s := range servers {
		if a := s.latest(owner); a != nil {
			return a
		}
	}
	return nil
}

// ask reads the CSE's request into r, sends it to the device, and returns the device's
// answer. What a notification must have and some CSEs leave out is added.
func (n *Notifications) ask(ctx context.Context, a *association, m *coap.Message, d Dialect, r *httpgw.Request, path []string) (*httpgw.Response, *refusal) {
	if refused := readOperation(m, d, r); refused != nil {
		return nil, refused
	}
	if refused := readQuery(m.Options, r); refused != nil {
		return nil, refused
	}
	var err error
	if r.Params, err = d.readParameters(m.Options, true); err != nil {
		return nil, malformed(err.Error())
	}
	if len(m.Payload) > 0 {
		content, err := primitive.Parse(m.Payload)
		if err != nil {
			return nil, malformed(err.Error())
		}
		r.Content = content.Append(nil)
	}
	if r.From, r.HasFrom = d.text(m.Options, from); r.From == "" {
		r.From, r.HasFrom = n.config.CSE.String(), true
	}
	if r.ID == "" {
		var b [9]byte
		rand.Read(b[:])
		r.ID = base64.RawURLEncoding.EncodeToString(b[:])
	}
	return a.ask(ctx, r, path)
}

// ask sends a request to the device and returns its answer. One at a time: the device may
// be a small one (RFC 7252 section 4.7, NSTART).
func (a *association) ask(ctx context.Context, r *httpgw.Request, path []string) (*httpgw.Response, *refusal) {
	patience := a.server.config.Limits.Timeout
	if d, ok := untilExpiry(r.Params[httpgw.RequestExpiration], time.Now()); ok {
		patience = min(patience, d)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	gone := func(err error) (*httpgw.Response, *refusal) {
		return nil, &refusal{status: unreachable, code: coap.GatewayTimeout, reason: err.Error()}
	}
	select {
	case a.queue <- struct{}{}:
		defer func() { <-a.queue }()
	default:
		return nil, &refusal{status: unreachable, code: coap.ServiceUnavailable, reason: "too many requests wait for the device"}
	}
	select {
	case a.asking <- struct{}{}:
		defer func() { <-a.asking }()
	case <-ctx.Done():
		return gone(errors.New("the device is busy"))
	}
	d := Dialect(a.dialect.Load())
	transfer := coap.Transfer{SZX: a.server.szx, Max: a.server.config.Limits.MaxContent}
	m, err := transfer.Exchange(ctx, a.endpoint, newRequest(r, d, path))
	if err != nil {
		return gone(err)
	}
	response, err := readAnswer(m, d, r.Operation, r.ID)
	if err != nil {
		return nil, &refusal{status: unreachable, code: coap.BadGateway, reason: err.Error()}
	}
	// The CSE reads this answer, so it is written anew as a request would be.
	if len(response.Content) > 0 {
		content, err := primitive.Parse(response.Content)
		if err != nil || !isJSONType(response.ContentType) {
			return nil, &refusal{status: unreachable, code: coap.BadGateway, reason: "an answer that is no JSON"}
		}
		response.Content, response.ContentType = content.Append(nil), "application/json"
	}
	return response, nil
}
