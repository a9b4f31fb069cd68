// Package mqttgw is the gateway's MQTT binding (TS-0010). Devices speak MQTT
// 3.1.1 through associations; behind stands a broker that the CSE is connected
// to. Each association has a connection of its own to the broker, so sessions,
// subscriptions, wills and the states of QoS 1 and 2 are the broker's, and
// packet identifiers pass through unchanged.
//
//	server, err := mqttgw.New(mqttgw.Config{Rules: rules, CSE: cse, Broker: mqttgw.Broker{Address: "127.0.0.1:1883"}})
//	err = server.Serve(listener)
//
// No octet of a device's is passed on. Every packet is read strictly and written
// anew, and so is the primitive in it:
//
//   - A device publishes requests on topics of its own identity to the CSE, in
//     which "fr" is what package policy allows, and responses to requests that it
//     was sent. Anything else is acknowledged, as MQTT wants, and dropped; a
//     request is answered with a response primitive that says why.
//   - Request identifiers get a prefix on their way to the CSE that is the
//     device's own, and lose it in the response: a CSE that answers a repeated
//     identifier from its memory gives no device another one's answer.
//   - A device subscribes to topics that nobody but the CSE publishes to for it.
//     Other filters fail with 0x80. What the broker delivers is checked again.
//   - ClientIDs begin with the authenticated identity, so no device can take over
//     another's session. User name and password are the gateway's.
//   - Addresses for notifications become the broker's, as the CSE knows it.
//   - Only JSON is let through: there is no second parser here for XML or CBOR.
//   - RETAIN is cleared: a broker would hand a retained request to the CSE again
//     each time that it subscribes. A will is policed as if it were published at
//     once.
//
// The broker has to keep others out: whoever else can publish on it can speak as
// anybody.
//
// AE-ID stems and CSE-IDs share one name space in topics ("/CSE1" and the AE
// "CSE1" are both "CSE1", TS-0010 6.4). No peer can have the name of the CSE
// behind the gateway; that no AE-ID is the CSE-ID of another registree is for the
// operator to see to.
package mqttgw
