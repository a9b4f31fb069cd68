// Package matrix holds the verdicts of the identity rules for every kind of
// peer, form of originator and operation, for the tests of the rules and of
// each binding.
package matrix

import (
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// A Peer is one kind of association.
type Peer struct {
	Name        string // as in the table: "ae", "cse", ...
	Association saef.Association
}

// An Operation is one kind of request.
type Operation struct {
	Name      string // as in the table: "create-ae", "retrieve", ...
	Operation policy.Operation
	Type      int    // resource type of a CREATE, else 0
	To        string // a target that every binding can carry
	Content   string // JSON, "" when the request has none
}

// A Row is one combination and its verdict.
type Row struct {
	Peer      Peer
	Form      string // the name of the originator form
	From      string
	HasFrom   bool
	Operation Operation
	// Status is 0 when the request is allowed, else what the peer gets.
	Status onem2m.ResponseStatusCode
	// Origin is the originator that the CSE must see; "" when refused.
	Origin string
	Clause string
}

// Config returns the configuration that the table presupposes. Its CSE is
// //sp.example.com/in-cse; the KmIds of the peers are under maf.example.com.
func Config() policy.Config { return policy.Config{} }

// Peers returns all kinds of peers.
func Peers() []Peer { return nil }

// Rows returns the whole table.
func Rows() ([]Row, error) { return nil, nil }
