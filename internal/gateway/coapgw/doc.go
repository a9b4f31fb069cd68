// Package coapgw is the gateway's CoAP binding (TS-0008): devices speak CoAP through
// associations over DTLS, and the CSE behind gets from the gateway what the policy allows.
//
// No octet of a device's request is passed on. It is read strictly, in either of the
// dialects of option numbers that devices use; checked; and written anew from the checked
// parts in the dialect that the CSE wants. So no CSE can find another originator in it than
// the gateway did.
//
//	backend, err := coapgw.NewBackend(coapgw.BackendConfig{Address: "127.0.0.1:5683"})
//	server, err := coapgw.New(coapgw.Config{Rules: rules, Backend: backend})
//	err = server.Serve(listener) // a saef.Listener over "udp"
//
// A *httpgw.Backend will do as well: CoAP devices in front of an HTTP CSE.
//
// CoAP is symmetric, and so is this package. What the CSE asks of a device, above all its
// notifications, comes in clear to Config.Notifications and goes to the device over its
// own association, which may stand behind any NAT. The addresses that a device gives for
// that purpose ("poa", "nu") are replaced on the way to the CSE by the gateway's.
package coapgw
