package gateway

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"

	"github.com/onem2m-maf/maf/internal/gateway/coapgw"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/gateway/mqttgw"
	"github.com/onem2m-maf/maf/saef"
)

// bind makes the bindings that are configured.
func (g *Gateway) bind() error {
	var backend *httpgw.Backend
	if g.config.HTTP.Backend != "" {
		var err error
		if backend, err = g.httpBackend(); err != nil {
			return fmt.Errorf("http: %w", err)
		}
	}
	for _, step := range []struct {
		name   string
		listen []string
		make   func(*httpgw.Backend) (*binding, error)
	}{
		{"http", g.config.HTTP.Listen, g.bindHTTP},
		{"coap", g.config.CoAP.Listen, g.bindCoAP},
		{"mqtt", g.config.MQTT.Listen, g.bindMQTT},
	} {
		if len(step.listen) == 0 {
			continue
		}
		b, err := step.make(backend)
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		b.name = step.name
		g.bindings = append(g.bindings, b)
	}
	return nil
}

func (g *Gateway) httpBackend() (*httpgw.Backend, error) {
	key, err := g.state.derive("request identifiers")
	if err != nil {
		return nil, err
	}
	c := &g.config.HTTP
	b, err := httpgw.NewBackend(httpgw.BackendConfig{
		URL:         c.Backend,
		NoKeepAlive: !c.KeepAlive,
		MaxRequest:  c.MaxRequest,
		MaxResponse: int64(c.MaxResponse),
		MaxConns:    c.MaxConns,
		MaxPolls:    c.MaxPolls,
		MaxIdle:     c.MaxIdle,
		Timeout:     c.Timeout,
		MaxTimeout:  c.MaxTimeout,
		Hidden:      c.Hidden,
		Key:         key,
	})
	if err == nil {
		g.closers = append(g.closers, b.Close)
	}
	return b, err
}

func (g *Gateway) bindHTTP(backend *httpgw.Backend) (*binding, error) {
	contacts, err := g.httpContacts()
	if err != nil {
		return nil, err
	}
	c := &g.config.HTTP
	s, err := httpgw.New(httpgw.Config{
		Rules:     g.rules,
		Backend:   backend,
		Contacts:  contacts,
		Addresses: c.Addresses,
		Public:    c.Public,
		Limits: httpgw.Limits{
			MaxContent:   int64(c.MaxContent),
			ConnsPerPeer: c.ConnsPerDevice,
			IdleTimeout:  c.IdleTimeout,
		},
		Recorder: g.recorder,
		Log:      g.log,
	})
	return &binding{network: "tcp", server: s, associations: s.Conns}, err
}

// httpContacts opens where the CSE sends notifications over HTTP, if anywhere.
func (g *Gateway) httpContacts() (*httpgw.Contacts, error) {
	c := &g.config.HTTP
	if c.Notify == "" {
		return nil, nil
	}
	key, err := g.state.derive("addresses over http")
	if err != nil {
		return nil, err
	}
	contacts, err := httpgw.NewContacts(httpgw.ContactsConfig{
		URL:      c.Notify,
		Networks: c.NotifyNetworks,
		Never:    append(slices.Clip(c.Addresses), hostOf(c.Backend)),
		From:     c.NotifyFrom,
		Key:      key,
		Recorder: g.recorder,
		Log:      g.log,
	})
	if err != nil {
		return nil, err
	}
	g.closers = append(g.closers, contacts.Close)
	for _, address := range c.NotifyListen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return nil, listenError("http.notify_listen", address, err)
		}
		g.sockets = append(g.sockets, l)
		g.contacts = append(g.contacts, func() error { return contacts.Serve(l) })
	}
	return contacts, nil
}

// hostOf returns the host:port of a base URL that was checked.
func hostOf(base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return ""
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80"))
}

