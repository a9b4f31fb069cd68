// Package keyapi is what passes between the MAF's key API and the Entity Bs
// that ask it for Kc: one path and one JSON object, over HTTPS with
// certificates on both sides. docs/key-api.yaml describes it to implementers of
// other Entity Bs; package keyserver is the MAF's side and package keyclient
// Entity B's.
//
// The standard leaves this channel open (TS-0003 8.2.2.3) except for what it
// carries: Kc, its lifetime and KmId, and A's CSE-ID or AE-ID when the MAF knows
// it. The names of the members are the standard's.
package keyapi

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

const (
	// ContentType of every answer.
	ContentType = "application/json"
	// MaxAnswer is more octets than any answer has.
	MaxAnswer = 4096
	// KcLen is the length of Kc in octets (10.3.1).
	KcLen = 32

	pathPrefix = "/v1/keys/"
)

// Path returns the path of a key: "/v1/keys/{MAF-FQDN}/{RelativeKcId}". The
// FQDN has a segment of its own so that one key API can serve several MAFs.
func Path(id onem2m.KcID) string {
	return pathPrefix + id.FQDN.String() + "/" + id.Relative.String()
}

// ParsePath is the inverse of Path, for the path as it came, still escaped.
// Letters may be of either case, as everywhere in a KcId.
func ParsePath(escaped string) (onem2m.KcID, bool) {
	rest, ok := strings.CutPrefix(escaped, pathPrefix)
	if !ok {
		return onem2m.KcID{}, false
	}
	fqdn, relative, ok := strings.Cut(rest, "/")
	if !ok {
		return onem2m.KcID{}, false
	}
	id, err := onem2m.ParseKcID(relative + "@" + fqdn)
	return id, err == nil
}

// Key is the answer of the key API: what Entity B learns of a Kc.
type Key struct {
	KcID onem2m.KcID
	Kc   secret.Key // KcLen octets
	// Expires is when Kc ends by the MAF's clock, in whole seconds.
	Expires time.Time
	// Lifetime is what was left of Kc when the MAF answered, in whole seconds,
	// at least one. It spares Entity B from having the MAF's time of day.
	Lifetime time.Duration
	KmID     onem2m.KmID
	SUID     onem2m.SUID
	// At most one of these is set: A's own identity when the MAF knows it,
	// absolute.
	AEID  onem2m.AEID
	CSEID onem2m.CSEID
}

// wireKey is Key as JSON has it. Encode and Decode agree on it, and
// docs/key-api.yaml with both.
type wireKey struct {
	KcID           onem2m.KcID  `json:"KcID"`
	Kc             []byte       `json:"Kc"` // base64, standard alphabet, padded
	ExpirationTime string       `json:"expirationTime"`
	Lifetime       int64        `json:"lifetime"`
	KmID           onem2m.KmID  `json:"KmID"`
	SUID           onem2m.SUID  `json:"SUID"`
	AEID           onem2m.AEID  `json:"AE-ID,omitzero"`
	CSEID          onem2m.CSEID `json:"CSE-ID,omitzero"`
}

// check holds for both directions: what a key must be to open an association.
func (k *Key) check() error {
	switch {
	case k.KcID.IsZero():
		return errors.New("no KcID")
	case k.Kc.Len() != KcLen:
		return fmt.Errorf("a Kc of %d octets, not %d", k.Kc.Len(), KcLen)
	case k.Lifetime < time.Second:
		return errors.New("no lifetime is left")
	case k.KmID.IsZero():
		return errors.New("no KmID")
	case k.KmID.FQDN != k.KcID.FQDN:
		// One of several MAFs that Entity B trusts must not pass its devices off
		// as another's.
		return errors.New("KmID and KcID are of different MAFs")
	case k.SUID != onem2m.SUIDSAEF:
		return fmt.Errorf("SUID %v, not %v: the key is not for an association", k.SUID, onem2m.SUIDSAEF)
	case !k.AEID.IsZero() && !k.CSEID.IsZero():
		return errors.New("both an AE-ID and a CSE-ID")
	case !k.AEID.IsZero() && !k.AEID.IsAbsolute():
		return errors.New("the AE-ID is not absolute")
	case !k.CSEID.IsZero() && !k.CSEID.IsAbsolute():
		return errors.New("the CSE-ID is not absolute")
	}
	return nil
}

