package adminserver

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/onem2m-maf/maf/internal/adminapi"
)

// Keyset is what the API does with the keyset. The methods are those of
// adminapi.Admin, which says what each does; refusals are *adminapi.Error.
type Keyset interface {
	Describe(ctx context.Context) (adminapi.Keyset, error)
	Add(ctx context.Context) (adminapi.KeysetKey, error)
	Promote(ctx context.Context, id uint32) error
	Retire(ctx context.Context, id uint32) error
	Protect(ctx context.Context) error
	StartRewrap(ctx context.Context, rate int) (adminapi.Rewrap, error)
	Rewrap() adminapi.Rewrap
}

// keysetRoutes adds the methods under /v1/keyset.
func (s *server) keysetRoutes(mux *http.ServeMux) {
	mux.Handle("GET /v1/keyset", handle(s, http.StatusOK, s.keyset))
	mux.Handle("POST /v1/keyset/keys", handle(s, http.StatusCreated, s.addKeysetKey))
	mux.Handle("POST /v1/keyset/keys/{id}/promote", handle(s, http.StatusNoContent, s.promote))
	mux.Handle("DELETE /v1/keyset/keys/{id}", handle(s, http.StatusNoContent, s.retire))
	mux.Handle("POST /v1/keyset/protect", handle(s, http.StatusNoContent, s.protect))
	mux.Handle("POST /v1/keyset/rewrap", handle(s, http.StatusAccepted, s.startRewrap))
	mux.Handle("GET /v1/keyset/rewrap", handle(s, http.StatusOK, s.rewrap))
}

func (s *server) keyset(r *http.Request) (adminapi.Keyset, error) {
	return s.Keyset.Describe(r.Context())
}

func (s *server) addKeysetKey(r *http.Request) (adminapi.KeysetKey, error) {
	key, err := s.Keyset.Add(r.Context())
	if err == nil {
		s.Log.Info("keyset: key added", "id", key.ID)
	}
	return key, err
}

func (s *server) promote(r *http.Request) (none, error) {
	id, err := keysetID(r)
	if err == nil {
		err = s.Keyset.Promote(r.Context(), id)
	}
	if err == nil {
		s.Log.Info("keyset: key promoted", "id", id)
	}
	return none{}, err
}

func (s *server) retire(r *http.Request) (none, error) {
	id, err := keysetID(r)
	if err == nil {
		err = s.Keyset.Retire(r.Context(), id)
	}
	if err == nil {
		s.Log.Info("keyset: key retired", "id", id)
	}
	return none{}, err
}

func (s *server) protect(r *http.Request) (none, error) {
	err := s.Keyset.Protect(r.Context())
	if err == nil {
		s.Log.Info("keyset: file written anew, protected as configured")
	}
	return none{}, err
}

func (s *server) startRewrap(r *http.Request) (answer adminapi.Rewrap, err error) {
	var asked adminapi.NewRewrap
	if err := readJSON(r, &asked); err != nil {
		return answer, err
	}
	if asked.Rate == 0 {
		asked.Rate = adminapi.DefaultRewrapRate
	}
	if asked.Rate < 1 || asked.Rate > adminapi.MaxRewrapRate {
		return answer, invalid(fmt.Sprintf("rate is not a number from 1 to %d", adminapi.MaxRewrapRate))
	}
	return s.Keyset.StartRewrap(r.Context(), asked.Rate)
}

func (s *server) rewrap(*http.Request) (adminapi.Rewrap, error) { return s.Keyset.Rewrap(), nil }

// keysetID reads the number of a key, which is written in one way only.
func keysetID(r *http.Request) (uint32, error) {
	text := r.PathValue("id")
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || strconv.FormatUint(id, 10) != text {
		return 0, invalid("a key of the keyset is named by a number")
	}
	return uint32(id), nil
}
