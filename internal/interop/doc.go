// Package interop holds the tests of tlspsk, and of what is built on it,
// against other people's software. It has no code of its own: see the tests, and
// package peers for what they talk to.
//
// Every cell of the matrix is one handshake through a relay that records it.
// Both sides then say what they agreed on and what they export; a parser and a
// derivation that share no code with tlspsk say it a third time, from the
// recording.
package interop
