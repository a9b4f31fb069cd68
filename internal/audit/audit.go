// Package audit keeps the log of what was done with keys, and by whom: one line
// of JSON for each event, chained by hashes, in a file and over syslog.
//
// # What the chain proves
//
// Each line ends in a hash over the hash before it and the line itself. Somebody
// who changes, removes, adds or moves lines, and leaves the rest, is found out by
// Verify, which names the line. The hash has no key: who can write the file can
// also compute it, so he can write a whole log anew, or leave off its end, and it
// verifies. Against him helps only what is out of his reach: a head, the hash of
// some line, that was noted elsewhere. So heads go to mafd's own log again and
// again, and all lines go over syslog where that is configured. A log that holds
// a head is, up to there, the one from which the head was taken.
//
// A key beside the log, in reach of the same attacker, would add nothing to this.
//
// # Writing
//
// One goroutine writes. Events that come while it writes go together next, with
// one fsync. An event counts as written when one sink has it. When none has,
// Config.Refuse says what then.
package audit

import (
	"time"
)

// An Event is one thing that happened. No field may ever hold a secret.
type Event struct {
	Seq  uint64    // its number in the log, from 1; the log's to give
	Time time.Time // when it was recorded; the log's to give
	Kind Kind
	// Who did it: Actor is a KmID, a CSE-ID, a user, as Role says.
	Role  Role
	Actor string
	// What it was done to: a KmID, a KcID, a CSE-ID, a file.
	Subject string
	// EntityB is the CSE-ID that a key is for.
	EntityB string
	Remote  string // the network address that it came from
	Outcome Outcome
	Reason  string // why it was refused, or what there is to know beside
	// Count is how many there were, in events that stand for many.
	Count uint64
	// Prev is the hash before this line, in the first line of each file.
	Prev string
}

// A Kind says what happened.
type Kind string

const (
	Start  Kind = "mafd.start"
	Stop   Kind = "mafd.stop"
	Reload Kind = "mafd.reload"

	// Handshake is a MAF Handshake. OK: the device proved its Km and Kc was
	// committed. One that fails after that has a second line.
	Handshake Kind = "handshake"

	Release          Kind = "key.release" // of Kc to an Entity B
	RevokeKey        Kind = "key.revoke"
	RefuseEntityB    Kind = "entity-b.refuse" // for what is in its certificate
	IssueCertificate Kind = "entity-b.issue"

	AddClient     Kind = "client.add"
	ChangeClient  Kind = "client.change"
	EnableClient  Kind = "client.enable"
	DisableClient Kind = "client.disable"
	RemoveClient  Kind = "client.remove"

	// ImportClient is one client of a file, ExportKeys the beginning of an answer
	// with master keys.
	ImportClient Kind = "client.import"
	ExportKeys   Kind = "client.export-keys"

	AddKeysetKey     Kind = "keyset.add"
	PromoteKeysetKey Kind = "keyset.promote"
	RetireKeysetKey  Kind = "keyset.retire"
	ProtectKeyset    Kind = "keyset.protect"
	RewrapKeys       Kind = "keyset.rewrap" // the beginning of it

	RefuseAdmin Kind = "admin.refuse"

	// File begins each file. Count is how many lines before it are in other
	// sinks only.
	File Kind = "audit.file"
	// Gap stands for Count events that were dropped since its time.
	Gap Kind = "audit.gap"
	// Unlisted stands for Count failures that strangers caused in a short time.
	Unlisted Kind = "audit.unlisted"
	// SinkChange says that a sink failed or works again.
	SinkChange Kind = "audit.sink"
)

// A Role says what kind of party an actor is.
type Role string

const (
	System   Role = "system"   // mafd itself
	Device   Role = "device"   // proved its Km; named by its KmID
	EntityB  Role = "entity-b" // showed its certificate; named by its CSE-ID
	Admin    Role = "admin"    // named by its user number
	Unproven Role = "unproven" // named as it called itself, which anybody can
)

// An Outcome says how it ended.
type Outcome string

const (
	// Intended is recorded before a change is made, so that none is made that
	// the log can't hold. The line with what became of it follows.
	Intended Outcome = "intended"
	OK       Outcome = "ok"
	Refused  Outcome = "refused" // with a Reason
	Failed   Outcome = "failed"  // by our own fault; it may have been done or not
)
