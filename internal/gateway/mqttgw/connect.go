package mqttgw

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// connect takes the device's CONNECT and opens the session at the broker. When
// the device is not to be served it has been told so.
func (a *association) connect() error {
	a.device.conn.SetReadDeadline(time.Now().Add(a.limits.Connect))
	p, err := mqtt.Read(a.device.r, a.limits.Packet)
	if errors.Is(err, mqtt.ErrProtocol) {
		return a.refuseConnect(mqtt.UnacceptableProtocol, err)
	}
	if err != nil {
		return err
	}
	c, ok := p.(*mqtt.Connect)
	if !ok {
		return fmt.Errorf("%v before CONNECT", p.Type())
	}
	if c.ClientID == "" && !c.CleanSession {
		return a.refuseConnect(mqtt.IdentifierRejected, errors.New("no ClientID for a session that lasts"))
	}
	theirs, refused := a.brokerConnect(c)
	if refused != nil {
		a.recordRefusal(refused, c.Will.Payload)
		return a.refuseConnect(mqtt.NotAuthorized, errors.New("a will that may not be published: "+refused.reason))
	}
	id := a.context.KmID
	if !a.server.admit(id, theirs.ClientID, theirs.CleanSession) {
		return a.refuseConnect(mqtt.ServerUnavailable, errors.New("too many connections or sessions of one master key"))
	}
	a.leave = func() { a.server.leave(id) }

	answer, err := a.dial(theirs)
	if err != nil {
		a.log.Error("the broker can't be reached", "error", err)
		return a.refuseConnect(mqtt.ServerUnavailable, err)
	}
	if answer.Code != mqtt.Accepted {
		a.log.Error("the broker refuses the gateway's connection", "code", answer.Code)
		return a.refuseConnect(mqtt.ServerUnavailable, fmt.Errorf("broker: code %d", answer.Code))
	}
	a.keepAlive = time.Duration(c.KeepAlive) * time.Second
	return a.device.send(answer)
}

func (a *association) refuseConnect(code mqtt.ConnackCode, reason error) error {
	if err := a.device.send(&mqtt.Connack{Code: code}); err != nil {
		return err
	}
	return fmt.Errorf("CONNECT refused with %d: %w", code, reason)
}

// brokerConnect makes the CONNECT for the broker out of the device's. The
// device's user name and password mean nothing to the broker, and who the
// device is is known without.
func (a *association) brokerConnect(c *mqtt.Connect) (*mqtt.Connect, *refusal) {
	b := &a.server.config.Broker
	theirs := &mqtt.Connect{
		CleanSession: c.CleanSession, KeepAlive: c.KeepAlive,
		ClientID: clientID(a.context, a.server.config.CSE, c.ClientID),
	}
	if b.Username != "" {
		theirs.HasUsername, theirs.Username = true, b.Username
		theirs.HasPassword, theirs.Password = true, b.Password.Bytes()
	}
	if c.Will == nil {
		return theirs, nil
	}
	t, payload, x, refused := a.fromPeer(c.Will.Topic, c.Will.Payload)
	if refused == nil && (x == nil || x.learn != nil) {
		refused = &refusal{reason: "a will that is a response or a registration"}
	}
	if refused != nil {
		return nil, refused
	}
	a.will = c.Will
	theirs.Will = &mqtt.Will{Topic: t.String(), Payload: payload, QoS: c.Will.QoS}
	return theirs, nil
}

// dial connects to the broker.
func (a *association) dial(c *mqtt.Connect) (*mqtt.Connack, error) {
	dialer := net.Dialer{Timeout: a.limits.Connect}
	conn, err := dialer.DialContext(a.ctx, "tcp", a.server.config.Broker.Address)
	if err != nil {
		return nil, err
	}
	if !a.setBroker(newSide(conn, a.limits.Write)) {
		return nil, net.ErrClosed
	}
	if err := a.broker.send(c); err != nil {
		return nil, err
	}
	conn.SetReadDeadline(time.Now().Add(a.limits.Connect))
	p, err := mqtt.Read(a.broker.r, a.limits.Packet)
	if err != nil {
		return nil, err
	}
	answer, ok := p.(*mqtt.Connack)
	if !ok {
		return nil, fmt.Errorf("broker: %v before CONNACK", p.Type())
	}
	return answer, conn.SetReadDeadline(time.Time{})
}

// clientID returns the ClientID at the broker of a device that calls itself
// given. It begins with the authenticated identity in TS-0010's form, "A::" or
// "C::" and the identifier with ':' for '/', so that no device can reach
// another's session. A device may have several sessions: whatever it calls itself
// other than that, or TS-0010's form of itself, comes after a ';', which no
// identifier has.
func clientID(a saef.Association, cse onem2m.CSEID, given string) string {
	base := identityClientID(a, cse)
	switch {
	case given == base:
		return base
	case given == "":
		random := make([]byte, 16)
		rand.Read(random)
		return base + ";;" + hex.EncodeToString(random)
	case len(given) <= 64 && isName(given):
		return base + ";" + given
	}
	// Anything else would have to be kept from meaning something to the broker.
	sum := sha256.Sum256([]byte(given))
	return base + ";=" + hex.EncodeToString(sum[:16])
}

// identityClientID returns the ClientID of an identity. While the MAF knows no
// AE-ID it is the Credential-ID, whatever AE-ID the CSE assigns: a session
// shall outlive the registration.
func identityClientID(a saef.Association, cse onem2m.CSEID) string {
	form := func(id string) string {
		// SP-relative for those of the CSE's own service provider.
		if rest, ok := strings.CutPrefix(id, "//"+cse.SP.String()+"/"); ok {
			id = rest
		}
		return strings.ReplaceAll(id, "/", ":")
	}
	switch {
	case !a.CSEID.IsZero():
		return "C::" + form(a.CSEID.String())
	case !a.AEID.IsZero():
		return "A::" + form(a.AEID.String())
	}
	return "A::" + a.CredentialID().String()
}
