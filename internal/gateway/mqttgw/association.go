package mqttgw

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/saef"
)

// errShutdown is why an association ends with its server.
var errShutdown = errors.New("the gateway shuts down")

// An association is a device's connection with its connection to the broker. It
// has two goroutines, each of which reads from one side and writes to either.
type association struct {
	server  *Server
	limits  *Limits
	context saef.Association
	log     *slog.Logger
	peer    *policy.Peer
	names   *names
	prefix  string     // of request identifiers towards the CSE
	will    *mqtt.Will // as the device wrote it; nil: none. Set by connect

	ctx    context.Context // ends with the association
	cancel context.CancelFunc

	device *side
	// broker is set by connect, before there is a second goroutine.
	broker    *side
	keepAlive time.Duration // 0: none
	leave     func()        // nil until admitted

	toCSE, toDevice exchanges

	// refused are the packet identifiers of messages of QoS 2 from the device that
	// went no further, until their PUBREL. It belongs to the device's goroutine.
	refused []uint16
	// dropped are those of messages from the broker. It belongs to the broker's
	// goroutine.
	dropped []uint16
	// ownPings counts the PINGRESPs to come that the device has not asked for.
	ownPings atomic.Int32

	mu          sync.Mutex
	subscribing []subscribing // guarded by mu
	ended       bool          // guarded by mu; written with the fields of broker
	cause       error         // guarded by mu
}

// subscribing is a SUBSCRIBE, some of whose filters were refused, until its
// SUBACK.
type subscribing struct {
	id    uint16
	codes []byte // SubscribeFailure where refused, 0 where the broker's code goes
}

// A side is one of the two connections.
type side struct {
	conn net.Conn
	r    *bufio.Reader // belongs to one goroutine

	mu       sync.Mutex // held while writing
	timeout  time.Duration
	lastSent time.Time // guarded by mu
}

func newSide(conn net.Conn, timeout time.Duration) *side {
	// Idle associations are many, and packets small: a larger packet is read past
	// the buffer.
	return &side{conn: conn, r: bufio.NewReaderSize(conn, 512), timeout: timeout}
}

func (s *side) send(p mqtt.Packet) error { return s.sendWithin(p, s.timeout) }

func (s *side) sendWithin(p mqtt.Packet, timeout time.Duration) error {
	b, err := mqtt.Append(nil, p)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastSent = time.Now()
	s.conn.SetWriteDeadline(s.lastSent.Add(timeout))
	_, err = s.conn.Write(b)
	return err
}

func (s *side) silence() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.lastSent)
}

// newAssociation takes the device's connection, whose security context is assoc.
func newAssociation(s *Server, conn net.Conn, assoc saef.Association) *association {
	a := &association{
		server: s, limits: &s.config.Limits, context: assoc,
		log:    s.config.Log.With("peer", assoc.Peer(), "kcid", assoc.KcID.String()),
		peer:   s.config.Rules.Peer(assoc),
		device: newSide(conn, s.config.Limits.Write),
		prefix: requestPrefix(assoc.KmID),
	}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	a.names = &names{
		cse: s.config.CSE, cseNames: s.config.CSENames,
		credential: assoc.CredentialID().String(), peer: a.peer,
	}
	return a
}

// run serves the association until it ends.
func (a *association) run() {
	err := a.connect()
	if a.leave != nil {
		defer a.leave()
	}
	if err != nil {
		a.end(err, false)
	} else {
		a.serve()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.log.Info("association ended", "cause", a.cause)
}

// serve passes packets on, both ways, until the association ends.
func (a *association) serve() {
	var broker sync.WaitGroup
	broker.Go(func() { a.lost(a.fromBroker()) })
	a.lost(a.fromDevice())
	broker.Wait()
	for _, x := range slices.Concat(a.toCSE.takeAll(), a.toDevice.takeAll()) {
		a.record(x.entry, x.begun)
	}
}

// setBroker takes the connection to the broker, unless the association has ended.
func (a *association) setBroker(s *side) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		s.conn.Close()
		return false
	}
	a.broker = s
	return true
}

// errDraining ends fromDevice when the server shuts down.
var errDraining = errors.New("draining")

// errLeft ends fromDevice after a DISCONNECT.
var errLeft = errors.New("device disconnected")

// lost ends the association because of one of its sides. When the gateway itself
// closed the device's connection, as it does when a key is revoked, the will
// goes with it: it would be published with the authority of that key.
func (a *association) lost(err error) {
	if err == errDraining {
		return // the broker's goroutine goes on, and Shutdown ends it
	}
	closed := errors.Is(a.device.conn.SetReadDeadline(time.Time{}), net.ErrClosed)
	a.end(err, err != errLeft && !closed && a.willStands())
}

// willStands reports whether the device may still say what its will says: the
// identity in it may have become another's since CONNECT.
func (a *association) willStands() bool {
	if a.will == nil {
		return true
	}
	_, _, x, refused := a.fromPeer(a.will.Topic, a.will.Payload)
	return refused == nil && x != nil && x.learn == nil
}

// farewell is for how long the broker may not take a DISCONNECT.
const farewell = time.Second

