// Package store says what the MAF asks of whatever keeps its master keys and
// its Kcs: two small roles, each with its contract. Package storetest checks an
// implementation against them; package sqlstore is the embedded one.
//
// A store sees identifiers, times and sealed boxes. It never sees a key, and it
// isn't trusted with who gets one: the boxes are bound to the fields beside
// them (see internal/authority), so that a changed row no longer opens.
//
// # What every method promises
//
// Durability: when a method that changes something returns nil, the change is
// on stable storage and survives the loss of power. When it returns an error,
// the change may have been made or not, unless the error is one of this
// package's, which all mean that nothing was changed. A caller whose context
// ends stops waiting; what it asked for may still happen.
//
// Consistency: what a method returned nil for is seen by every call that starts
// after it returned, in every process that shares the store.
//
// Concurrency: all methods may be called at any time from any goroutine.
//
// Times are whole seconds: fractions are cut off on the way in. The octets of a
// sealed box belong to nobody and everybody: neither the store nor its callers
// ever write to them, and both may keep them.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

// Errors of the contracts. They come wrapped; compare with errors.Is. Each
// means that the call changed nothing.
var (
	// ErrExists: the identifier is taken.
	ErrExists = errors.New("store: exists already")
	// ErrNotFound: nothing is stored under the identifier.
	ErrNotFound = errors.New("store: not found")
	// ErrConflict: the record is not the one that the caller read: somebody
	// changed or replaced it in between. Read again, and decide again.
	ErrConflict = errors.New("store: changed in between")
	// ErrGone: the log of revocations no longer has, or does not have yet, what
	// the caller wants to go on from.
	ErrGone = errors.New("store: not in the log")
)

// MaxPage is the most records that one page of a list holds.
const MaxPage = 1000

// A UID tells one registration of a KmID from the next: a number drawn at random
// when the client is added. Keys issued to a client that was removed carry the
// old UID, so they stay dead when the same KmID is added again.
type UID int64

// Client is a device's master key and association configuration.
type Client struct {
	KmID onem2m.KmID
	UID  UID
	// Version counts the record's changes; it is the store's: Add begins with 1
	// and each Update adds 1.
	Version int64
	IdB     onem2m.CSEID // absolute
	// AEID and CSEID are the device's own identity; at most one is set.
	AEID     onem2m.AEID
	CSEID    onem2m.CSEID
	Lifetime time.Duration // of each Kc
	Disabled bool
	Created  time.Time
	Updated  time.Time
	SealedKm []byte
}

// ClientStore keeps clients by KmID.
type ClientStore interface {
	// Add stores a new client with Version 1, whatever c.Version says. When its
	// KmID is taken it returns ErrExists.
	Add(ctx context.Context, c Client) error

	// Get returns the client, or ErrNotFound.
	Get(ctx context.Context, id onem2m.KmID) (Client, error)

	// List returns up to limit clients (at most MaxPage; 0 means MaxPage) whose
	// KmID comes after the given one, in ascending order of KmID.String() by
	// octets. The zero KmID comes before all. An answer shorter than the limit
	// is the last page. Clients that are there from the first page to the last
	// are listed exactly once, whatever is added and removed in between. With an
	// error there may be some of the page's clients, which are as good as any.
	List(ctx context.Context, after onem2m.KmID, limit int) ([]Client, error)

	// Update replaces the record that has c's KmID, UID and Version by c, with
	// Version one higher, in one atomic step. ErrNotFound: there is no such KmID.
	// ErrConflict: there is, but with another UID or Version. UID and Created
	// stay as they were.
	//
	// In the same step it logs a Revocation when what was told of the client's
	// keys is no longer true: the record that is replaced is enabled, and c is
	// disabled or has another IdB, AEID or CSEID.
	Update(ctx context.Context, c Client) error

	// Remove removes the client that has this KmID and UID, in whatever version,
	// and logs a Revocation in the same step.
	// ErrNotFound: there is no such KmID. ErrConflict: it has another UID.
	// The client's keys stay, see KeyStore.RemoveByClient.
	Remove(ctx context.Context, id onem2m.KmID, uid UID) error

	// Boxes counts the clients by the first octets of their boxes, as many as
	// prefix says. Clients that come, go or change meanwhile may or may not be
	// counted. It holds nobody up, and may take time in proportion to the number
	// of all clients.
	Boxes(ctx context.Context, prefix int) ([]BoxCount, error)
}

// Key is one Kc and what was decided about it when it was issued. It never
// changes.
type Key struct {
	ID       onem2m.KcID
	KmID     onem2m.KmID  // whom it was issued to; its FQDN is the ID's
	UID      UID          // the client's
	IdB      onem2m.CSEID // whom it may be released to; absolute
	Expires  time.Time
	SealedKc []byte
}

// A Revocation is a line in the log of what Entity Bs must forget: one Kc, or all
// that the MAF has told about a client's.
type Revocation struct {
	// Seq is the store's: each is one more than the one before.
	Seq  int64
	IdB  onem2m.CSEID // whom it is for
	KmID onem2m.KmID
	KcID onem2m.KcID // zero: all keys of KmID
}

// KeepRevocations is how many revocations the log keeps. A reader who is further
// behind must start over, so the number only decides how often that happens.
const KeepRevocations = 1 << 16

// KeyStore keeps Kcs until they expire. Keys are written once, by thousands a
// second, read a few times and then purged.
type KeyStore interface {
	// Commit stores a new key. It returns nil only when the key is on stable
	// storage: the MAF's Finished leaves on its word. Calls that wait at the
	// same time share one write to the disk.
	//
	// When the ID's relative part is taken, even under another FQDN, even by a
	// key that has expired, it returns ErrExists and the stored key stays.
	Commit(ctx context.Context, k Key) error

	// Get returns the key, expired or not, or ErrNotFound.
	Get(ctx context.Context, id onem2m.KcID) (Key, error)

	// Purge removes keys that expired at or before the given time, and is made
	// to be called again and again: one call looks at a bounded number of keys,
	// so that it holds nobody up for more than some milliseconds. It returns how
	// many it removed and whether this call ended a round over the whole store;
	// the next call begins a new round.
	//
	// A key that expired before a round began is gone when the round ends.
	Purge(ctx context.Context, now time.Time) (removed int, done bool, err error)

	// RemoveByClient removes the keys that were issued to this registration of
	// the client and were committed before the call. It goes in bounded steps,
	// other calls come in between, and it may take time in proportion to the
	// number of all keys. When it fails, some are removed.
	RemoveByClient(ctx context.Context, id onem2m.KmID, uid UID) (removed int, err error)

	// Boxes is ClientStore.Boxes for the keys that expire after the given time.
	Boxes(ctx context.Context, after time.Time, prefix int) ([]BoxCount, error)

	// Revoke removes the key, and logs a Revocation for its IdB in the same step.
	// ErrNotFound: there is no such key.
	Revoke(ctx context.Context, id onem2m.KcID) error

	// Revocations returns up to limit revocations (at most MaxPage; 0 means
	// MaxPage) whose Seq is greater than after, in ascending order, without gaps:
	// once a reader has seen one, none comes up before it. ErrGone: some after
	// that were dropped, or none that high was ever logged.
	Revocations(ctx context.Context, after int64, limit int) ([]Revocation, error)

	// LastRevocation returns the Seq of the newest revocation, 0 when there never
	// was one. It is cheap.
	LastRevocation(ctx context.Context) (int64, error)
}
