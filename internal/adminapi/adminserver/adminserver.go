// Package adminserver answers the admin API of package adminapi.
package adminserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/strictjson"
	"github.com/onem2m-maf/maf/onem2m"
)

// maxBody bounds a request: the longest client is some hundred octets.
const maxBody = 64 << 10

// entityBLife is how long an Entity B's certificate is good for when the
// request doesn't say.
const entityBLife = 365 * 24 * time.Hour

// Clients is what the API does with clients. *authority.Authority is one, and
// says what each method does. Keys that AddClient is given and returns are the
// API's, which wipes them when it has answered.
type Clients interface {
	AddClient(ctx context.Context, c authority.Client, km secret.Key) (authority.Client, secret.Key, error)
	Client(ctx context.Context, id onem2m.KmID) (authority.Client, error)
	ListClients(ctx context.Context, after onem2m.KmID, limit int) ([]authority.Client, error)
	UpdateClient(ctx context.Context, id onem2m.KmID, change func(*authority.Client) error) (authority.Client, error)
	RemoveClient(ctx context.Context, id onem2m.KmID) error
	RevokeKey(ctx context.Context, id onem2m.KcID) error
	ImportClient(ctx context.Context, in authority.Import) (authority.Outcome, error)
	ListMasterKeys(ctx context.Context, after onem2m.KmID, limit int) ([]authority.Client, []secret.Key, error)
}

// Config is what the API stands on. The key that IssueEntityB returns is the
// API's, to be wiped. All fields are set, save for IssueEntityB,
// which is nil when another authority vouches for Entity Bs, and those about the
// export of keys.
type Config struct {
	Clients      Clients
	Keyset       Keyset // nil: there is none to administer
	IssueEntityB func(ctx context.Context, id onem2m.CSEID, life time.Duration) (adminapi.EntityB, error)
	Status       func() adminapi.Runtime
	// Lifetimes of Kc: for clients that come without one, and the bounds for
	// those that come with one.
	DefaultLifetime, MinLifetime, MaxLifetime time.Duration
	// AllowKeyExport lets callers export master keys. BeforeKeyExport, when not
	// nil, is told of each such request before the first key leaves, and stops it
	// with an error.
	AllowKeyExport  bool
	BeforeKeyExport func(context.Context) error
	// Denied, when not nil, is told of each request of somebody who may not
	// administer mafd; see Caller.
	Denied func(context.Context)
	Log    *slog.Logger
}

// Handler returns the API as an HTTP handler, which answers whoever reaches it;
// NewServer's keeps others out.
func Handler(c Config) http.Handler {
	s := &server{c}
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", handle(s, http.StatusOK, s.status))
	mux.Handle("POST /v1/clients", handle(s, http.StatusCreated, s.add))
	mux.Handle("GET /v1/clients", handle(s, http.StatusOK, s.list))
	mux.HandleFunc("POST /v1/clients:import", s.importClients)
	mux.HandleFunc("GET /v1/clients:export", s.exportClients)
	mux.Handle("GET /v1/clients/{id}", handle(s, http.StatusOK, s.get))
	mux.Handle("PATCH /v1/clients/{id}", handle(s, http.StatusOK, s.change))
	mux.Handle("DELETE /v1/clients/{id}", handle(s, http.StatusNoContent, s.remove))
	mux.Handle("DELETE /v1/keys/{id}", handle(s, http.StatusNoContent, s.revoke))
	mux.Handle("POST /v1/entity-b", handle(s, http.StatusCreated, s.addEntityB))
	if s.Keyset != nil {
		s.keysetRoutes(mux)
	}
	mux.Handle("/", handle(s, http.StatusNotFound, s.unknown))
	return mux
}

type server struct{ Config }

// none is the answer of a method that has nothing to say.
type none struct{}

// handle makes an http.Handler of a function that reads the request and
// returns the answer or the reason for a refusal.
func handle[T any](s *server, status int, f func(*http.Request) (T, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store") // answers hold keys
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		answer, err := f(r)
		if err != nil {
			s.refuse(w, r, err)
			return
		}
		if _, ok := any(answer).(none); ok {
			w.WriteHeader(status)
			return
		}
		writeJSON(w, status, answer)
		wipe(answer)
	})
}