func (g *Gateway) bindCoAP(crossing *httpgw.Backend) (*binding, error) {
	var backend coapgw.CSE = crossing
	if g.config.CoAP.Backend != "" {
		b, err := g.coapBackend()
		if err != nil {
			return nil, err
		}
		backend = b
	}
	notifications, err := g.coapNotifications()
	if err != nil {
		return nil, err
	}
	c := &g.config.CoAP
	s, err := coapgw.New(coapgw.Config{
		Rules:         g.rules,
		Backend:       backend,
		Notifications: notifications,
		Limits: coapgw.Limits{
			MaxContent:          c.MaxContent,
			BlockSize:           c.BlockSize,
			AssociationsPerPeer: c.AssociationsPerDevice,
			IdleTimeout:         c.IdleTimeout,
		},
		Recorder: g.recorder,
		Log:      g.log,
	})
	return &binding{network: "udp", server: s, associations: s.Associations}, err
}

func (g *Gateway) coapBackend() (*coapgw.Backend, error) {
	key, err := g.state.derive("request identifiers")
	if err != nil {
		return nil, err
	}
	c := &g.config.CoAP
	b, err := coapgw.NewBackend(coapgw.BackendConfig{
		Address:        c.Backend,
		Dialect:        c.Dialect,
		Release:        c.Release,
		MaxType:        c.MaxType,
		BlockSize:      c.BlockSize,
		MaxRequest:     c.MaxRequest,
		MaxResponse:    c.MaxResponse,
		MaxOutstanding: c.MaxOutstanding,
		NoObserve:      !c.Observe,
		Timeout:        c.Timeout,
		MaxTimeout:     c.MaxTimeout,
		Key:            key,
	})
	if err == nil {
		g.closers = append(g.closers, b.Close)
	}
	return b, err
}

// coapNotifications opens where the CSE sends notifications over CoAP, if
// anywhere.
func (g *Gateway) coapNotifications() (*coapgw.Notifications, error) {
	c := &g.config.CoAP
	if c.Notify == "" {
		return nil, nil
	}
	key, err := g.state.derive("addresses over coap")
	if err != nil {
		return nil, err
	}
	n, err := coapgw.NewNotifications(coapgw.NotificationsConfig{
		Address: c.Notify, From: c.NotifyFrom, CSE: g.config.CSE, Dialect: c.Dialect, Key: key,
	})
	if err != nil {
		return nil, err
	}
	for _, address := range c.NotifyListen {
		conn, err := net.ListenPacket("udp", address)
		if err != nil {
			return nil, listenError("coap.notify_listen", address, err)
		}
		g.sockets = append(g.sockets, conn)
		g.contacts = append(g.contacts, func() error { return n.Serve(conn.(*net.UDPConn)) })
	}
	return n, nil
}

// broker reads what the gateway needs to be a client of the broker.
func (m *MQTTConfig) broker() (mqttgw.Broker, error) {
	b := mqttgw.Broker{Address: m.Broker, Username: m.Username, Contact: m.Contact}
	if m.PasswordFile != "" {
		text, err := os.ReadFile(m.PasswordFile)
		defer clear(text)
		if err != nil {
			return b, fmt.Errorf("password_file: %w", err)
		}
		b.Password = saef.NewSecret(bytes.TrimRight(text, "\r\n"))
	}
	return b, nil
}

func (g *Gateway) bindMQTT(*httpgw.Backend) (*binding, error) {
	c := &g.config.MQTT
	broker, err := c.broker()
	if err != nil {
		return nil, err
	}
	s, err := mqttgw.New(mqttgw.Config{
		Rules:    g.rules,
		CSE:      g.config.CSE,
		CSENames: c.CSENames,
		Broker:   broker,
		Public:   c.Public,
		Limits:   mqttgw.Limits{Packet: c.MaxPacket, Delivery: c.MaxDelivery, Connections: c.ConnsPerDevice},
		Recorder: g.recorder,
		Log:      g.log,
	})
	return &binding{network: "tcp", server: s, associations: s.Associations}, err
}
