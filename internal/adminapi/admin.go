package adminapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
)

// maxAnswer bounds an answer: a page of the longest clients is below it.
const maxAnswer = 16 << 20

// Why a mafd could not be asked at all.
var (
	ErrNotRunning = errors.New("no mafd answers there")
	ErrNoAccess   = errors.New("the socket is another user's")
)

// Admin calls a mafd's admin API. It is safe for concurrent use.
type Admin struct {
	socket string
	http   http.Client
}

// Open returns an Admin for the mafd at the given Unix socket. It does not
// connect yet.
func Open(socket string) *Admin {
	dialer := net.Dialer{Timeout: 5 * time.Second}
	return &Admin{socket, http.Client{
		Timeout: 5 * time.Minute, // removing a client goes over all keys
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			IdleConnTimeout: time.Second,
		},
	}}
}

// Status asks what mafd serves.
func (a *Admin) Status(ctx context.Context) (Runtime, error) {
	return call[Runtime](ctx, a, "GET", "/v1/status", nil)
}

// Add provisions a client. The answer holds Km when the request did not.
// It fails with CodeExists when there is a client of that KmID.
func (a *Admin) Add(ctx context.Context, c NewClient) (CreatedClient, error) {
	return call[CreatedClient](ctx, a, "POST", "/v1/clients", c)
}

// Get returns one client, or fails with CodeNotFound.
func (a *Admin) Get(ctx context.Context, id onem2m.KmID) (Client, error) {
	return call[Client](ctx, a, "GET", clientPath(id), nil)
}

// Change changes a client, or fails with CodeNotFound. It takes effect before
// Change returns.
func (a *Admin) Change(ctx context.Context, id onem2m.KmID, change ClientChange) (Client, error) {
	return call[Client](ctx, a, "PATCH", clientPath(id), change)
}

// Remove removes a client, or fails with CodeNotFound. Once it returns, none of
// the client's Kcs is released any more.
func (a *Admin) Remove(ctx context.Context, id onem2m.KmID) error {
	_, err := call[struct{}](ctx, a, "DELETE", clientPath(id), nil)
	return err
}

// RevokeKey ends one Kc, or fails with CodeNotFound. Once it returns, the key is
// not released any more; its Entity B is told at once.
func (a *Admin) RevokeKey(ctx context.Context, id onem2m.KcID) error {
	_, err := call[struct{}](ctx, a, "DELETE", "/v1/keys/"+url.PathEscape(id.String()), nil)
	return err
}

// Page returns at most limit clients that the filter lets through, in order of
// KmID, from the first after the given one; limit 0 means DefaultPage. A page may
// have fewer, even none, and yet not be the last: go by its Next.
func (a *Admin) Page(ctx context.Context, f Filter, after onem2m.KmID, limit int) (ClientPage, error) {
	query := f.query()
	if !after.IsZero() {
		query.Set("after", after.String())
	}
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	return call[ClientPage](ctx, a, "GET", "/v1/clients?"+query.Encode(), nil)
}

// All returns every client that the filter lets through and that comes after the
// given KmID, in order of KmID, fetched page by page: clients that come or go
// meanwhile may or may not be among them, all others are, once. An error is the
// last element.
func (a *Admin) All(ctx context.Context, f Filter, after onem2m.KmID) iter.Seq2[Client, error] {
	return func(yield func(Client, error) bool) {
		after := after // for each time that it is ranged over
		for {
			page, err := a.Page(ctx, f, after, MaxPage)
			if err != nil {
				yield(Client{}, err)
				return
			}
			for _, c := range page.Clients {
				if !yield(c, nil) {
					return
				}
			}
			if page.Next.IsZero() {
				return
			}
			after = page.Next
		}
	}
}

// AddEntityB has mafd's own authority issue a certificate. It fails with
// CodeNotAuthority when mafd is configured with another authority.
func (a *Admin) AddEntityB(ctx context.Context, b NewEntityB) (EntityB, error) {
	return call[EntityB](ctx, a, "POST", "/v1/entity-b", b)
}

func clientPath(id onem2m.KmID) string { return "/v1/clients/" + url.PathEscape(id.String()) }

// call sends body, if any, as JSON and reads an answer of type T. A refusal is
// an *Error.
func call[T any](ctx context.Context, a *Admin, method, path string, body any) (answer T, err error) {
	var content io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return answer, err
		}
		content = bytes.NewReader(data)
	}
	// The host is for HTTP's form only: the socket is where it goes.
	req, err := http.NewRequestWithContext(ctx, method, "http://mafd"+path, content)
	if err != nil {
		return answer, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return answer, a.unreachable(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return answer, fmt.Errorf("reading mafd's answer: %w", err)
	}
	defer clear(data) // it may hold a key
	if resp.StatusCode >= 300 {
		return answer, refusal(resp.StatusCode, data)
	}
	if len(data) > 0 {
		err = json.Unmarshal(data, &answer)
	}
	return answer, err
}

func refusal(status int, data []byte) error {
	var e Error
	if json.Unmarshal(data, &e) != nil || e.Text == "" {
		return fmt.Errorf("the admin socket answered HTTP status %d and no reason: is it mafd's?", status)
	}
	return &e
}

// unreachable tells a mafd that isn't there from other trouble.
func (a *Admin) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w", a.socket, ErrNotRunning)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w", a.socket, ErrNoAccess)
	}
	// Without the request's address that url.Error adds: it is made up.
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	return fmt.Errorf("asking mafd at %s: %w", a.socket, err)
}
