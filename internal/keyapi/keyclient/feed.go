package keyclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// ErrNoFeed: the MAF's key API tells of no revocations.
var ErrNoFeed = errors.New("the MAF's key API has no feed of revocations")

// errPosition: the MAF can't go on from where we are.
var errPosition = errors.New("the MAF no longer knows this position in its feed of revocations")

// A Feed follows the revocations of one MAF. It keeps its position when the
// connection is lost: what is revoked meanwhile comes when the MAF is back. One
// goroutine uses it at a time.
type Feed struct {
	c     *Client
	maf   onem2m.FQDN
	after int64 // position; negative for none
	doubt bool  // the last request failed
}

// Feed returns a feed that has no position yet.
func (c *Client) Feed(maf onem2m.FQDN) *Feed { return &Feed{c: c, maf: maf, after: -1} }

// Reset forgets the position, so that Next starts over.
func (f *Feed) Reset() { f.after = -1 }

// Next waits for revocations, and returns without any after some seconds in which
// there were none. Call it again and again; after an error, not at once.
//
// When startOver is true, the feed has just got a position, for the first time or
// because the MAF no longer knew the old one. Every key that was fetched before
// the call may have been revoked: ask for each again.
//
// Its errors wrap ErrNoFeed, ErrUnknownMAF or ErrUnavailable.
func (f *Feed) Next(ctx context.Context) (list []keyapi.Revocation, startOver bool, err error) {
	if f.doubt && f.after >= 0 {
		// A question that is answered at once tells whether the MAF is back.
		_, err := f.poll(ctx, -1)
		f.doubt = err != nil
		return nil, false, err
	}
	startOver = f.after < 0
	answer, err := f.poll(ctx, f.after)
	if errors.Is(err, errPosition) && !startOver {
		startOver = true
		answer, err = f.poll(ctx, -1)
	}
	if err == nil && len(answer.List) > 0 && answer.Next <= f.after && !startOver {
		err = fmt.Errorf("%w: its feed of revocations does not go on", ErrUnavailable) // it would tell the same for ever
	}
	if f.doubt = err != nil; f.doubt {
		return nil, false, err
	}
	f.after = answer.Next
	for _, r := range answer.List {
		// One MAF of several must not end what is another's.
		if r.KmID.FQDN == f.maf {
			list = append(list, r)
		}
	}
	return list, startOver, nil
}

func (f *Feed) poll(ctx context.Context, after int64) (answer *keyapi.Revocations, err error) {
	r := request{
		path: keyapi.RevocationsQuery(after), most: keyapi.MaxRevocationsAnswer,
		wait: keyapi.RevocationsWait,
		decode: func(response *http.Response, body []byte) (err error) {
			answer, err = decodeRevocations(response, body)
			return err
		},
	}
	if err := f.c.ask(ctx, f.maf, r); err != nil {
		return nil, err
	}
	return answer, nil
}

func decodeRevocations(response *http.Response, body []byte) (*keyapi.Revocations, error) {
	// A MAF without a feed may not even say so in JSON.
	if response.StatusCode == http.StatusNotFound {
		return nil, ErrNoFeed
	}
	if err := checkType(response); err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusOK:
		return keyapi.DecodeRevocations(body)
	case http.StatusGone:
		if response.Request.URL.RawQuery != "" {
			return nil, errPosition
		}
	}
	return nil, unexpected(response, body)
}
