// Package gateway is the program mafgw: Entity B of TS-0003 8.2.2.3 in front of
// a CSE that knows nothing of associations. It accepts them, gets Kc from the MAF,
// and lets a request through only when its originator is the one who was
// authenticated (TS-0003 7.2.1, TS-0004 7.3.2.1).
//
// This package puts the parts together: configuration, state, certificates, log
// and metrics. The work is done by package saef (handshakes, keys, revocations),
// policy (who may say what) and the bindings httpgw, coapgw and mqttgw.
package gateway
