// Package access is what the gateway's bindings tell about each request that
// they have decided on: one Entry, from which the access log and the metrics are
// made.
package access

import (
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

// An Entry is one request of a device, or one that the CSE sent to a device.
// No field holds a key. From and To are what the peer sent, bounded in length,
// and may hold any octets when Refused.
type Entry struct {
	Binding string // "http", "coap" or "mqtt"
	// Peer is who was authenticated: an AE-ID, CSE-ID or Credential-ID.
	Peer string
	KcID onem2m.KcID
	// ToDevice is set when the CSE was the one who asked.
	ToDevice            bool
	Operation, From, To string
	// Status is what the asker got: the CSE's answer, or the gateway's own.
	// 0 when nobody was there to be answered.
	Status onem2m.ResponseStatusCode
	// Refused says that the CSE has not seen the request, and Reason why: a rule
	// that forbids it, or a CSE that can't be reached. Reason is for the log.
	Refused  bool
	Reason   string
	Duration time.Duration
	// In and Out are the octets of content from and to the asker.
	In, Out int64
}

// A Recorder takes entries. Record is called once for each request, from any
// goroutine, and must not block.
type Recorder interface {
	Record(Entry)
}

// Discard is a Recorder that forgets.
type Discard struct{}

// Record does nothing.
func (Discard) Record(Entry) {}
