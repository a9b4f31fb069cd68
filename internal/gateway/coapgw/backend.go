package coapgw

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// BackendConfig says how to reach a CoAP CSE, and what it can bear. A field that is 0 has
// the default that stands beside it.
type BackendConfig struct {
	// Address is the CSE's: "127.0.0.1:5683".
	Address string
	// Dialect is how the CSE numbers oneM2M's options.
	Dialect Dialect
	// Release is the release version that the CSE gets when the device names none
	// ("3"; "-": none). One known CSE ends on a request without it.
	Release string
	// MaxType is the largest resource type that the CSE reads as what it is (48). One
	// known CSE takes the ASCII digits (48 to 57) for the types 0 to 9, and two take the
	// first octet of a number of two: for them, 515 is an AE. The others than those two
	// may be given 65535.
	MaxType int
	// BlockSize is the size of blocks in octets, a power of two from 16 to 1024 (1024).
	BlockSize int
	// MaxRequest and MaxResponse bound the content (48 kB, for one known CSE prints
	// requests into 64 kB; 256 kB).
	MaxRequest, MaxResponse int
	// MaxOutstanding is how many requests may be under way at the CSE; more wait. RFC
	// 7252 section 4.7 has 1 for a peer of which nothing is known (NSTART); a CSE on the
	// gateway's own network bears more (16).
	MaxOutstanding int
	// MaxPolls is the same for requests that may wait for longer than Timeout (1024). The
	// CSE holds their answers back; if they took the places of others, a few devices that
	// poll would keep everybody waiting.
	MaxPolls int
	// NoObserve has the gateway answer as a server does that can't be observed.
	NoObserve bool
	// Timeout is how long the CSE may take to answer (30 s). A request that says when it
	// expires, or retrieves a polling channel, waits until then, at most MaxTimeout (1 h).
	Timeout, MaxTimeout time.Duration
	// Key makes request identifiers; see Backend.RequestID. Gateways that share it give
	// the same ones. None: a random one.
	Key saef.Secret
}

// A Backend is a CoAP CSE. It may be used by any number of goroutines.
type Backend struct {
	config   BackendConfig
	transfer coap.Transfer
	key      saef.Secret
	places   chan struct{} // one for each request under way
	polls    chan struct{} // the same, for those that may wait for long
	sockets  sockets
}

// NewBackend checks the configuration. It sends nothing.
func NewBackend(c BackendConfig) (*Backend, error) {
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return nil, fmt.Errorf("backend %q: %w", c.Address, err)
	}
	c.Release = cmp.Or(c.Release, "3")
	c.MaxType = cmp.Or(c.MaxType, 48)
	c.BlockSize = cmp.Or(c.BlockSize, 1024)
	c.MaxRequest = cmp.Or(c.MaxRequest, 48<<10)
	c.MaxResponse = cmp.Or(c.MaxResponse, 256<<10)
	c.MaxOutstanding = cmp.Or(c.MaxOutstanding, 16)
	c.MaxPolls = cmp.Or(c.MaxPolls, 1024)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.MaxTimeout = cmp.Or(c.MaxTimeout, time.Hour)
	szx, err := blockExponent(c.BlockSize)
	switch {
	case err != nil:
		return nil, err
	case c.MaxType < 0 || c.MaxType > 0xffff || c.MaxOutstanding < 0 || c.MaxPolls < 0 || c.MaxRequest < 0 || c.MaxResponse < 0:
		return nil, errors.New("a limit that is none")
	}
	b := &Backend{
		config:   c,
		transfer: coap.Transfer{SZX: szx, Max: c.MaxResponse},
		key:      keyOrRandom(c.Key),
		places:   make(chan struct{}, c.MaxOutstanding),
		polls:    make(chan struct{}, c.MaxPolls),
		sockets:  sockets{address: c.Address, ids: socketIDs},
	}
	return b, nil
}

// keyOrRandom returns the key, or a random one when there is none.
func keyOrRandom(key saef.Secret) saef.Secret {
	if !key.IsZero() {
		return key
	}
	random := make([]byte, 32)
	rand.Read(random)
	return saef.NewSecret(random)
}

// Close ends all that is under way.
func (b *Backend) Close() { b.sockets.close() }