// wipe wipes the keys in an answer, once it is on its way.
func wipe(answer any) {
	switch a := answer.(type) {
	case adminapi.CreatedClient:
		a.Km.Wipe()
	case adminapi.EntityB:
		a.Key.Wipe()
	}
}

func writeJSON(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(answer) // a caller who went away has no use for the error
}

// refuse tells the caller why, and the log when it is our fault.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := refusal(err)
	if e.Code == adminapi.CodeInternal {
		s.Log.Error("admin request failed", "method", r.Method, "path", r.URL.Path, "error", err.Error())
	}
	writeJSON(w, e.Status, e)
}

// refusal gives an error its status, its code and words for the caller.
func refusal(err error) *adminapi.Error {
	var own *adminapi.Error
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, authority.ErrInvalid):
		return invalid(err.Error())
	case errors.Is(err, authority.ErrUnknownClient):
		return &adminapi.Error{Status: http.StatusNotFound, Code: adminapi.CodeNotFound, Text: "there is no such client"}
	case errors.Is(err, authority.ErrNoKey):
		return &adminapi.Error{Status: http.StatusNotFound, Code: adminapi.CodeNotFound, Text: "there is no such key; it may have expired"}
	case errors.Is(err, authority.ErrExists):
		return &adminapi.Error{Status: http.StatusConflict, Code: adminapi.CodeExists, Text: "there is a client of that KmID already"}
	case errors.Is(err, authority.ErrDiffers):
		return &adminapi.Error{Status: http.StatusConflict, Code: adminapi.CodeDiffers, Text: err.Error()}
	case errors.Is(err, authority.ErrBusy):
		return &adminapi.Error{Status: http.StatusConflict, Code: adminapi.CodeBusy, Text: err.Error()}
	default:
		return &adminapi.Error{Status: http.StatusInternalServerError, Code: adminapi.CodeInternal,
			Text: "mafd failed to do it; its log says why"}
	}
}

func invalid(text string) *adminapi.Error {
	return &adminapi.Error{Status: http.StatusBadRequest, Code: adminapi.CodeInvalid, Text: text}
}

func (s *server) unknown(r *http.Request) (none, error) {
	return none{}, &adminapi.Error{Status: http.StatusNotFound, Code: adminapi.CodeNotFound,
		Text: fmt.Sprintf("mafd has no method %s %q; is maf as new as mafd?", r.Method, r.URL.Path)}
}

func (s *server) status(*http.Request) (adminapi.Runtime, error) { return s.Status(), nil }

func (s *server) add(r *http.Request) (answer adminapi.CreatedClient, err error) {
	var asked adminapi.NewClient
	defer func() { asked.Km.Wipe() }() // also of half a request
	if err := readJSON(r, &asked); err != nil {
		return answer, err
	}
	if asked.Lifetime == 0 {
		asked.Lifetime = adminapi.Duration(s.DefaultLifetime)
	}
	if err := s.checkLifetime(time.Duration(asked.Lifetime)); err != nil {
		return answer, err
	}
	made, km, err := s.Clients.AddClient(r.Context(), authority.Client{
		KmID:     asked.KmID,
		IdB:      asked.EntityB,
		AEID:     asked.AEID,
		CSEID:    asked.CSEID,
		Lifetime: time.Duration(asked.Lifetime),
		Disabled: asked.Disabled,
	}, asked.Km.Key)
	if err != nil {
		return answer, err
	}
	s.Log.Info("client added", "KmID", made.KmID.String(), "IdB", made.IdB.String())
	answer.Client = wire(made)
	if asked.Km.IsZero() {
		answer.Km = adminapi.Key{Key: km}
	}
	return answer, nil
}

func (s *server) checkLifetime(d time.Duration) error {
	if d < s.MinLifetime || d > s.MaxLifetime {
		return invalid(fmt.Sprintf("the Kc lifetime %v is outside of what mafd allows, %v to %v (keys.min_lifetime, keys.max_lifetime)",
			adminapi.Duration(d), adminapi.Duration(s.MinLifetime), adminapi.Duration(s.MaxLifetime)))
	}
	return nil
}

func (s *server) get(r *http.Request) (answer adminapi.Client, err error) {
	id, err := pathID(r)
	if err != nil {
		return answer, err
	}
	c, err := s.Clients.Client(r.Context(), id)
	return wire(c), err
}

