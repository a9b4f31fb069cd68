// Package mafd is the MAF's daemon: its configuration, its first start, its
// listeners and how they hang together. What is right and wrong is decided
// elsewhere: keys in package authority, the protocol in package tlspsk.
package mafd
