package adminapi

import (
	"context"
	"strconv"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

// Keyset is what the keys in the store are encrypted with.
type Keyset struct {
	// Protection says what the keyset's file is encrypted with, "" for nothing;
	// Configured, what the configuration wants.
	Protection string      `json:"protection"`
	Configured string      `json:"configured"`
	Keys       []KeysetKey `json:"keys"` // the oldest first
	// Unknown is how many rows name a key that the keyset does not have.
	Unknown int    `json:"unknown"`
	Rewrap  Rewrap `json:"rewrap"`
}

// KeysetKey is one key of the keyset, and what needs it.
type KeysetKey struct {
	ID    uint32 `json:"id"`
	State string `json:"state"` // "primary", which seals, or "enabled", which only opens
	// Created is missing for a key of another program's. Demoted is when the key
	// stopped being the primary.
	Created time.Time `json:"created,omitzero"`
	Demoted time.Time `json:"demoted,omitzero"`
	// MasterKeys and ConnectionKeys are how many Km, and Kc that have not expired,
	// are sealed with it, and LastExpiry when the last of the latter expires.
	MasterKeys     int       `json:"masterKeys"`
	ConnectionKeys int       `json:"connectionKeys"`
	LastExpiry     time.Time `json:"lastExpiry,omitzero"`
}

// Rewrap is how far the sealing anew of master keys has come since it began or was
// taken up again. All is zero when there was none since mafd started.
type Rewrap struct {
	Running   bool      `json:"running"`
	Rate      int       `json:"rate,omitzero"` // at most, in a second
	Started   time.Time `json:"started,omitzero"`
	Ended     time.Time `json:"ended,omitzero"`
	Seen      int       `json:"seen"` // clients looked at
	Rewrapped int       `json:"rewrapped"`
	// Failed is how many could not be sealed anew: their rows were damaged or
	// tampered with. FirstFailed is one of them.
	Failed      int         `json:"failed"`
	FirstFailed onem2m.KmID `json:"firstFailed,omitzero"`
	// Trouble is what keeps it from going on for now.
	Trouble string `json:"trouble,omitzero"`
}

// NewRewrap asks for a rewrap.
type NewRewrap struct {
	Rate int `json:"rate,omitzero"` // at most so many in a second; 0 for DefaultRewrapRate
}

// Bounds of NewRewrap.Rate.
const (
	DefaultRewrapRate = 500
	MaxRewrapRate     = 1_000_000
)

// Keyset tells about the keyset and counts who needs its keys, which takes about a
// second for a million.
func (a *Admin) Keyset(ctx context.Context) (Keyset, error) {
	return call[Keyset](ctx, a, "GET", "/v1/keyset", nil)
}

// AddKeysetKey adds a key to the keyset. It seals nothing before it is promoted.
func (a *Admin) AddKeysetKey(ctx context.Context) (KeysetKey, error) {
	return call[KeysetKey](ctx, a, "POST", "/v1/keyset/keys", nil)
}

// PromoteKeysetKey makes a key the one that seals, or fails with CodeNotFound.
func (a *Admin) PromoteKeysetKey(ctx context.Context, id uint32) error {
	_, err := call[struct{}](ctx, a, "POST", keysetKeyPath(id)+"/promote", nil)
	return err
}

// RetireKeysetKey destroys a key, or fails with CodeNotFound, or with CodeInUse
// while anything may still need it.
func (a *Admin) RetireKeysetKey(ctx context.Context, id uint32) error {
	_, err := call[struct{}](ctx, a, "DELETE", keysetKeyPath(id), nil)
	return err
}

// StartRewrap starts to seal anew, with the primary, every master key that is
// sealed with another. It goes on in the background and over restarts. When one
// is running already, it gets the new rate.
func (a *Admin) StartRewrap(ctx context.Context, r NewRewrap) (Rewrap, error) {
	return call[Rewrap](ctx, a, "POST", "/v1/keyset/rewrap", r)
}

// Rewrap tells how far it has come.
func (a *Admin) Rewrap(ctx context.Context) (Rewrap, error) {
	return call[Rewrap](ctx, a, "GET", "/v1/keyset/rewrap", nil)
}

// ProtectKeyset writes the keyset's file anew, encrypted as the configuration says.
func (a *Admin) ProtectKeyset(ctx context.Context) error {
	_, err := call[struct{}](ctx, a, "POST", "/v1/keyset/protect", nil)
	return err
}

func keysetKeyPath(id uint32) string { return "/v1/keyset/keys/" + strconv.FormatUint(uint64(id), 10) }
