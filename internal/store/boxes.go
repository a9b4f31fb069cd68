package store

import "time"

// BoxCount tells about the sealed boxes that begin alike, as those do that were
// sealed with the same key of a keyset.
type BoxCount struct {
	Prefix string // the octets that they begin with
	Count  int
	// Last is the latest expiry among keys; zero for clients.
	Last time.Time
}
