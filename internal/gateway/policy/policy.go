// Package policy decides which originator a request may name, given who was
// authenticated (TS-0003 7.2.1, TS-0004 7.3.2.1).
package policy

import (
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// An Operation is an m2m:operation.
type Operation int

// The operations (TS-0004 6.3.4.2.5).
const (
	Create   Operation = 1
	Retrieve Operation = 2
	Update   Operation = 3
	Delete   Operation = 4
	Notify   Operation = 5
)

// Config says what New needs to know.
type Config struct {
	// CSE is the CSE behind the gateway (IdB), absolute.
	CSE onem2m.CSEID
	// Allowed says who a peer is of whom the MAF knows only the KmId. Such a
	// peer that no Allowance names may do nothing.
	Allowed []Allowance
	// Reserved are AE-ID stems that no peer may use, whatever the MAF or Allowed
	// say, without regard to letter case. Nil means DefaultReserved.
	Reserved []string
	// Memory keeps the AE-IDs that were learned. Nil: they are lost with Rules.
	Memory Memory
}

// An Allowance says who the holders of some master keys may be.
type Allowance struct {
	// KmID is a KmId, in which '*' stands for any characters.
	KmID string
	// AEIDs are AE-ID stems, in which '*' stands for any characters.
	AEIDs []string
	// Most is how many AE-IDs one such KmId may hold; 0 means one.
	Most int
	// CSE is the CSE-ID of the one holder, instead of AEIDs.
	CSE onem2m.CSEID
}

// A Claim says that an AE-ID belongs to a master key.
type Claim struct {
	KmID onem2m.KmID
	AEID onem2m.AEID // absolute
}

// A Memory keeps claims across restarts. Its methods may be called concurrently.
type Memory interface {
	// Load returns all claims. New calls it once.
	Load() ([]Claim, error)
	// Add keeps a claim. When it returns nil the claim is on stable storage.
	Add(Claim) error
	// Remove forgets a claim, as durably.
	Remove(Claim) error
}

// Rules are the identity rules of one CSE. They may be used concurrently.
type Rules struct{}

// New checks the configuration and loads the memory.
func New(c Config) (*Rules, error) { return &Rules{}, nil }

// Peer returns the rules for the other end of one association. It is cheap: to
// be called for each connection.
func (r *Rules) Peer(a saef.Association) *Peer { return &Peer{} }

// A Peer is the other end of one association. It may be used concurrently.
type Peer struct{}

// String returns the peer's identity for logs.
func (p *Peer) String() string { return "" }

// A Request is what the rules need to know of a request.
type Request struct {
	Operation Operation
	Type      int // the resource type of a CREATE (2 AE, 16 remoteCSE), else 0
	From      string
	HasFrom   bool
	To        string           // normalised: what the CSE will be sent
	Content   *primitive.Value // the body, nil when there is none
}

// A Verdict says whether a request may go on to the CSE, and as whose.
type Verdict struct {
	Allowed bool
	// From is the originator that the CSE shall get, in place of the one that
	// the peer wrote; HasFrom is true in every allowed request.
	From    string
	HasFrom bool
	// Learns tells that the CSE's answer decides the peer's AE-ID: the binding
	// must leave out the request's Result Content parameter (rcn), so that the
	// answer holds the AE-ID, and must call Learn before it passes the answer on.
	Learns bool
	// Status is the answer to a refused request.
	Status onem2m.ResponseStatusCode
	Reason string // for the log only
}

// Check decides about one request.
func (p *Peer) Check(r *Request) Verdict {
	return Verdict{Status: onem2m.StatusOriginatorNotAuthenticated, Reason: "not written yet"}
}

// Learn takes note of the CSE's answer to a request that Check allowed: the
// AE-ID that it assigned to a registering AE. It may be called for every
// request. An error is for the log; the answer may be passed on all the same.
func (p *Peer) Learn(r *Request, status onem2m.ResponseStatusCode, content *primitive.Value) error {
	return nil
}
