package httpgw

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/http1"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// BackendConfig says how to reach an HTTP CSE, and what it can bear. A field
// that is 0 has the default that stands beside it.
type BackendConfig struct {
	// URL is the CSE's: "http://127.0.0.1:8080", perhaps with a path under which
	// all of its resources are.
	URL string
	// NoKeepAlive has each request use a connection of its own.
	NoKeepAlive bool
	// MaxRequest bounds a whole request, head and content, in octets (0: no
	// bound but the device side's). One known CSE writes past the end of a buffer
	// of 65,535.
	MaxRequest int
	// MaxResponse bounds the content of an answer (8 MiB).
	MaxResponse int64
	// MaxConns bounds the connections to the CSE in use (256); requests wait for
	// one. MaxPolls bounds those of requests that may wait for longer than Timeout
	// (8192): polling devices must not keep others from being served. MaxIdle is
	// how many connections are kept for later (64), and for how long IdleTimeout
	// (30 s).
	MaxConns, MaxPolls, MaxIdle int
	IdleTimeout                 time.Duration
	// DialTimeout (5 s) and Timeout (30 s) bound how long the CSE may take to
	// accept a connection and to answer. A request that says when it expires
	// (X-M2M-RET), or that retrieves a polling channel, waits longer: until then,
	// at most MaxTimeout (1 h).
	DialTimeout, Timeout, MaxTimeout time.Duration
	// Hidden are first segments of paths that are no resources of this CSE but
	// doors to its management; a '*' at the end stands for any characters. Nil
	// means DefaultHidden. It is matched without regard to letter case.
	Hidden []string
	// Key makes request identifiers; see Backend.RequestID. Gateways that share
	// it give the same ones. None: a random one.
	Key saef.Secret
}

// DefaultHidden has what is known of CSEs: ACME serves an upper tester at
// /__ut__, which carries out any request as anybody, its configuration and its
// structure at other such names, and a console at /webui.
var DefaultHidden = []string{"__*", "webui", "favicon.ico"}

// A Backend is an HTTP CSE. It may be used by any number of goroutines.
type Backend struct {
	config BackendConfig
	prefix string // of all paths, without a slash at the end
	host   string // for the Host header
	hidden []string
	macs   sync.Pool // of hash.Hash, HMACs with the key
	pool   pool
}

// NewBackend checks the configuration. It does not connect.
func NewBackend(c BackendConfig) (*Backend, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("backend %q: not a URL such as http://127.0.0.1:8080", c.URL)
	}
	prefix := strings.TrimSuffix(u.Path, "/")
	if prefix != "" && CheckTo(prefix) != nil {
		return nil, fmt.Errorf("backend %q: its path has characters that need escapes", c.URL)
	}
	c.MaxResponse = cmp.Or(c.MaxResponse, 8<<20)
	c.MaxConns = cmp.Or(c.MaxConns, 256)
	c.MaxPolls = cmp.Or(c.MaxPolls, 8192)
	c.MaxIdle = cmp.Or(c.MaxIdle, 64)
	c.IdleTimeout = cmp.Or(c.IdleTimeout, 30*time.Second)
	c.DialTimeout = cmp.Or(c.DialTimeout, 5*time.Second)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.MaxTimeout = cmp.Or(c.MaxTimeout, time.Hour)
	if c.NoKeepAlive {
		c.MaxIdle = 0
	}
	b := &Backend{config: c, prefix: prefix, host: u.Host, hidden: c.Hidden}
	if b.hidden == nil {
		b.hidden = DefaultHidden
	}
	key := keyOrRandom(c.Key)
	b.macs.New = func() any { return hmac.New(sha256.New, key) }
	address := u.Host
	if u.Port() == "" {
		address += ":80"
	}
	b.pool.init(address, c)
	return b, nil
}

// Close closes idle connections. Requests under way go on.
func (b *Backend) Close() { b.pool.close() }

// RequestID returns the request identifier that stands for a peer's own at the
// CSE. CSEs answer a request whose identifier they have seen with the earlier
// answer, whoever asks: so another peer's, or another originator's, must never
// give the same one. The same peer's does, so that its repetitions are still
// known as such.
func (b *Backend) RequestID(peer, from, id string) string {
	mac := b.macs.Get().(hash.Hash)
	defer b.macs.Put(mac)
	mac.Reset()
	var text [512]byte
	out := append(text[:0], "request identifier"...)
	for _, part := range [...]string{peer, from, id} {
		out = append(append(out, 0), part...) // 0 is in none of them
	}
	mac.Write(out)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(out[:0])[:18])
}

// keyOrRandom returns the key, or a random one when there is none.
func keyOrRandom(key saef.Secret) []byte {
	if key.Len() > 0 {
		return key.Bytes()
	}
	random := make([]byte, 32)
	rand.Read(random)
	return random
}

// A BackendError says that there is no answer of the CSE. Status is what the
// asker may be told.
type BackendError struct {
	Status onem2m.ResponseStatusCode
	Err    error
	// NotSent tells that the CSE has seen nothing of the request.
	NotSent bool
}

