//go:build !maf_leaky_identity

package tlspsk

// deriveDecoyKeys does for an unknown identity what deriveKeys does for a known
// one. It stands apart so that a test can put the naive way in its place
// (leaky_test.go, which no program can contain), and show that it would notice.
func (h *handshaker) deriveDecoyKeys(decoy, shared []byte) error {
	return h.deriveKeys(decoy, shared)
}