func (s *server) change(r *http.Request) (answer adminapi.Client, err error) {
	id, err := pathID(r)
	if err != nil {
		return answer, err
	}
	var asked adminapi.ClientChange
	if err := readJSON(r, &asked); err != nil {
		return answer, err
	}
	changed, err := s.Clients.UpdateClient(r.Context(), id, func(c *authority.Client) error {
		return s.apply(c, asked)
	})
	if err != nil {
		return answer, err
	}
	s.Log.Info("client changed", "KmID", id.String(), "IdB", changed.IdB.String(), "disabled", changed.Disabled)
	return wire(changed), nil
}

// apply changes c as asked.
func (s *server) apply(c *authority.Client, asked adminapi.ClientChange) error {
	if asked.EntityB != nil {
		c.IdB = *asked.EntityB
	}
	if asked.AEID != nil {
		c.AEID = *asked.AEID
	}
	if asked.CSEID != nil {
		c.CSEID = *asked.CSEID
	}
	if asked.Lifetime != nil {
		c.Lifetime = time.Duration(*asked.Lifetime)
		if c.Lifetime == 0 {
			c.Lifetime = s.DefaultLifetime
		}
		if err := s.checkLifetime(c.Lifetime); err != nil {
			return err
		}
	}
	if asked.Disabled != nil {
		c.Disabled = *asked.Disabled
	}
	return nil
}

func (s *server) remove(r *http.Request) (none, error) {
	id, err := pathID(r)
	if err != nil {
		return none{}, err
	}
	if err := s.Clients.RemoveClient(r.Context(), id); err != nil {
		return none{}, err
	}
	s.Log.Info("client removed", "KmID", id.String())
	return none{}, nil
}

func (s *server) revoke(r *http.Request) (none, error) {
	id, err := onem2m.ParseKcID(r.PathValue("id"))
	if err != nil {
		return none{}, invalid(err.Error())
	}
	if err := s.Clients.RevokeKey(r.Context(), id); err != nil {
		return none{}, err
	}
	s.Log.Info("key revoked", "KcID", id.String())
	return none{}, nil
}

func (s *server) addEntityB(r *http.Request) (answer adminapi.EntityB, err error) {
	var asked adminapi.NewEntityB
	if err := readJSON(r, &asked); err != nil {
		return answer, err
	}
	switch {
	case s.IssueEntityB == nil:
		return answer, &adminapi.Error{Status: http.StatusConflict, Code: adminapi.CodeNotAuthority,
			Text: "this mafd trusts the authority in keyapi.client_ca, not its own; have that one issue a client certificate with the CSE's domain name in subjectAltName"}
	case !asked.CSEID.IsAbsolute():
		return answer, invalid("the CSE-ID must be absolute, such as //sp.example.com/in-cse")
	case asked.Lifetime < 0:
		return answer, invalid("the certificate's lifetime is below zero")
	}
	life := time.Duration(asked.Lifetime)
	if life == 0 {
		life = entityBLife
	}
	answer, err = s.IssueEntityB(r.Context(), asked.CSEID, life)
	if own := (*adminapi.Error)(nil); errors.As(err, &own) {
		return answer, err
	}
	if err != nil {
		return answer, invalid(err.Error()) // it may not outlive the authority
	}
	s.Log.Info("entity B certificate issued", "CSEID", asked.CSEID.String(), "until", answer.NotAfter.UTC())
	return answer, nil
}

func pathID(r *http.Request) (onem2m.KmID, error) {
	id, err := onem2m.ParseKmID(r.PathValue("id"))
	if err != nil {
		return id, invalid(err.Error())
	}
	return id, nil
}

// readJSON reads the body into v, strictly.
func readJSON(r *http.Request, v any) error {
	data, err := io.ReadAll(r.Body)
	defer clear(data) // it may hold a key
	if err == nil {
		err = strictjson.Unmarshal(data, v)
	}
	if err != nil {
		// Parsers of keys don't quote them, and a syntax error names an offset.
		return invalid("the request is not as it should be: " + err.Error())
	}
	return nil
}

func wire(c authority.Client) adminapi.Client {
	return adminapi.Client{
		KmID:     c.KmID,
		EntityB:  c.IdB,
		AEID:     c.AEID,
		CSEID:    c.CSEID,
		Lifetime: adminapi.Duration(c.Lifetime),
		Disabled: c.Disabled,
		Created:  c.Created.UTC(),
	}
}
