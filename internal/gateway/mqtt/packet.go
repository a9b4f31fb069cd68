// Package mqtt reads and writes the control packets of MQTT 3.1.1 (OASIS
// Standard, 29 October 2014), for a gateway that stands between a client and a
// server and must not let one of them read a packet otherwise than the other
// would.
//
// Parsing is strict. What the standard forbids is an error, and so is a second
// encoding of what has another: for every packet that Parse accepts, Append
// gives back the very same octets. Clause numbers in this package are the
// standard's.
package mqtt

// A Type is the type of a control packet (2.2.1).
type Type byte

// The types of control packets.
const (
	TypeConnect Type = iota + 1
	TypeConnack
	TypePublish
	TypePuback
	TypePubrec
	TypePubrel
	TypePubcomp
	TypeSubscribe
	TypeSuback
	TypeUnsubscribe
	TypeUnsuback
	TypePingreq
	TypePingresp
	TypeDisconnect
)

var typeNames = [...]string{
	"reserved", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP",
	"SUBSCRIBE", "SUBACK", "UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT",
}

// String returns the type's name.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return typeNames[0]
}

// flags returns the low four bits of the first octet that go with the type,
// for all but PUBLISH (2.2.2).
func (t Type) flags() byte {
	switch t {
	case TypePubrel, TypeSubscribe, TypeUnsubscribe:
		return 2
	}
	return 0
}

// A Packet is one control packet: a *Connect, *Connack, *Publish, *Ack,
// *Subscribe, *Suback, *Unsubscribe or Signal.
type Packet interface {
	Type() Type
	// appendBody appends what follows the fixed header.
	appendBody(b []byte) []byte
}

// Connect is a client's first packet (3.1). Its protocol is always MQTT 3.1.1.
type Connect struct {
	CleanSession bool
	KeepAlive    uint16 // seconds; 0 is without
	ClientID     string
	Will         *Will // nil: none
	HasUsername  bool
	Username     string
	HasPassword  bool // never without a Username
	Password     []byte
}

// A Will is what the server publishes when the client is lost.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Connack is the server's answer to CONNECT (3.2).
type Connack struct {
	SessionPresent bool // only when Code is Accepted
	Code           ConnackCode
}

// A ConnackCode tells whether a connection is accepted.
type ConnackCode byte

// The codes of 3.2.2.3.
const (
	Accepted ConnackCode = iota
	UnacceptableProtocol
	IdentifierRejected
	ServerUnavailable
	BadCredentials
	NotAuthorized
)

// Publish carries an application message (3.3).
type Publish struct {
	Dup    bool // only with a QoS of 1 or 2
	QoS    byte // 0, 1 or 2
	Retain bool
	Topic  string
	ID     uint16 // 0 exactly when QoS is 0
	// Payload is of any octets, and may be empty.
	Payload []byte
}

// Ack is a packet that has an identifier and nothing else: PUBACK, PUBREC,
// PUBREL, PUBCOMP or UNSUBACK.
type Ack struct {
	Kind Type
	ID   uint16
}

// Subscribe asks for messages (3.8).
type Subscribe struct {
	ID      uint16
	Filters []Filter // at least one
}

// A Filter is a topic filter and the most QoS that messages shall come with.
type Filter struct {
	Topic string
	QoS   byte
}

// Suback answers SUBSCRIBE (3.9): for each filter the QoS, or SubscribeFailure.
type Suback struct {
	ID    uint16
	Codes []byte // at least one
}

// SubscribeFailure in a SUBACK says that the filter is refused.
const SubscribeFailure = 0x80

// Unsubscribe ends subscriptions (3.10).
type Unsubscribe struct {
	ID     uint16
	Topics []string // at least one
}

// Signal is a packet that is its type alone: TypePingreq, TypePingresp or
// TypeDisconnect.
type Signal Type

// Type implements Packet.
func (*Connect) Type() Type { return TypeConnect }

// Type implements Packet.
func (*Connack) Type() Type { return TypeConnack }

// Type implements Packet.
func (*Publish) Type() Type { return TypePublish }

// Type implements Packet.
func (p *Ack) Type() Type { return p.Kind }

// Type implements Packet.
func (*Subscribe) Type() Type { return TypeSubscribe }

// Type implements Packet.
func (*Suback) Type() Type { return TypeSuback }

// Type implements Packet.
func (*Unsubscribe) Type() Type { return TypeUnsubscribe }

// Type implements Packet.
func (s Signal) Type() Type { return Type(s) }
