// Package cost measures what a handshake costs a server: processor time of the
// server's process, user and system, divided by the handshakes that it did.
// Each server does the MAF's job (handshake, export of 48 octets, close) and is
// watched from outside, so that ours and others' are measured alike.
//
// It has benchmarks only:
//
//	go test -run '^$' -bench . -benchtime 8000x ./internal/cost
package cost
