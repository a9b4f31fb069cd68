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
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
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
	// connectTimeout is for a machine that is gone: long enough for a lost
	// packet and its repetition.
	connectTimeout = 2 * time.Second
	maxConns       = 32 // further requests wait for a connection
	idleTimeout    = 90 * time.Second
)

// Config is what a Client needs. Certificate and at least one MAF are required.
type Config struct {
	// MAFs gives the base URL of the key API of each MAF that this Entity B
	// trusts, such as "https://maf.example.com:8443", or several with blanks
	// between, the best first. Anything else after the host is refused.
	MAFs map[onem2m.FQDN]string
	// Certificate is Entity B's own; its CSE-ID must be what the MAF has
	// configured as IdB.
	Certificate tls.Certificate
	// RootCAs vouch for the MAFs' servers, whose certificates must be for the
	// hosts in MAFs. Nil means the system's.
	RootCAs *x509.CertPool
	// Timeout bounds one request, connecting included. 0 means 5 s. When a MAF
	// has several addresses, each gets its share of it.
	Timeout time.Duration
	// Log, when not nil, is told when another address is used than before.
	Log *slog.Logger
}

// Client fetches keys. It may be used by any number of goroutines and keeps its
// connections open between requests.
type Client struct {
	mafs    map[onem2m.FQDN]*addresses
	http    atomic.Pointer[http.Client]
	timeout time.Duration
}

// New returns a client. It connects to nothing yet.
func New(c Config) (*Client, error) {
	if len(c.MAFs) == 0 {
		return nil, errors.New("no MAF is configured")
	}
	mafs := make(map[onem2m.FQDN]*addresses, len(c.MAFs))
	for fqdn, bases := range c.MAFs {
		if parsed, err := onem2m.ParseFQDN(string(fqdn)); err != nil {
			return nil, err
		} else if parsed != fqdn {
			return nil, fmt.Errorf("MAF %s: write its FQDN in lower case", fqdn)
		}
		hosts, err := parseBases(bases)
		if err != nil {
			return nil, fmt.Errorf("MAF %s: %w", fqdn, err)
		}
		mafs[fqdn] = &addresses{hosts: hosts, maf: fqdn, log: c.Log}
	}
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	client := &Client{mafs: mafs, timeout: timeout}
	return client, client.SetCertificates(c.Certificate, c.RootCAs)
}

// SetCertificates replaces Certificate and RootCAs. Requests under way end as
// they began; all others go over new connections.
func (c *Client) SetCertificates(certificate tls.Certificate, rootCAs *x509.CertPool) error {
	if len(certificate.Certificate) == 0 || certificate.PrivateKey == nil {
		return errors.New("no client certificate is configured")
	}
	old := c.http.Swap(&http.Client{
		Transport: transport(certificate, rootCAs, c.timeout),
		// A redirect would send the question elsewhere than configured.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})
	if old != nil {
		old.CloseIdleConnections()
	}
	return nil
}

// parseBases returns the hosts of base URLs.
func parseBases(bases string) (hosts []string, err error) {
	for _, base := range strings.Split(bases, " ") {
		if base == "" && len(hosts) > 0 {
			continue // more than one blank
		}
		u, err := parseBase(base)
		if err != nil {
			return nil, err
		}
		hosts = append(hosts, u.Host)
	}
	return hosts, nil
}

func parseBase(base string) (*url.URL, error) {
	u, err := url.Parse(base)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" ||
		strings.TrimSuffix(base, "/") != "https://"+u.Host {
		return nil, fmt.Errorf("key API address %q is not of the form https://host:port", base)
	}
	return u, nil
}

func transport(certificate tls.Certificate, rootCAs *x509.CertPool, timeout time.Duration) *http.Transport {
	return &http.Transport{
		// No Proxy: keys don't go where an environment variable says.
		DialContext: (&net.Dialer{Timeout: min(timeout, connectTimeout)}).DialContext,
		TLSClientConfig: &tls.Config{
			// By callback, since crypto/tls would send none at all when the
			// server's list of authorities doesn't have ours: the MAF's log
			// should say whose certificate it was.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &certificate, nil
			},
			RootCAs:    rootCAs,
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

// Address returns the base URL at which the MAF was last reached, or the first.
func (c *Client) Address(maf onem2m.FQDN) string {
	if a := c.mafs[maf]; a != nil {
		return "https://" + a.inUse()
	}
	return ""
}

// CloseIdleConnections closes what no request uses.
func (c *Client) CloseIdleConnections() { c.http.Load().CloseIdleConnections() }

// Get fetches one key. Its errors wrap ErrNotFound, ErrUnknownMAF or
// ErrUnavailable.
func (c *Client) Get(ctx context.Context, id onem2m.KcID) (key *keyapi.Key, err error) {
	err = c.ask(ctx, id.FQDN, request{
		path: keyapi.Path(id), most: keyapi.MaxAnswer,
		decode: func(response *http.Response, body []byte) (err error) {
			key, err = decode(response, body, id)
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

// A request is what is asked of one MAF.
type request struct {
	path string
	most int           // octets that the answer may have
	wait time.Duration // how long the MAF may take its time
	// decode reads an answer that was received as a whole. An error under one of
	// this package's is the MAF's true answer; any other says that there was
	// none, and that another address may have one.
	decode func(*http.Response, []byte) error
}

// ask asks one address of the MAF after the other, until one answers.
func (c *Client) ask(ctx context.Context, maf onem2m.FQDN, r request) error {
	a := c.mafs[maf]
	if a == nil {
		return fmt.Errorf("%w: %s", ErrUnknownMAF, maf)
	}
	var failed error
	order := a.order(time.Now())
	for n, i := range order {
		// One that hangs must leave time for the others.
		attempt, cancel := context.WithTimeout(ctx, r.wait+c.timeout/time.Duration(len(order)))
		err := c.askHost(attempt, a.hosts[i], r)
		cancel()
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrNoFeed) || errors.Is(err, errPosition) {
			a.answered(i, time.Now())
			return err
		}
		if n > 0 {
			err = fmt.Errorf("%w; %w", failed, err)
		}
		if failed = err; ctx.Err() != nil {
			break
		}
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, failed)
}

func (c *Client) askHost(ctx context.Context, host string, r request) error {
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+r.path, nil)
	if err != nil {
		return err
	}
	asked.Header.Set("Accept", keyapi.ContentType)
	client := c.http.Load()
	defer func() {
		if c.http.Load() != client { // SetCertificates came in between
			client.CloseIdleConnections()
		}
	}()
	response, err := client.Do(asked)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(r.most)+1))
	if err != nil {
		return err
	}
	defer clear(body)
	if len(body) > r.most {
		return errors.New("its answer is too long")
	}
	return r.decode(response, body)
}

// checkType makes sure that a key API has answered: an HTML page with 404 comes
// from something in between, and proves nothing about the key.
func checkType(response *http.Response) error {
	if media, _, err := mime.ParseMediaType(response.Header.Get("Content-Type")); err != nil || media != keyapi.ContentType {
		return fmt.Errorf("it answered %s without JSON", response.Status)
	}
	return nil
}

// unexpected is about an answer under a status that says nothing useful.
func unexpected(response *http.Response, body []byte) error {
	var p keyapi.Problem
	_ = json.Unmarshal(body, &p) // the text only helps
	return fmt.Errorf("it answered %s (%.100q)", response.Status, p.Error)
}

func decode(response *http.Response, body []byte, id onem2m.KcID) (*keyapi.Key, error) {
	if err := checkType(response); err != nil {
		return nil, err
	}
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, ErrNotFound
	default:
		return nil, unexpected(response, body)
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