// Encode returns the answer's JSON, which holds Kc in the clear.
func (k *Key) Encode() ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("key to release: %w", err)
	}
	return json.Marshal(wireKey{
		KcID:           k.KcID,
		Kc:             k.Kc.Bytes(),
		ExpirationTime: onem2m.FormatTimestamp(k.Expires),
		Lifetime:       int64(k.Lifetime / time.Second),
		KmID:           k.KmID,
		SUID:           k.SUID,
		AEID:           k.AEID,
		CSEID:          k.CSEID,
	})
}

// maxLifetime bounds what a Lifetime may say, well before it overflows a
// time.Duration.
const maxLifetime = 100 * 365 * 24 * time.Hour

// Decode reads an answer. Members that it does not know are ignored, so that a
// later MAF can add some; known ones must be there, once and well formed.
// Errors never quote the answer, which may hold a key.
func Decode(body []byte) (*Key, error) {
	members, err := members(body)
	if err != nil {
		return nil, err
	}
	var w struct {
		wireKey
		Kc string // as text, to be strict about its base64
	}
	for _, m := range []struct {
		name     string
		dst      any
		optional bool
	}{
		{"KcID", &w.KcID, false},
		{"Kc", &w.Kc, false},
		{"expirationTime", &w.ExpirationTime, false},
		{"lifetime", &w.Lifetime, false},
		{"KmID", &w.KmID, false},
		{"SUID", &w.SUID, false},
		{"AE-ID", &w.AEID, true},
		{"CSE-ID", &w.CSEID, true},
	} {
		raw, ok := members[m.name]
		switch {
		case !ok && m.optional:
		case !ok:
			return nil, fmt.Errorf("the answer has no %s", m.name)
		// null and "" would pass as the absence of a value.
		case string(raw) == "null" || string(raw) == `""` || json.Unmarshal(raw, m.dst) != nil:
			return nil, fmt.Errorf("the answer's %s is malformed", m.name)
		}
	}
	kc, err := base64.StdEncoding.Strict().DecodeString(w.Kc)
	if err != nil || strings.ContainsAny(w.Kc, "\r\n") { // which base64 skips
		return nil, errors.New("the answer's Kc is malformed")
	}
	expires, err := onem2m.ParseTimestamp(w.ExpirationTime)
	if err != nil {
		return nil, errors.New("the answer's expirationTime is malformed")
	}
	if w.Lifetime > int64(maxLifetime/time.Second) {
		return nil, errors.New("the answer's lifetime is out of range")
	}
	k := &Key{
		KcID: w.KcID, Kc: secret.Own(kc), Expires: expires, Lifetime: time.Duration(w.Lifetime) * time.Second,
		KmID: w.KmID, SUID: w.SUID, AEID: w.AEID, CSEID: w.CSEID,
	}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("the answer is unusable: %w", err)
	}
	return k, nil
}

// members splits a JSON object. encoding/json alone would take "kc" for "Kc"
// and the last of two equal names.
func members(body []byte) (map[string]json.RawMessage, error) {
	malformed := errors.New("the answer is not one JSON object")
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, malformed
	}
	found := make(map[string]json.RawMessage)
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, malformed
		}
		name := t.(string) // the Decoder lets nothing else stand here
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, malformed
		}
		if _, twice := found[name]; twice {
			return nil, errors.New("the answer has a member twice")
		}
		found[name] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, malformed
	}
	if d.More() || len(bytes.TrimSpace(body[d.InputOffset():])) > 0 {
		return nil, malformed
	}
	return found, nil
}

// Problem is the body of every answer but 200.
type Problem struct {
	Error string `json:"error"`
}