// end closes both sides, once. Without will the broker is told that it is not to
// publish the device's will.
func (a *association) end(cause error, will bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ended {
		return
	}
	a.ended, a.cause = true, cause
	a.cancel()
	a.device.conn.Close()
	if a.broker == nil {
		return
	}
	if !will && cause != errLeft {
		// A goroutine may be in a Write that takes long: let it fail.
		a.broker.conn.SetWriteDeadline(time.Now().Add(farewell))
		a.broker.sendWithin(mqtt.Signal(mqtt.TypeDisconnect), farewell)
	}
	a.broker.conn.Close()
}

// fromDevice takes the device's packets. One in one and a half times the
// keep-alive is the least (MQTT 3.1.2.10).
func (a *association) fromDevice() error {
	for {
		deadline := time.Time{}
		if a.keepAlive > 0 {
			deadline = time.Now().Add(a.keepAlive * 3 / 2)
		}
		a.device.conn.SetReadDeadline(deadline)
		// Shutdown sets closing first and a deadline that has passed then. One of
		// the two is seen here.
		if a.server.isClosing() {
			return errDraining
		}
		p, err := mqtt.Read(a.device.r, a.limits.Packet)
		if err != nil {
			if a.server.isClosing() {
				return errDraining
			}
			return err
		}
		if err := a.devicePacket(p); err != nil {
			return err
		}
	}
}

// devicePacket passes one packet of the device's on, or answers it.
func (a *association) devicePacket(p mqtt.Packet) error {
	switch p := p.(type) {
	case *mqtt.Publish:
		return a.devicePublish(p)
	case *mqtt.Subscribe:
		return a.subscribe(p)
	case *mqtt.Unsubscribe:
		return a.unsubscribe(p)
	case *mqtt.Ack:
		if p.Kind == mqtt.TypeUnsuback {
			return fmt.Errorf("%v from a device", p.Kind)
		}
		if i := slices.Index(a.refused, p.ID); p.Kind == mqtt.TypePubrel && i >= 0 {
			a.refused = slices.Delete(a.refused, i, i+1)
			return a.reply(&mqtt.Ack{Kind: mqtt.TypePubcomp, ID: p.ID})
		}
		return a.broker.send(p)
	case mqtt.Signal:
		if p.Type() == mqtt.TypePingreq {
			return a.broker.send(p)
		}
		if p.Type() == mqtt.TypeDisconnect {
			if err := a.broker.send(p); err != nil {
				return err
			}
			return errLeft
		}
	}
	return fmt.Errorf("%v from a device that is connected", p.Type())
}

// reply answers the device in the broker's place. The broker then hears nothing
// of a device that is alive, so it is pinged in time.
func (a *association) reply(p mqtt.Packet) error {
	if err := a.device.send(p); err != nil {
		return err
	}
	if a.keepAlive > 0 && a.broker.silence() > a.keepAlive/2 {
		a.ownPings.Add(1)
		return a.broker.send(mqtt.Signal(mqtt.TypePingreq))
	}
	return nil
}

// devicePublish passes a message on, or acknowledges and drops it.
func (a *association) devicePublish(p *mqtt.Publish) error {
	t, payload, x, refused := a.fromPeer(p.Topic, p.Payload)
	if refused != nil {
		a.recordRefusal(refused, p.Payload)
		return a.refusePublish(p, refused)
	}
	if i := slices.Index(a.refused, p.ID); p.QoS == 2 && i >= 0 {
		a.refused = slices.Delete(a.refused, i, i+1)
	}
	if x != nil {
		x.entry.In = int64(len(p.Payload))
		if old, up := a.toCSE.add(*x, a.limits.Exchanges); up {
			a.record(old.entry, old.begun)
		}
	}
	return a.broker.send(&mqtt.Publish{Dup: p.Dup, QoS: p.QoS, Topic: t.String(), ID: p.ID, Payload: payload})
}

// refusePublish answers a message that goes no further.
func (a *association) refusePublish(p *mqtt.Publish, refused *refusal) error {
	switch p.QoS {
	case 1:
		if err := a.reply(&mqtt.Ack{Kind: mqtt.TypePuback, ID: p.ID}); err != nil {
			return err
		}
	case 2:
		if !slices.Contains(a.refused, p.ID) {
			if len(a.refused) >= a.limits.Exchanges {
				return errors.New("too many refused messages of QoS 2 under way")
			}
			a.refused = append(a.refused, p.ID)
		}
		if err := a.reply(&mqtt.Ack{Kind: mqtt.TypePubrec, ID: p.ID}); err != nil {
			return err
		}
	}
	if refused.answer == (topic{}) {
		return nil
	}
	return a.reply(&mqtt.Publish{Topic: refused.answer.String(), Payload: refused.payload()})
}