func (e *BackendError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *BackendError) Unwrap() error { return e.Err }

func notCarried(format string, args ...any) *BackendError {
	return &BackendError{onem2m.StatusBadRequest, fmt.Errorf(format, args...), true}
}

// Do sends a request and returns the answer. Its error is a *BackendError, of
// status 4000 when the request can't be carried in one form only or the CSE
// could not bear it, 4008 when there was no answer in time, and 5103 when the
// CSE can't be reached, breaks off, or answers something else than oneM2M.
//
// When ctx ends, so does the wait, with ctx's error in the place of the
// *BackendError's.
func (b *Backend) Do(ctx context.Context, r *Request) (*Response, error) {
	scratch := scratches.Get().(*scratch)
	defer scratch.release()
	var err error
	if scratch.out, err = b.appendRequest(scratch.out[:0], r); err != nil {
		return nil, err
	}
	if b.config.MaxRequest > 0 && len(scratch.out)+len(r.Content) > b.config.MaxRequest {
		return nil, notCarried("a request of %d octets, more than this CSE can bear", len(scratch.out)+len(r.Content))
	}
	patience := b.patience(r)
	deadline, places := time.Now().Add(patience), b.pool.places
	if patience > b.config.Timeout {
		places = b.pool.polls
	}
	c, err := b.pool.get(ctx, deadline, places)
	if err != nil {
		return nil, b.failure(ctx, err, true)
	}
	response, err := b.exchange(ctx, c, r, scratch, deadline)
	if err != nil && c.used && c.silent && r.Operation == retrieve {
		// The CSE has closed the connection just when we took it. Nothing else is
		// asked twice: it may have been done.
		if c, err = b.pool.dial(ctx, deadline, places); err == nil {
			response, err = b.exchange(ctx, c, r, scratch, deadline)
		}
	}
	if err != nil {
		return nil, b.failure(ctx, err, false)
	}
	return response, nil
}

// failure makes an error of an exchange a *BackendError.
func (b *Backend) failure(ctx context.Context, err error, notSent bool) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var timeout interface{ Timeout() bool }
	status := onem2m.StatusTargetNotReachable
	if !notSent && errors.As(err, &timeout) && timeout.Timeout() {
		status = onem2m.StatusRequestTimeout
	}
	return &BackendError{status, fmt.Errorf("CSE: %w", err), notSent}
}

// exchange sends the request and reads the answer on c, and keeps or closes c.
func (b *Backend) exchange(ctx context.Context, c *backendConn, r *Request, s *scratch, deadline time.Time) (*Response, error) {
	c.conn.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { c.conn.SetDeadline(time.Unix(1, 0)) })
	response, err := b.roundTrip(c, r, s)
	if stop() && err == nil && !s.head.Close {
		b.pool.put(c)
	} else {
		b.pool.discard(c)
	}
	return response, err
}

func (b *Backend) roundTrip(c *backendConn, r *Request, s *scratch) (*Response, error) {
	c.silent = true
	if err := c.write(s.out, r.Content); err != nil {
		return nil, err
	}
	if err := c.reader.Wait(); err != nil {
		return nil, fmt.Errorf("no answer: %w", err)
	}
	c.silent = false
	if err := c.reader.ReadResponse(&s.head); err != nil {
		return nil, err
	}
	content, err := c.reader.ReadBody(&s.head, r.room[:0], b.config.MaxResponse)
	if err != nil {
		return nil, err
	}
	if c.reader.Buffered() > 0 {
		return nil, errors.New("more than one answer")
	}
	return readResponse(&s.head, content, r.ID)
}

// patience is for how long to wait for the answer.
func (b *Backend) patience(r *Request) time.Duration {
	const grace = 5 * time.Second // for the CSE to say so itself
	patience := b.config.Timeout
	if d, ok := untilExpiry(r.Params[RequestExpiration], time.Now()); ok {
		patience = max(patience, d+grace)
	} else if r.Operation == retrieve && (r.To == "pcu" || strings.HasSuffix(r.To, "/pcu")) {
		patience = b.config.MaxTimeout // a polling channel's; the CSE knows when it is enough
	}
	return min(patience, b.config.MaxTimeout)
}

// untilExpiry reads an m2m:absRelTimestamp: a time of day in UTC, or
// milliseconds from now.
func untilExpiry(s string, now time.Time) (time.Duration, bool) {
	if s == "" {
		return 0, false
	}
	if t, err := onem2m.ParseTimestamp(s); err == nil {
		return t.Sub(now), true
	}
	return milliseconds(s)
}

func milliseconds(s string) (time.Duration, bool) {
	if len(s) > 9 || strings.Trim(s, "0123456789") != "" { // 11 days
		return 0, false
	}
	var n time.Duration
	for i := range len(s) {
		n = 10*n + time.Duration(s[i]-'0')
	}
	return n * time.Millisecond, true
}

// scratch is what an exchange needs besides its connection.
type scratch struct {
	out  []byte
	head http1.Message
}

func (s *scratch) release() {
	clear(s.head.Fields) // parts of heads, which may be secret to others
	scratches.Put(s)
}
