// Package onem2m reads and writes the identifiers and codes of oneM2M that an
// M2M Authentication Function and its peers exchange: KmID, KcID, KpsaID,
// Credential-ID, M2M-SP-ID, CSE-ID, AE-ID, SUID, m2m:timestamp and response
// status codes.
//
// # One value, one encoding
//
// Identifiers decide who gets which key, so two texts must never name the same
// thing by surprise, nor one text two things. Every type here is a comparable
// value: two identifiers are the same exactly when == says so. Parsers accept
// one encoding per value and refuse white space, control characters, anything
// outside ASCII, percent-encoding and empty parts. The standard's only
// freedoms, the letter case of host names, of a KmId and of hexBinary, are
// folded while parsing, so that
//
//	ParseX(s).String() == s
//
// holds for every s that a parser accepts, save for those letters' case.
//
// Types are values without hidden state: a value built by hand rather than by a
// parser is only as good as its parts, and its String may not parse.
//
// # Text
//
// All identifiers implement [encoding.TextMarshaler] and
// [encoding.TextUnmarshaler], so that they stand in JSON, TOML and flags as
// their text. As with [net/netip.Addr], the zero value, which means "none",
// encodes as the empty text and the empty text decodes to it; the Parse
// functions refuse the empty text.
//
// Clause numbers in this package are those of oneM2M TS-0003 (Release 3) where
// no other document is named.
package onem2m
