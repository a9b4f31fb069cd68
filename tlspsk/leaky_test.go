//go:build maf_leaky_identity

package tlspsk

// deriveDecoyKeys refuses an unknown identity at once, with the right alert, as
// one would do without knowing of timing attacks. TestLeakyBuild has the tests
// run with it. It is in a test's file so that no program can ever contain it.
func (h *handshaker) deriveDecoyKeys(_, _ []byte) error {
	return &AlertError{Alert: AlertBadRecordMAC, Err: ErrUnknownIdentity}
}
