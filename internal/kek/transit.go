package kek

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
)

// TransitConfig says where a service with the interface of Vault's transit
// engine (HashiCorp Vault, OpenBao) keeps the key.
type TransitConfig struct {
	// URL is where the engine is mounted, such as
	// "https://vault.example.com:8200/v1/transit".
	URL string
	// Key is the name of a key there that encrypts and decrypts.
	Key string
	// TokenFile holds the token, which must be allowed "update" on encrypt/KEY
	// and decrypt/KEY and nothing else. It is read for each call, so that an agent
	// may renew it.
	TokenFile string
	// CA, when not empty, is a file of the certificates in PEM that vouch for the
	// service, instead of the system's.
	CA string
	// Namespace is sent as X-Vault-Namespace when not empty.
	Namespace string
	// Timeout bounds each call; 0 means DefaultTimeout.
	Timeout time.Duration
}

// DefaultTimeout is for a call of the transit service.
const DefaultTimeout = 5 * time.Second

// Transit is a key-encryption key that stays in a transit service. What is
// encrypted gets a fresh key of its own, and only that goes to the service
// (Tink's envelope encryption), so that the service sees nothing of the keyset.
type Transit struct {
	*aead.KMSEnvelopeAEADWithContext
	name string
}

// String returns which key it is.
func (t *Transit) String() string { return t.name }

// NewTransit prepares the calls to the service. It does not make any yet.
func NewTransit(c TransitConfig) (*Transit, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the transit service's URL must be like https://vault.example.com:8200/v1/transit")
	}
	if c.Key == "" || url.PathEscape(c.Key) != c.Key || strings.Trim(c.Key, ".") == "" {
		return nil, fmt.Errorf("%q is not the name of a transit key", c.Key)
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	envelope, err := aead.NewKMSEnvelopeAEADWithContext(aead.XChaCha20Poly1305KeyTemplate(), &remote{c, u, client})
	if err != nil {
		return nil, err
	}
	return &Transit{envelope, "transit key " + c.Key}, nil
}

func (c *TransitConfig) client() (*http.Client, error) {
	if c.TokenFile == "" {
		return nil, errors.New("the transit service needs a token")
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", c.CA)
		}
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	return &http.Client{
		Timeout: timeout,
		// Calls are rare: no connection is kept, and none goes over a proxy that
		// the environment happens to name.
		Transport: &http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true},
		// The token is for this host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// remote is the AEAD that the service offers. It is given no associated data:
// the envelope binds that, and not every type of transit key could.
type remote struct {
	config TransitConfig
	url    *url.URL
	client *http.Client
}

var errAssociatedData = errors.New("kek: the transit service takes no associated data here")

// EncryptWithContext implements tink.AEADWithContext.
func (r *remote) EncryptWithContext(ctx context.Context, plaintext, associatedData []byte) ([]byte, error) {
	if len(associatedData) > 0 {
		return nil, errAssociatedData
	}
	var answer struct{ Data struct{ Ciphertext string } }
	if err := r.call(ctx, "encrypt", struct { // octets are base64 in JSON, as the service wants them
		Plaintext []byte `json:"plaintext"`
	}{plaintext}, &answer); err != nil {
		return nil, err
	}
	if answer.Data.Ciphertext == "" {
		return nil, errors.New("the transit service answered without a ciphertext")
	}
	return []byte(answer.Data.Ciphertext), nil
}

// DecryptWithContext implements tink.AEADWithContext.
func (r *remote) DecryptWithContext(ctx context.Context, ciphertext, associatedData []byte) ([]byte, error) {
	if len(associatedData) > 0 {
		return nil, errAssociatedData
	}
	var answer struct{ Data struct{ Plaintext []byte } }
	if err := r.call(ctx, "decrypt", struct {
		Ciphertext string `json:"ciphertext"`
	}{string(ciphertext)}, &answer); err != nil {
		return nil, err
	}
	if len(answer.Data.Plaintext) == 0 {
		return nil, errors.New("the transit service answered without a plaintext")
	}
	return answer.Data.Plaintext, nil
}

// maxAnswer is far beyond any answer.
const maxAnswer = 64 << 10

// call posts question as JSON and reads answer. Errors say nothing of either:
// what the service says of its own accord is told, cut short.
func (r *remote) call(ctx context.Context, operation string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	defer clear(body)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url.JoinPath(operation, r.config.Key).String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	token, err := os.ReadFile(r.config.TokenFile)
	if err != nil {
		return fmt.Errorf("the transit service's token: %w", err)
	}
	defer clear(token)
	request.Header.Set("X-Vault-Token", string(bytes.TrimSpace(token)))
	request.Header.Set("X-Vault-Request", "true") // asked for by agents that stand between
	request.Header.Set("Content-Type", "application/json")
	if r.config.Namespace != "" {
		request.Header.Set("X-Vault-Namespace", r.config.Namespace)
	}
	response, err := r.client.Do(request)
	if err != nil {
		return fmt.Errorf("the transit service: %w", err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	defer clear(data)
	if err != nil {
		return fmt.Errorf("the transit service: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return refusal(operation, response.StatusCode, data)
	}
	if json.Unmarshal(data, answer) != nil {
		return errors.New("the transit service answered something else than its interface says")
	}
	return nil
}

// refusal says why the service refused, as far as it does.
func refusal(operation string, status int, data []byte) error {
	var answer struct{ Errors []string }
	why := "no reason given"
	if json.Unmarshal(data, &answer) == nil && len(answer.Errors) > 0 {
		why = fmt.Sprintf("%.300q", strings.Join(answer.Errors, "; "))
	}
	if status == http.StatusServiceUnavailable {
		why += "; it is sealed or in maintenance"
	}
	return fmt.Errorf("the transit service refused to %s (status %d): %s", operation, status, why)
}