// RequestID returns the request identifier that stands for a peer's own at the CSE. CSEs
// answer a request whose identifier they have seen with the earlier answer, whoever asks:
// so another peer's, or another originator's, must never give the same one. The same
// peer's does, so that its repetitions are still known as such.
func (b *Backend) RequestID(peer, from, id string) string {
	mac := hmac.New(sha256.New, b.key.Bytes())
	for _, part := range [...]string{"request identifier", peer, from, id} {
		mac.Write([]byte(part))
		mac.Write([]byte{0}) // in none of them
	}
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// Do sends a request and returns the answer. Its error is a *httpgw.BackendError, of status
// 4000 when the CSE could not bear the request, 4008 when there was no answer in time, and
// 5103 when the CSE can't be reached or answers something else than oneM2M.
func (b *Backend) Do(ctx context.Context, r *httpgw.Request) (*httpgw.Response, error) {
	m, err := b.message(r)
	if err != nil {
		return nil, err
	}
	patience := b.patience(r)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	release, err := b.enter(ctx, patience)
	if err != nil {
		return nil, err
	}
	defer release()
	s, err := b.sockets.get()
	if err != nil {
		return nil, failure(err)
	}
	answer, err := b.transfer.Exchange(ctx, s.endpoint, m)
	if err != nil {
		return nil, failure(err)
	}
	return b.response(answer, r)
}

// Observe retrieves a resource and has notify called with each later state of it, one
// call after the other, until stop is called. stop is nil when the CSE doesn't agree; it
// does not wait. The same errors as Do's.
func (b *Backend) Observe(ctx context.Context, r *httpgw.Request, notify func(*httpgw.Response)) (first *httpgw.Response, stop func(), err error) {
	if b.config.NoObserve {
		first, err = b.Do(ctx, r)
		return first, nil, err
	}
	m, err := b.message(r)
	if err != nil {
		return nil, nil, err
	}
	patience := b.patience(r)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	release, err := b.enter(ctx, patience)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	s, err := b.sockets.get()
	if err != nil {
		return nil, nil, failure(err)
	}
	states := newLatest(func(answer *coap.Message) { b.observed(s.endpoint, m, answer, r, notify) })
	answer, observation, err := s.endpoint.Observe(ctx, m, states.put)
	if err == nil {
		answer, err = b.transfer.Rest(ctx, s.endpoint, m, answer)
	}
	if err == nil {
		first, err = b.response(answer, r)
	}
	if observation == nil {
		return first, nil, failure(err)
	}
	stop = func() {
		states.stop()
		go b.cancel(observation, m)
	}
	if err != nil {
		stop()
		return nil, nil, failure(err)
	}
	return first, stop, nil
}

// observed completes a notification and passes it on.
func (b *Backend) observed(e *coap.Endpoint, request, answer *coap.Message, r *httpgw.Request, notify func(*httpgw.Response)) {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Timeout)
	defer cancel()
	answer, err := b.transfer.Rest(ctx, e, request, answer)
	if err != nil {
		return // the next one will be there soon, or has made this one impossible
	}
	if response, err := b.response(answer, r); err == nil {
		notify(response)
	}
}

func (b *Backend) cancel(o *coap.Observation, request *coap.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), b.config.Timeout)
	defer cancel()
	o.Cancel(ctx, request) // and if it fails, the CSE gets a Reset next time
}

// enter waits until the CSE can take one more request.
func (b *Backend) enter(ctx context.Context, patience time.Duration) (release func(), err error) {
	places := b.places
	if patience > b.config.Timeout {
		places = b.polls
	}
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, &httpgw.BackendError{Status: unreachable, Err: fmt.Errorf("waiting for the CSE: %w", ctx.Err()), NotSent: true}
	}
}

// failure makes an error of an exchange a *httpgw.BackendError.
func failure(err error) error {
	var known *httpgw.BackendError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, coap.ErrTimeout):
		return &httpgw.BackendError{Status: onem2m.StatusRequestTimeout, Err: fmt.Errorf("CSE: %w", err)}
	}
	return &httpgw.BackendError{Status: unreachable, Err: fmt.Errorf("CSE: %w", err)}
}

func notCarried(reason string) error {
	return &httpgw.BackendError{Status: onem2m.StatusBadRequest, Err: errors.New(reason), NotSent: true}
}

// methods are the methods of the operations (TS-0008 table 6.2.1-1).
func method(operation policy.Operation) coap.Code {
	switch operation {
	case policy.Retrieve:
		return coap.GET
	case policy.Update:
		return coap.PUT
	case policy.Delete:
		return coap.DELETE
	}
	return coap.POST
}

