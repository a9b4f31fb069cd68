// Package policy decides which originator a request may name, given who was
// authenticated: the rules of TS-0003 7.2.1 and TS-0004 7.3.2.1 for the CSE that
// is the registrar of the peers. docs/gateway-rules.md tells them to readers, and
// internal/gateway/matrix lists every verdict.
//
// Where the standard leaves a choice, the rules take what no peer can use to
// speak as another:
//
//   - The CSE never gets an originator as the peer wrote it, but as parsed and
//     written anew, in one form for each identity.
//   - An identity that differs from another one in letter case only is that
//     other one's: there are CSEs whose database ignores case.
//   - A wildcard lets a peer register; it never lets it speak as an AE that it
//     has not registered.
//   - What a peer once registered stays its own, also when the AE is deleted,
//     since access rules may still name it.
package policy

import (
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/onem2m"
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

// Resource types (TS-0004 6.3.4.2.1) that have rules of their own.
const (
	typeAE        = 2
	typeCSEBase   = 5
	typeDelivery  = 6
	typeRemoteCSE = 16
	typeRequest   = 17
)

// A Request is what the rules need to know of a request.
type Request struct {
	Operation Operation
	Type      int // the resource type of a CREATE (2 AE, 16 remoteCSE); else of no account
	From      string
	HasFrom   bool
	To        string           // normalised: what the CSE will be sent
	Content   *primitive.Value // the body, nil when there is none
}

func (r *Request) registersAE() bool { return r.Operation == Create && r.Type == typeAE }

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
	Reason string // for the log only; it quotes nothing that the peer wrote
}

// A refusal is why a request does not go on.
type refusal struct {
	status onem2m.ResponseStatusCode
	reason string
}

func (r *refusal) verdict() Verdict { return Verdict{Status: r.status, Reason: r.reason} }

func malformed(reason string) *refusal {
	return &refusal{onem2m.StatusBadRequest, reason}
}

func notAuthenticated(reason string) *refusal {
	return &refusal{onem2m.StatusOriginatorNotAuthenticated, reason}
}
