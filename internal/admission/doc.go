// Package admission decides who may begin a handshake when many want to.
//
// Anybody may begin one, it costs the server memory and time, and nobody is
// known before its end. So each of the things below is bounded by configuration
// alone, whatever is sent from wherever:
//
//   - Handshakes under way. When the house is full, a [Gate] lets newcomers in
//     all the same, and one of those inside has to go that has been there for
//     long, preferably from a source that has many of them there. So those who
//     hold many handshakes open, or one for long, are in each other's way;
//     honest clients, who are fast, get in and get through. When all inside are
//     fast, newcomers wait instead, which is not for long. There is no limit per
//     source unless configured, since it would hurt a city behind one address.
//   - Handshakes that fail. A source whose handshakes fail on and on is refused
//     before its next, as long as its bucket of [Buckets] is empty.
//
// Nothing here goes by the identity that a client claims. Anybody can claim any,
// so a limit on that would be a way to lock its owner out. What a client may do
// that has proved its identity is another matter; [Buckets] bound that too.
package admission
