package keyapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

const (
	// RevocationsPath is where Entity B follows its revocations.
	RevocationsPath = "/v1/revocations"
	// RevocationsWait is how long the MAF keeps an asker waiting for whom there
	// is nothing new. Short enough that a connection which died in silence, as
	// those behind a NAT do, is soon noticed.
	RevocationsWait = 5 * time.Second
	// MaxRevocations is the most that one answer holds.
	MaxRevocations = 256
	// MaxRevocationsAnswer is more octets than such an answer has.
	MaxRevocationsAnswer = 1 << 20
)

// A Revocation says that what Entity B learned before of one Kc, or of all that
// were issued to a client, is not true any more. It may be that the key is dead,
// or that its device has another identity now: Entity B forgets what it has, ends
// the associations, and asks again when the key is named again.
type Revocation struct {
	KmID onem2m.KmID
	KcID onem2m.KcID // zero: all of KmID's
}

// Revocations is an answer: what is new after the position that was asked for.
type Revocations struct {
	// Next is the position to go on from.
	Next int64
	List []Revocation
}

// RevocationsQuery returns the path and query for what is new after a position.
// A negative one asks for the current position and gets no revocations.
func RevocationsQuery(after int64) string {
	if after < 0 {
		return RevocationsPath
	}
	return RevocationsPath + "?after=" + strconv.FormatInt(after, 10)
}

// ParseRevocationsQuery is the inverse of RevocationsQuery, for the query alone.
func ParseRevocationsQuery(query string) (after int64, err error) {
	if query == "" {
		return -1, nil
	}
	values, err := url.ParseQuery(query)
	if err != nil || len(values) != 1 || len(values["after"]) != 1 {
		return 0, errors.New("the query is not of the form after=NUMBER")
	}
	// ParseUint takes no sign.
	n, err := strconv.ParseUint(values["after"][0], 10, 63)
	if err != nil {
		return 0, errors.New("after is not a position")
	}
	return int64(n), nil
}

type wireRevocations struct {
	Next        int64            `json:"next"`
	Revocations []wireRevocation `json:"revocations"`
}

type wireRevocation struct {
	KmID onem2m.KmID `json:"KmID"`
	KcID onem2m.KcID `json:"KcID,omitzero"`
}

func (r Revocation) check() error {
	switch {
	case r.KmID.IsZero():
		return errors.New("a revocation of nobody's key")
	case !r.KcID.IsZero() && r.KcID.FQDN != r.KmID.FQDN:
		return errors.New("KmID and KcID are of different MAFs")
	}
	return nil
}

// Encode returns the answer's JSON.
func (r *Revocations) Encode() ([]byte, error) {
	w := wireRevocations{Next: r.Next, Revocations: make([]wireRevocation, len(r.List))}
	for i, one := range r.List {
		if err := one.check(); err != nil {
			return nil, err
		}
		w.Revocations[i] = wireRevocation(one)
	}
	return json.Marshal(w)
}

// DecodeRevocations reads an answer as strictly as Decode does.
func DecodeRevocations(body []byte) (*Revocations, error) {
	top, err := members(body)
	if err != nil {
		return nil, err
	}
	r := &Revocations{Next: -1}
	if raw := top["next"]; string(raw) == "null" || json.Unmarshal(raw, &r.Next) != nil || r.Next < 0 {
		return nil, errors.New("the answer's next is missing or malformed")
	}
	var list []json.RawMessage
	if json.Unmarshal(top["revocations"], &list) != nil || list == nil || len(list) > MaxRevocations {
		return nil, errors.New("the answer's revocations are missing or malformed")
	}
	for _, raw := range list {
		one, err := decodeRevocation(raw)
		if err != nil {
			return nil, err
		}
		r.List = append(r.List, one)
	}
	return r, nil
}

func decodeRevocation(raw json.RawMessage) (r Revocation, err error) {
	m, err := members(raw)
	if err != nil {
		return r, err
	}
	// An identifier that is there and unreadable must not pass as one that isn't:
	// without its KcID a revocation means all keys, without KmID nobody's.
	if json.Unmarshal(m["KmID"], &r.KmID) != nil {
		return r, errors.New("the answer's KmID is missing or malformed")
	}
	if id, ok := m["KcID"]; ok && (json.Unmarshal(id, &r.KcID) != nil || r.KcID.IsZero()) {
		return r, errors.New("the answer's KcID is malformed")
	}
	if err := r.check(); err != nil {
		return r, fmt.Errorf("the answer is unusable: %w", err)
	}
	return r, nil
}