// subscribe passes on the filters that are allowed. The others fail in the
// SUBACK.
func (a *association) subscribe(p *mqtt.Subscribe) error {
	s := subscribing{id: p.ID, codes: make([]byte, len(p.Filters))}
	allowed, refused := &mqtt.Subscribe{ID: p.ID}, ""
	for i, f := range p.Filters {
		if a.names.maySubscribe(f.Topic) {
			allowed.Filters = append(allowed.Filters, f)
			continue
		}
		s.codes[i] = mqtt.SubscribeFailure
		refused = f.Topic
	}
	if n := len(p.Filters) - len(allowed.Filters); n > 0 {
		// One line: a packet has room for thousands of filters.
		a.log.Warn("subscription refused", "filters", n, "last", clip(refused))
	}
	if len(allowed.Filters) == 0 {
		return a.reply(&mqtt.Suback{ID: p.ID, Codes: s.codes})
	}
	if len(allowed.Filters) < len(p.Filters) {
		a.mu.Lock()
		a.subscribing = append(a.subscribing, s)
		many := len(a.subscribing) > a.limits.Exchanges
		a.mu.Unlock()
		if many {
			return errors.New("too many subscriptions under way")
		}
	}
	return a.broker.send(allowed)
}

// unsubscribe passes on the filters that a session of the device's may have,
// whatever its identity was then. The others end nothing, and a broker has no
// need to see them: one known broker ran out of stack at 65,000 levels.
func (a *association) unsubscribe(p *mqtt.Unsubscribe) error {
	some := &mqtt.Unsubscribe{ID: p.ID}
	for _, t := range p.Topics {
		if isFilter(t) {
			some.Topics = append(some.Topics, t)
		}
	}
	if len(some.Topics) == 0 {
		return a.reply(&mqtt.Ack{Kind: mqtt.TypeUnsuback, ID: p.ID})
	}
	return a.broker.send(some)
}

// suback merges the broker's codes with those of the refused filters.
func (a *association) suback(p *mqtt.Suback) error {
	a.mu.Lock()
	i := slices.IndexFunc(a.subscribing, func(s subscribing) bool { return s.id == p.ID })
	if i < 0 {
		a.mu.Unlock()
		return a.device.send(p)
	}
	codes := a.subscribing[i].codes
	a.subscribing = slices.Delete(a.subscribing, i, i+1)
	a.mu.Unlock()
	theirs := p.Codes
	for i, code := range codes {
		if code == mqtt.SubscribeFailure {
			continue
		}
		if len(theirs) == 0 {
			return errors.New("broker: SUBACK with too few codes")
		}
		codes[i], theirs = theirs[0], theirs[1:]
	}
	return a.device.send(&mqtt.Suback{ID: p.ID, Codes: codes})
}

// fromBroker takes the broker's packets.
func (a *association) fromBroker() error {
	for {
		p, err := mqtt.Read(a.broker.r, a.limits.Delivery)
		if err == io.EOF {
			err = errors.New("the broker closed the connection")
		}
		if err == nil {
			err = a.brokerPacket(p)
		}
		if err != nil {
			return err
		}
	}
}

// brokerPacket passes one packet of the broker's on, or answers it.
func (a *association) brokerPacket(p mqtt.Packet) error {
	switch p := p.(type) {
	case *mqtt.Publish:
		return a.brokerPublish(p)
	case *mqtt.Suback:
		return a.suback(p)
	case *mqtt.Ack:
		if i := slices.Index(a.dropped, p.ID); p.Kind == mqtt.TypePubrel && i >= 0 {
			a.dropped = slices.Delete(a.dropped, i, i+1)
			return a.broker.send(&mqtt.Ack{Kind: mqtt.TypePubcomp, ID: p.ID})
		}
		return a.device.send(p)
	case mqtt.Signal:
		if p.Type() == mqtt.TypePingresp {
			if a.ownPings.Load() > 0 {
				a.ownPings.Add(-1)
				return nil
			}
			return a.device.send(p)
		}
	}
	return fmt.Errorf("broker: %v", p.Type())
}

// brokerPublish passes a message on, or acknowledges and drops it.
func (a *association) brokerPublish(p *mqtt.Publish) error {
	payload, err := a.toPeer(p.Topic, p.Payload)
	if err == nil {
		p.Payload = payload
		return a.device.send(p)
	}
	a.log.Warn("a message of the broker's was dropped", "topic", clip(p.Topic), "error", err)
	switch p.QoS {
	case 1:
		return a.broker.send(&mqtt.Ack{Kind: mqtt.TypePuback, ID: p.ID})
	case 2:
		if !slices.Contains(a.dropped, p.ID) {
			a.dropped = append(a.dropped, p.ID) // at most 65535: they are the broker's
		}
		return a.broker.send(&mqtt.Ack{Kind: mqtt.TypePubrec, ID: p.ID})
	}
	return nil
}

// record writes the entry of an exchange that is over.
func (a *association) record(e access.Entry, begun time.Time) {
	e.Binding, e.Peer, e.KcID = "mqtt", a.peer.String(), a.context.KcID
	e.Duration = time.Since(begun)
	a.server.config.Recorder.Record(e)
}

func (a *association) recordRefusal(r *refusal, payload []byte) {
	e := r.entry
	e.Refused, e.Reason, e.Status, e.In = true, r.reason, r.status, int64(len(payload))
	a.record(e, time.Now())
}
