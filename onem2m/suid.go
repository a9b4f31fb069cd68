package onem2m

import "strconv"

// SUID is a Security Usage Identifier: what a key or certificate is for
// (TS-0004 6.3.4.2.39). It travels as a number.
type SUID int

// The usages that concern a MAF and its clients.
const (
	SUIDMAFPreProvisioned SUID = 11 // a pre-provisioned symmetric key for a MAF
	SUIDMAFRSPF           SUID = 21 // a symmetric key for a MAF, provisioned through an RSPF
	SUIDSAEF              SUID = 32 // a MAF-distributed key for an association (SAEF)
	SUIDESPrim            SUID = 33 // a MAF-distributed key for end-to-end secured primitives
	SUIDESData            SUID = 34 // a MAF-distributed key for end-to-end secured data
	SUIDESData2           SUID = 35 // another for end-to-end secured data
	SUIDMEFCert           SUID = 40 // a certificate towards a MEF
	SUIDMAFCert           SUID = 41 // a certificate towards a MAF
	SUIDSAEFCert          SUID = 42 // a certificate for an association (SAEF)
)

// String returns the number.
func (s SUID) String() string { return strconv.Itoa(int(s)) }
