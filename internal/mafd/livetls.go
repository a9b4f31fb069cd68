package mafd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"sync/atomic"
)

// A liveTLS is the key API's TLS configuration, which can be replaced while it
// serves: certificates live short, and connections of Entity Bs long.
type liveTLS struct{ current atomic.Pointer[tlsInUse] }

// tlsInUse is one configuration.
type tlsInUse struct {
	config *tls.Config
	shown  func() *tls.Certificate // the certificate that clients get
	trust  int                     // grows when other Entity Bs are vouched for
}

// replace puts another configuration to use: at once for connections to come, and
// for those that there are with their next request.
func (l *liveTLS) replace(next *tlsInUse) {
	last := l.current.Load()
	next.trust = last.trust
	if !next.config.ClientCAs.Equal(last.config.ClientCAs) {
		next.trust++
	}
	l.current.Store(next)
}

// serverConfig is what the server starts with.
func (l *liveTLS) serverConfig() *tls.Config {
	c := l.current.Load().config.Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return l.current.Load().config, nil }
	return c
}

type trustKey struct{}

// connContext is the server's ConnContext.
func (l *liveTLS) connContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, trustKey{}, l.current.Load().trust)
}

// vouched keeps out those for whom nobody vouches any more: the connections that
// they hold open have outlived that.
func (l *liveTLS) vouched(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := l.current.Load()
		if r.Context().Value(trustKey{}) != now.trust && !now.vouches(r.TLS) {
			w.Header().Set("Connection", "close")
			http.Error(w, "nobody who is trusted here vouches for this certificate any more", http.StatusForbidden)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// vouches verifies the client's certificate as crypto/tls did when the connection
// was made.
func (u *tlsInUse) vouches(state *tls.ConnectionState) bool {
	if state == nil || len(state.PeerCertificates) == 0 {
		return false
	}
	others := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		others.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots:         u.config.ClientCAs,
		Intermediates: others,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err == nil
}
