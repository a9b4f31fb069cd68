// Package keyserver is the MAF's key API: Entity Bs get the Kc that were issued
// for them, and are told when to forget one, over HTTPS with certificates on both
// sides.
//
// # What an asker learns
//
// Who it is stands in its certificate; see [Identity]. An asker without a
// trusted certificate never gets past TLS, one whose certificate has no CSE-ID
// gets 403, and each Entity B gets its own keys and nothing else: the answer to
// an unknown KcId, an expired one, another Entity B's, a disabled client's and
// a malformed one is the same, octet for octet. The reason is in the log.
package keyserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// Bounds on what one asker can hold of the server's time and memory. An honest
// request is a few hundred octets and is answered in milliseconds.
const (
	readTimeout    = 5 * time.Second
	releaseTimeout = 10 * time.Second
	writeTimeout   = 20 * time.Second // reading and releasing count into it
	idleTimeout    = 2 * time.Minute
	maxHeader      = 8 << 10
)

// Releaser hands out keys. *authority.Authority is one.
type Releaser interface {
	// Release returns Kc to idB, the authenticated, absolute CSE-ID of the
	// asker, or an error under authority.ErrNotFound that says why not. Any
	// other error is a failure of the MAF. It is called concurrently. Kc is the
	// caller's, who wipes it: each call returns a copy of its own.
	Release(ctx context.Context, idB onem2m.CSEID, id onem2m.KcID) (authority.Released, error)
}

// TLSConfig returns what the key API's listener needs: cert for the server, and
// every client with a certificate under clientCAs and for client
// authentication, or no connection.
func TLSConfig(cert *tls.Certificate, clientCAs *x509.CertPool) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{*cert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clientCAs,
		MinVersion:   tls.VersionTLS12,
		// Connections live long, so resumption buys nothing; and a ticket would
		// carry a certificate's authority past a change of clientCAs.
		SessionTicketsDisabled: true,
	}
}

// NewServer returns an HTTP server for the key API with its bounds set. Serve
// it with ServeTLS(listener, "", ""); config is what TLSConfig returned. Lines of
// log at level Warn and above are about what failed; strangers can cause them, so
// the log's owner does well to limit them.
func NewServer(config *tls.Config, keys Releaser, log *slog.Logger) *http.Server {
	quit, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           &handler{keys, log, quit},
		TLSConfig:         config,
		ReadHeaderTimeout: readTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		// Failed handshakes: an Entity B whose certificate is not trusted shows
		// here and nowhere else.
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	server.RegisterOnShutdown(cancel)
	return server
}

// NewHandler returns the key API itself. It serves only requests that came with
// a verified client certificate; NewServer sees to that.
func NewHandler(keys Releaser, log *slog.Logger) http.Handler {
	return &handler{keys, log, context.Background()}
}

type handler struct {
	keys Releaser
	log  *slog.Logger
	quit context.Context // ends when the server shuts down
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store") // also what there isn't: it may be there soon
	header.Set("X-Content-Type-Options", "nosniff")

	idB, err := peer(r.TLS, time.Now())
	if err != nil {
		h.log.Warn("key API: refused a certificate", "remote", r.RemoteAddr, "reason", err)
		header.Set("Connection", "close")
		problem(w, http.StatusForbidden, "the client certificate carries no CSE-ID")
		return
	}
	switch {
	case r.Method != http.MethodGet:
		header.Set("Allow", http.MethodGet)
		problem(w, http.StatusMethodNotAllowed, "only GET is served")
	case r.ContentLength != 0: // -1 when chunked
		header.Set("Connection", "close") // rather than read what it is
		problem(w, http.StatusBadRequest, "a request has no body")
	case r.URL.EscapedPath() == keyapi.RevocationsPath:
		h.revocations(w, r, idB)
	default:
		h.release(w, r, idB)
	}
}

// peer returns the CSE-ID of the other end of a connection.
func peer(state *tls.ConnectionState, now time.Time) (onem2m.CSEID, error) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return onem2m.CSEID{}, errors.New("no verified certificate")
	}
	cert := state.PeerCertificates[0]
	if now.After(cert.NotAfter) {
		return onem2m.CSEID{}, errors.New("the certificate expired during the connection")
	}
	return keyapi.Identity(cert)
}

func (h *handler) release(w http.ResponseWriter, r *http.Request, idB onem2m.CSEID) {
	log := h.log.With("remote", r.RemoteAddr, "IdB", idB)
	id, ok := keyapi.ParsePath(r.URL.EscapedPath())
	if !ok {
		log.Warn("key API: no key", "reason", "the path names no KcId")
		notFound(w)
		return
	}
	log = log.With("KcID", id)
	ctx, cancel := context.WithTimeout(r.Context(), releaseTimeout)
	defer cancel()
	released, err := h.keys.Release(ctx, idB, id)
	defer released.Kc.Wipe()
	switch {
	case errors.Is(err, authority.ErrNotFound):
		log.Warn("key API: no key", "reason", err)
		notFound(w)
		return
	case err != nil:
		log.Error("key API: cannot release", "error", err)
		unavailable(w)
		return
	case released.Lifetime < time.Second: // 0 in whole seconds: no longer a lifetime
		log.Warn("key API: no key", "reason", "it expires within a second")
		notFound(w)
		return
	}
	key := keyapi.Key{
		KcID: released.KcID, Kc: released.Kc, Expires: released.Expires, Lifetime: released.Lifetime,
		KmID: released.KmID, SUID: onem2m.SUIDSAEF, AEID: released.AEID, CSEID: released.CSEID,
	}
	body, err := key.Encode()
	if err != nil {
		log.Error("key API: cannot release", "error", err)
		unavailable(w)
		return
	}
	log.Info("key API: released", "KmID", released.KmID, "expires", released.Expires)
	answer(w, http.StatusOK, body)
	clear(body)
}

func notFound(w http.ResponseWriter) { problem(w, http.StatusNotFound, "no such key for this CSE-ID") }

func unavailable(w http.ResponseWriter) {
	problem(w, http.StatusServiceUnavailable, "the key store does not answer; try again")
}

func problem(w http.ResponseWriter, status int, text string) {
	body, err := json.Marshal(keyapi.Problem{Error: text})
	if err != nil {
		panic(err) // a string can't fail
	}
	answer(w, status, body)
}

func answer(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", keyapi.ContentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body) // an error means the asker is gone
}
