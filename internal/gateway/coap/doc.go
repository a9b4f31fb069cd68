// Package coap is the Constrained Application Protocol over datagrams: RFC 7252
// with observation (RFC 7641) and block-wise transfer (RFC 7959), strict enough
// to stand between two parties that do not trust each other.
//
//	e := coap.NewEndpoint(coap.Config{Send: send, Handle: handle})
//	for { n, err := conn.Read(b); ...; e.Receive(b[:n]) }
//	answer, err := e.Do(ctx, &coap.Message{Code: coap.GET, Options: options})
//
// An Endpoint is one end of one pair of endpoints and, CoAP being symmetric, client
// and server at once. It has no socket and no goroutine of its own: datagrams come in
// through Receive and go out through Config.Send, and it holds timers only while
// something is outstanding. So an idle one costs a few hundred octets.
//
// # What is refused
//
// A message has one encoding here: Parse then Append gives back the octets. What RFC
// 7252 leaves to a recipient's kindness is refused instead, because the next parser may
// be kind in another way: an option that may stand once and stands twice, one longer
// than its definition, text that is no UTF-8 or holds a NUL. Unknown critical options are
// refused and unknown elective ones dropped, as section 5.4.1 has it.
package coap
