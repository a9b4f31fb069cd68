package mqttgw

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// Config says what New needs to know.
type Config struct {
	Rules *policy.Rules
	// CSE is the CSE behind the gateway, absolute.
	CSE onem2m.CSEID
	// CSENames are the CSE's names in topics. Nil means its CSE-ID, with ':' in
	// front and without.
	CSENames []string
	Broker   Broker
	// Public is where devices find the gateway, such as
	// "mqtts://gateway.example.com:8883": what they get for Broker.Contact. "" means
	// that they get that as it is.
	Public   string
	Limits   Limits
	Recorder access.Recorder // nil: nothing is recorded
	Log      *slog.Logger    // nil: nothing is logged
}

// Broker is the MQTT server that the CSE is connected to.
type Broker struct {
	Address string // "host:port", over TCP; loopback, or a network that is trusted
	// Username and Password are the gateway's own. They are sent when Username is
	// not empty.
	Username string
	Password saef.Secret
	// Contact is where the CSE finds the broker: what it gets for the addresses
	// of devices (poa, nu). "" means "mqtt://" and Address.
	Contact string
}

// Limits bound what one device can make the gateway hold. Zero fields have
// defaults.
type Limits struct {
	// Packet is the most octets of a packet from a device (256 KiB), Delivery of
	// one from the broker (1 MiB). A connection over which a larger one comes is
	// closed.
	Packet, Delivery int
	// Exchanges is how many requests without a response are remembered, in each
	// direction (64), and how many refused messages of QoS 2 and subscriptions
	// may be under way.
	Exchanges int
	// Connections is how many connections one master key may have at a time (16),
	// and how many ClientIDs with a session that outlives the connection.
	Connections int
	// Connect is how long a device may take to send CONNECT, and the broker to
	// answer it (10 s). Write is for how long either may not take what is written
	// to it (30 s).
	Connect, Write time.Duration
}

func (l *Limits) setDefaults() {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&l.Packet, 256<<10)
	set(&l.Delivery, 1<<20)
	set(&l.Exchanges, 64)
	set(&l.Connections, 16)
	if l.Connect == 0 {
		l.Connect = 10 * time.Second
	}
	if l.Write == 0 {
		l.Write = 30 * time.Second
	}
}

// A Server is the MQTT side of a gateway.
type Server struct {
	config   Config
	contacts contacts

	mu           sync.Mutex
	closing      bool                        // guarded by mu
	listeners    map[*saef.Listener]bool     // guarded by mu
	associations map[*association]bool       // guarded by mu
	sessions     map[onem2m.KmID]*keySession // guarded by mu
	running      sync.WaitGroup
}

// keySession is what one master key has at the broker.
type keySession struct {
	connections int
	lasting     []string // ClientIDs whose sessions outlive a connection
}

// New checks the configuration.
func New(c Config) (*Server, error) {
	if c.Rules == nil || !c.CSE.IsAbsolute() {
		return nil, errors.New("mqttgw: Rules and an absolute CSE are needed")
	}
	if _, _, err := net.SplitHostPort(c.Broker.Address); err != nil {
		return nil, errors.New("mqttgw: Broker.Address is no host:port")
	}
	if c.CSENames == nil {
		c.CSENames = []string{c.CSE.ID, ":" + c.CSE.ID}
	}
	if len(c.CSENames) == 0 || slices.ContainsFunc(c.CSENames, func(s string) bool { return !isName(s) }) {
		return nil, errors.New("mqttgw: CSENames has none, or one that is no identifier in a topic")
	}
	if c.Broker.Contact == "" {
		c.Broker.Contact = "mqtt://" + c.Broker.Address
	}
	for _, s := range []string{c.Broker.Contact, c.Public} {
		u, err := url.Parse(s)
		if s != "" && (err != nil || u.Scheme != "mqtt" && u.Scheme != "mqtts" || s != u.Scheme+"://"+u.Host || u.Host == "") {
			return nil, errors.New("mqttgw: Broker.Contact or Public is not such as mqtt://broker.example.com:1883")
		}
	}
	c.Limits.setDefaults()
	if c.Recorder == nil {
		c.Recorder = access.Discard{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		config:       c,
		contacts:     contacts{broker: c.Broker.Contact, public: c.Public},
		listeners:    make(map[*saef.Listener]bool),
		associations: make(map[*association]bool),
		sessions:     make(map[onem2m.KmID]*keySession),
	}, nil
}

// Associations returns how many there are.
func (s *Server) Associations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.associations)
}

// Serve accepts associations on l, which it closes in the end. It returns nil
// after Shutdown.
func (s *Server) Serve(l *saef.Listener) error {
	defer l.Close()
	if !s.track(l, true) {
		return nil
	}
	defer s.track(l, false)
	for {
		conn, err := l.AcceptAssociation()
		if err != nil {
			if s.isClosing() {
				return nil
			}
			return err
		}
		a := newAssociation(s, conn, conn.Association())
		if !s.begin(a) {
			conn.Close()
			return nil
		}
		go func() {
			defer s.end(a)
			a.run()
		}()
	}
}

// Shutdown stops accepting, reads no more from devices, and waits until the
// requests under way are answered or ctx ends. Then it closes the associations.
// Their wills are not published: it is not the devices that fail. It returns
// ctx's error when requests were left unanswered.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for a := range s.associations {
		a.device.conn.SetReadDeadline(time.Unix(1, 0)) // see association.fromDevice
	}
	s.mu.Unlock()

	err := s.drained(ctx)
	s.mu.Lock()
	for a := range s.associations {
		go a.end(errShutdown, false) // a broker that is stuck holds each up
	}
	s.mu.Unlock()
	s.running.Wait()
	return err
}

// drained waits until no request is under way.
func (s *Server) drained(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.underWay() > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

func (s *Server) underWay() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a := range s.associations {
		n += a.toCSE.len()
	}
	return n
}

func (s *Server) track(l *saef.Listener, add bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if add && s.closing {
		return false
	}
	if add {
		s.listeners[l] = true
	} else {
		delete(s.listeners, l)
	}
	return true
}

func (s *Server) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

func (s *Server) begin(a *association) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.associations[a] = true
	s.running.Add(1)
	return true
}

func (s *Server) end(a *association) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.associations, a)
	s.running.Done()
}

// admit counts a connection of a master key, and the session that it asks for,
// or reports that there are too many. Without a bound a device could fill the
// broker with sessions.
func (s *Server) admit(id onem2m.KmID, clientID string, clean bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.sessions[id]
	if k == nil {
		k = new(keySession)
		s.sessions[id] = k
	}
	lasting := slices.Index(k.lasting, clientID)
	if k.connections >= s.config.Limits.Connections ||
		!clean && lasting < 0 && len(k.lasting) >= s.config.Limits.Connections {
		return false
	}
	k.connections++
	if clean && lasting >= 0 {
		k.lasting = slices.Delete(k.lasting, lasting, lasting+1)
	} else if !clean && lasting < 0 {
		k.lasting = append(k.lasting, clientID)
	}
	return true
}

// leave is the end of an admitted connection.
func (s *Server) leave(id onem2m.KmID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.sessions[id]
	if k.connections--; k.connections == 0 && len(k.lasting) == 0 {
		delete(s.sessions, id)
	}
}