// message writes a request. All that leaves the gateway towards a CSE is made here, and it
// makes nothing of which it has not seen that every reader reads it alike.
func (b *Backend) message(r *httpgw.Request) (*coap.Message, error) {
	switch {
	case r.Operation < policy.Create || r.Operation > policy.Notify || (r.Operation == policy.Create) != (r.Type > 0):
		return nil, notCarried("an operation that is none")
	case r.Type > b.config.MaxType:
		return nil, &httpgw.BackendError{Status: onem2m.StatusNotImplemented, NotSent: true,
			Err: fmt.Errorf("resource type %d, which this CSE can't tell from others", r.Type)}
	case len(r.Content) > b.config.MaxRequest:
		return nil, notCarried(fmt.Sprintf("content of %d octets, more than this CSE can bear", len(r.Content)))
	case !isPlain(r.ID, false) || len(r.ID) > longestText:
		return nil, notCarried("a malformed request identifier")
	case r.From != "" && !isPlain(r.From, false) || len(r.From) > longestText:
		return nil, notCarried("a malformed originator")
	}
	path, err := pathOf(r.To)
	if err != nil {
		return nil, notCarried(err.Error())
	}
	for _, p := range r.Query {
		if q := queryOf(p); len(q) > longestText || !isPlain(q, false) || strings.ContainsAny(q, "&%#") {
			return nil, notCarried("a query that CoAP can't carry unambiguously")
		}
	}
	complete := *r
	complete.HasFrom = true
	if complete.Params[httpgw.ReleaseVersion] == "" && b.config.Release != "-" {
		complete.Params[httpgw.ReleaseVersion] = b.config.Release
	}
	m := newRequest(&complete, b.config.Dialect, path)
	m.Options.AddUint(coap.Accept, formatJSON)
	return m, nil
}

// newRequest writes a request: a device's to the CSE, or the CSE's to a device.
func newRequest(r *httpgw.Request, d Dialect, path []string) *coap.Message {
	m := &coap.Message{Code: method(r.Operation), Payload: r.Content}
	for _, segment := range path {
		m.Options.AddString(coap.URIPath, segment)
	}
	for _, p := range r.Query {
		m.Options.AddString(coap.URIQuery, queryOf(p))
	}
	if r.HasFrom {
		m.Options.AddString(d.number(from), r.From)
	}
	m.Options.AddString(d.number(requestID), r.ID)
	if r.Type > 0 {
		m.Options.AddUint(d.number(resourceType), uint32(r.Type))
	}
	d.addParameters(&m.Options, &r.Params)
	if len(r.Content) > 0 {
		m.Options.AddUint(coap.ContentFormat, formatJSON)
	}
	return m
}

func queryOf(p httpgw.QueryParam) string { return p.Name + "=" + strings.Join(p.Values, "+") }

// pathOf returns the path of a target (TS-0008 table 6.2.2.3-1).
func pathOf(to string) ([]string, error) {
	if err := httpgw.CheckTo(to); err != nil {
		return nil, err
	}
	path := strings.Split(to, "/")
	switch {
	case strings.HasPrefix(to, "//"):
		path = append([]string{"_"}, path[2:]...)
	case strings.HasPrefix(to, "/"):
		path[0] = "~"
	}
	for _, segment := range path {
		if len(segment) > longestText {
			return nil, errors.New("a segment of the path that is too long")
		}
	}
	return path, nil
}

// response reads the CSE's answer.
func (b *Backend) response(m *coap.Message, r *httpgw.Request) (*httpgw.Response, error) {
	response, err := readAnswer(m, b.config.Dialect, r.Operation, r.ID)
	if err != nil {
		return nil, &httpgw.BackendError{Status: unreachable, Err: fmt.Errorf("CSE: %w", err)}
	}
	return response, nil
}

// patience is for how long to wait for the answer.
func (b *Backend) patience(r *httpgw.Request) time.Duration {
	const grace = 5 * time.Second // for the CSE to say so itself
	patience := b.config.Timeout
	if d, ok := untilExpiry(r.Params[httpgw.RequestExpiration], time.Now()); ok {
		patience = max(patience, d+grace)
	} else if r.Operation == policy.Retrieve && (r.To == "pcu" || strings.HasSuffix(r.To, "/pcu")) {
		patience = b.config.MaxTimeout // a polling channel's; the CSE knows when it is enough
	}
	return min(patience, b.config.MaxTimeout)
}

// untilExpiry reads an m2m:absRelTimestamp: a time of day in UTC, or milliseconds from now.
func untilExpiry(s string, now time.Time) (time.Duration, bool) {
	if t, err := onem2m.ParseTimestamp(s); err == nil {
		return t.Sub(now), true
	}
	if s == "" || len(s) > 9 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	d, err := time.ParseDuration(s + "ms")
	return d, err == nil
}

// blockExponent returns the size exponent of blocks of that many octets.
func blockExponent(octets int) (uint8, error) {
	for szx := range uint8(coap.MaxSZX + 1) {
		if 16<<szx == octets {
			return szx, nil
		}
	}
	return 0, fmt.Errorf("blocks of %d octets: not a power of two from 16 to 1024", octets)
}
