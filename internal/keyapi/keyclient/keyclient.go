// Package keyclient is Entity B's side of the MAF's key API: it fetches Kc by
// KcId from the MAF that the KcId names, over HTTPS with certificates on both
// sides.
package keyclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/onem2m"
)

// Errors that callers tell apart, with errors.Is. All else in their text is for
// Entity B's log, not for the device.
var (
	// ErrNotFound: the MAF has no such key for this Entity B, which may mean
	// that there never was one, that it expired or that it is another's.
	ErrNotFound = errors.New("the MAF has no such key for this Entity B")
	// ErrUnknownMAF: the KcId names a MAF that is not configured. Nothing was
	// asked.
	ErrUnknownMAF = errors.New("the KcId names a MAF that is not configured")
	// ErrUnavailable: the MAF could not be asked or gave no usable answer. The
	// key may exist.
	ErrUnavailable = errors.New("the MAF's key API is unavailable")
)

// Bounds of one Client towards one MAF.
const (
	defaultTimeout = 5 * time.Second
	maxConns       = 32 // further requests wait for a connection
	idleTimeout    = 90 * time.Second
)

// Config is what a Client needs. Certificate and at least one MAF are required.
type Config struct {
	// MAFs gives the base URL of the key API of each MAF that this Entity B
	// trusts, such as "https://maf.example.com:8443". Anything else after the
	// host is refused.
	MAFs map[onem2m.FQDN]string
	// Certificate is Entity B's own; its CSE-ID must be what the MAF has
	// configured as IdB.
	Certificate tls.Certificate
	// RootCAs vouch for the MAFs' servers, whose certificates must be for the
	// hosts in MAFs. Nil means the system's.
	RootCAs *x509.CertPool
	// Timeout bounds one request, connecting included. 0 means 5 s.
	Timeout time.Duration
}

// Client fetches keys. It may be used by any number of goroutines and keeps its
// connections open between requests.
type Client struct {
	mafs    map[onem2m.FQDN]*url.URL
	http    http.Client
	timeout time.Duration
}

// New returns a client. It connects to nothing yet.
func New(c Config) (*Client, error) {
	if len(c.MAFs) == 0 {
		return nil, errors.New("no MAF is configured")
	}
	if len(c.Certificate.Certificate) == 0 || c.Certificate.PrivateKey == nil {
		return nil, errors.New("no client certificate is configured")
	}
	mafs := make(map[onem2m.FQDN]*url.URL, len(c.MAFs))
	for fqdn, base := range c.MAFs {
		if parsed, err := onem2m.ParseFQDN(string(fqdn)); err != nil {
			return nil, err
		} else if parsed != fqdn {
			return nil, fmt.Errorf("MAF %s: write its FQDN in lower case", fqdn)
		}
		u, err := parseBase(base)
		if err != nil {
			return nil, fmt.Errorf("MAF %s: %w", fqdn, err)
		}
		mafs[fqdn] = u
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	return &Client{
		mafs:    mafs,
		timeout: timeout,
		http: http.Client{
			Transport: transport(c, timeout),
			// A redirect would send the question elsewhere than configured.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func parseBase(base string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" ||
		strings.TrimSuffix(base, "/") != "https://"+u.Host {
		return nil, fmt.Errorf("key API address %q is not of the form https://host:port", base)
	}
	return u, nil
}

func transport(c Config, timeout time.Duration) *http.Transport {
	return &http.Transport{
		// No Proxy: keys don't go where an environment variable says.
		DialContext: (&net.Dialer{Timeout: timeout}).DialContext,
		TLSClientConfig: &tls.Config{
			// By callback, since crypto/tls would send none at all when the
			// server's list of authorities doesn't have ours: the MAF's log
			// should say whose certificate it was.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &c.Certificate, nil
			},
			RootCAs:    c.RootCAs,
			MinVersion: tls.VersionTLS12,
		},
		TLSHandshakeTimeout:    timeout,
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    maxConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: 8 << 10,
		// HTTP/1.1: when a MAF's machine vanishes, a request that times out
		// takes its connection with it, where HTTP/2 would send the next
		// request into the same void. (Custom TLS settings leave HTTP/2 off.)
		ForceAttemptHTTP2: false,
	}
}

// Knows reports whether the MAF is configured.
func (c *Client) Knows(maf onem2m.FQDN) bool { return c.mafs[maf] != nil }

// CloseIdleConnections closes what no request uses.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// Get fetches one key. Its errors wrap ErrNotFound, ErrUnknownMAF or
// ErrUnavailable.
func (c *Client) Get(ctx context.Context, id onem2m.KcID) (*keyapi.Key, error) {
	base := c.mafs[id.FQDN]
	if base == nil {
		return nil, fmt.Errorf("%w: %s", ErrUnknownMAF, id.FQDN)
	}
	key, err := c.get(ctx, base.Host, id)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return key, nil
}

func (c *Client) get(ctx context.Context, host string, id onem2m.KcID) (*keyapi.Key, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+keyapi.Path(id), nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", keyapi.ContentType)
	response, err := c.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, keyapi.MaxAnswer+1))
	if err != nil {
		return nil, err
	}
	defer clear(body)
	if len(body) > keyapi.MaxAnswer {
		return nil, errors.New("its answer is too long")
	}
	return decode(response, body, id)
}

func decode(response *http.Response, body []byte, id onem2m.KcID) (*keyapi.Key, error) {
	// Only what speaks JSON is a key API: an HTML page with 404 comes from
	// something in between, and proves nothing about the key.
	if media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || media != keyapi.ContentType {
		return nil, fmt.Errorf("it answered %s without JSON", response.Status)
	}
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, ErrNotFound
	default:
		var p keyapi.Problem
		_ = json.Unmarshal(body, &p) // the text only helps
		return nil, fmt.Errorf("it answered %s (%.100q)", response.Status, p.Error)
	}
	key, err := keyapi.Decode(body)
	if err != nil {
		return nil, err
	}
	if key.KcID != id {
		return nil, errors.New("it answered with another key")
	}
	return key, nil
}
