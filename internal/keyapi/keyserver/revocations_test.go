package keyserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// Positions at which the tests' feed does different things.
const (
	someRevoked = int64(iota)
	nothingRevoked
	startOver
	storeFails
)

func (k keys) Revocations(ctx context.Context, idB onem2m.CSEID, after int64, limit int) ([]authority.Revocation, int64, error) {
	if _, ok := ctx.Deadline(); !ok || limit != keyapi.MaxRevocations {
		k.t.Errorf("asked without a deadline, or for %d", limit)
	}
	switch {
	case after < 0:
		return nil, 7, nil
	case after == someRevoked && idB == inCSE:
		meter := onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"}
		return []authority.Revocation{{KmID: meter}, {KmID: meter, KcID: keyID("1")}}, 2, nil
	case after == startOver:
		return nil, 0, authority.ErrStartOver
	case after == storeFails:
		return nil, 0, errors.New("disk on fire")
	}
	<-ctx.Done()
	return nil, after, nil
}

func TestRevocations(t *testing.T) {
	w := newWorld(t)
	b := w.client(t, w.ca.issue(t, named("in-cse.sp.example.com")))
	meter := `"KmID":"meter7@maf.example.com"`
	for path, want := range map[string]struct {
		status int
		body   string
	}{
		"":                     {200, `{"next":7,"revocations":[]}`},
		"?after=0":             {200, `{"next":2,"revocations":[{` + meter + `},{` + meter + `,"KcID":"` + keyID("1").String() + `"}]}`},
		"?after=1":             {200, `{"next":1,"revocations":[]}`},
		"?after=2":             {410, ""},
		"?after=3":             {503, ""},
		"?after=-1":            {400, ""},
		"?after=+1":            {400, ""},
		"?after=":              {400, ""},
		"?after=0&after=1":     {400, ""},
		"?after=0&wait=1":      {400, ""},
		"?after=1e3":           {400, ""},
		"?before=1":            {400, ""},
		"?after=%zz":           {400, ""},
		"/":                    {404, ""},
		"/x?after=0":           {404, ""},
		"?9223372036854775808": {400, ""},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			got, err := w.ask(t, b, "GET", keyapi.RevocationsPath+path, "")
			if err != nil || got.status != want.status || want.body != "" && got.body != want.body {
				t.Errorf("%d %s, %v", got.status, got.body, err)
			}
		})
	}
}

// A MAF whose core has no feed says so.
func TestNoFeed(t *testing.T) {
	r := httptest.NewRequest("GET", keyapi.RevocationsPath, nil)
	r.TLS = entityBState()
	w := httptest.NewRecorder()
	NewHandler(single{}, slog.New(slog.DiscardHandler)).ServeHTTP(w, r)
	if w.Code != http.StatusNotFound {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// patient is a feed in which nothing ever happens.
type patient struct{ single }

func (p patient) Revocations(ctx context.Context, _ onem2m.CSEID, after int64, _ int) ([]authority.Revocation, int64, error) {
	<-ctx.Done()
	return nil, after, nil
}

// Whoever waits gets an answer after a while, and at once when the server ends.
func TestRevocationsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := NewServer(nil, patient{}, slog.New(slog.DiscardHandler))
		wait := func() time.Duration {
			before := time.Now()
			r := httptest.NewRequest("GET", keyapi.RevocationsQuery(1), nil)
			r.TLS = entityBState()
			w := httptest.NewRecorder()
			server.Handler.ServeHTTP(w, r)
			if w.Code != http.StatusOK || w.Body.String() != `{"next":1,"revocations":[]}` {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			return time.Since(before)
		}
		if d := wait(); d != keyapi.RevocationsWait {
			t.Errorf("waited for %v", d)
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if d := wait(); d != time.Second {
					t.Errorf("the server ended after a second, the wait after %v", d)
				}
			})
		}
		time.Sleep(time.Second)
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
}

func entityBState() *tls.ConnectionState {
	return &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{{DNSNames: []string{"in-cse.sp.example.com"}, NotAfter: time.Now().Add(time.Hour)}},
		VerifiedChains:   [][]*x509.Certificate{{}},
	}
}
