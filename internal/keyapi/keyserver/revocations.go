package keyserver

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// Feed tells Entity Bs what to forget. *authority.Authority is one. A Releaser
// that is not one has no feed: who asks for it gets 404.
type Feed interface {
	// Revocations waits for what was revoked for idB after a position, until ctx
	// ends, and returns it with the position to go on from; a negative position
	// asks for the current one. authority.ErrStartOver: it can't go on from
	// there. It is called concurrently.
	Revocations(ctx context.Context, idB onem2m.CSEID, after int64, limit int) ([]authority.Revocation, int64, error)
}

// revocations answers as soon as something was revoked, or after a while without.
func (h *handler) revocations(w http.ResponseWriter, r *http.Request, idB onem2m.CSEID) {
	feed, ok := h.keys.(Feed)
	if !ok {
		notFound(w)
		return
	}
	after, err := keyapi.ParseRevocationsQuery(r.URL.RawQuery)
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error())
		return
	}
	// The server's own deadline for reading the request would end the wait: it
	// stays on the connection, and what it ends there ends r.Context too. An error
	// means that there is none.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(keyapi.RevocationsWait + readTimeout))
	ctx, cancel := context.WithTimeout(r.Context(), keyapi.RevocationsWait)
	defer cancel()
	defer context.AfterFunc(h.quit, cancel)() // a server that shuts down keeps nobody waiting

	list, next, err := feed.Revocations(ctx, idB, after, keyapi.MaxRevocations)
	switch {
	case errors.Is(err, authority.ErrStartOver):
		problem(w, http.StatusGone, "this position is not known any more; ask for the current one, and for each key that you hold again")
		return
	case err != nil:
		h.log.Error("key API: cannot tell revocations", "IdB", idB, "error", err)
		unavailable(w)
		return
	}
	answered := keyapi.Revocations{Next: next}
	for _, one := range list {
		answered.List = append(answered.List, keyapi.Revocation(one))
	}
	body, err := answered.Encode()
	if err != nil {
		h.log.Error("key API: cannot tell revocations", "IdB", idB, "error", err)
		unavailable(w)
		return
	}
	if len(list) > 0 {
		h.log.Info("key API: told revocations", "IdB", idB, "count", len(list))
	}
	answer(w, http.StatusOK, body)
}
