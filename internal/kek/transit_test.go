package kek

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"

	"github.com/onem2m-maf/maf/internal/seal"
)

// vault stands in for a transit service, and complains about every request that
// is not as the real one's documentation has it.
type vault struct {
	t    *testing.T
	url  string
	ca   string
	aead *subtle.XChaCha20Poly1305

	mu    sync.Mutex
	token string                                               // guarded by mu
	act   func(http.ResponseWriter, *http.Request) (done bool) // instead of answering; guarded by mu
	seen  [][]byte                                             // plaintexts that came or went; guarded by mu
}

func newVault(t *testing.T) *vault {
	t.Helper()
	aead, err := subtle.NewXChaCha20Poly1305(key)
	if err != nil {
		t.Fatal(err)
	}
	v := &vault{t: t, aead: aead, token: "hvs.token1"}
	server := httptest.NewUnstartedServer(v)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that don't trust it
	server.StartTLS()
	t.Cleanup(server.Close)
	v.url = server.URL + "/v1/transit"
	v.ca = write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o644)
	return v
}

func (v *vault) config() TransitConfig {
	return TransitConfig{URL: v.url, Key: "mafd", TokenFile: write(v.t, "token", []byte("hvs.token1\n"), 0o600), CA: v.ca}
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.act != nil && v.act(w, r) {
		return
	}
	refuse := func(status int, text string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string][]string{"errors": {text}})
	}
	if r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("X-Vault-Request") != "true" {
		v.t.Errorf("%s %s with %v", r.Method, r.URL, r.Header)
	}
	if r.Header.Get("X-Vault-Token") != v.token {
		refuse(http.StatusForbidden, "permission denied")
		return
	}
	var q map[string]string
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q) != 1 {
		v.t.Errorf("the request: %v, %v", q, err)
	}
	var data map[string]string
	switch r.URL.Path {
	case "/v1/transit/encrypt/mafd":
		plaintext, err := base64.StdEncoding.DecodeString(q["plaintext"])
		if err != nil || len(plaintext) == 0 {
			v.t.Errorf("plaintext %q: %v", q["plaintext"], err)
		}
		v.seen = append(v.seen, plaintext)
		box, _ := v.aead.Encrypt(plaintext, nil)
		data = map[string]string{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(box)}
	case "/v1/transit/decrypt/mafd":
		text, ok := strings.CutPrefix(q["ciphertext"], "vault:v1:")
		box, err := base64.StdEncoding.DecodeString(text)
		plaintext, openErr := v.aead.Decrypt(box, nil)
		if !ok || err != nil || openErr != nil {
			refuse(http.StatusBadRequest, "cipher: message authentication failed")
			return
		}
		v.seen = append(v.seen, plaintext)
		data = map[string]string{"plaintext": base64.StdEncoding.EncodeToString(plaintext)}
	default:
		refuse(http.StatusNotFound, "no handler for route")
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"request_id": "x", "lease_id": "", "renewable": false, "data": data})
}

func (v *vault) set(f func(*vault)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	f(v)
}

func newTransit(t *testing.T, c TransitConfig) *Transit {
	t.Helper()
	k, err := NewTransit(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTransit(t *testing.T) {
	v := newVault(t)
	c := v.config()
	k := newTransit(t, c)
	roundTrip(t, k, newTransit(t, c))
	for _, plaintext := range v.seen {
		if strings.Contains(string(plaintext), "keyset") {
			t.Error("the service saw what was encrypted")
		}
	}
	// An agent renews the token while the program runs.
	v.set(func(v *vault) { v.token = "hvs.token2" })
	if _, err := k.EncryptWithContext(t.Context(), []byte("x"), nil); err == nil || !strings.Contains(err.Error(), "permission denied") || strings.Contains(err.Error(), "hvs.") {
		t.Errorf("an old token: %v", err)
	}
	if err := os.WriteFile(c.TokenFile, []byte("hvs.token2"), 0o600); err != nil {
		t.Fatal(err)
	}
	roundTrip(t, k, k)
}

// A keyset that the service protects, from end to end: it opens while the service
// lets it, changes wait for the service, and what is loaded works without it.
func TestTransitKeyset(t *testing.T) {
	v := newVault(t)
	f := seal.File{Path: filepath.Join(t.TempDir(), "keyset"), KEK: newTransit(t, v.config())}
	k, err := f.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if k.Protection() != "transit key mafd" {
		t.Errorf("protected by %q", k.Protection())
	}
	box, err := k.Seal([]byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	v.set(func(v *vault) {
		v.act = func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"errors":["Vault is sealed"]}`)
			return true
		}
	})
	for what, err := range map[string]error{
		"loading":  func() error { _, err := f.Load(t.Context()); return err }(),
		"changing": func() error { _, err := k.Add(t.Context()); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "Vault is sealed") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := k.Open(box, nil); err != nil || string(got) != "secret" {
		t.Errorf("what is loaded: %v", err)
	}
	v.set(func(v *vault) { v.act = nil })
	if _, err := k.Add(t.Context()); err != nil {
		t.Error(err)
	}
	again, err := f.Load(t.Context())
	if err != nil || len(again.Keys()) != 2 {
		t.Fatalf("loaded again: %v", err)
	}
	if got, err := again.Open(box, nil); err != nil || string(got) != "secret" {
		t.Errorf("opened again: %v", err)
	}
}

// Whatever the service does, the error says so, shows no token, and comes in time.
func TestTransitRefuses(t *testing.T) {
	v := newVault(t)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the token went elsewhere: %v", r.Header)
	}))
	defer elsewhere.Close()
	text := func(status int, body string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			io.WriteString(w, body)
			return true
		}
	}
	for name, test := range map[string]struct {
		act  func(http.ResponseWriter, *http.Request) bool
		edit func(*TransitConfig)
		want string
	}{
		"a reason":       {text(400, `{"errors":["encryption key not found"]}`), nil, "encryption key not found"},
		"control octets": {text(400, "{\"errors\":[\"\\u001b[31mred\"]}"), nil, `"\x1b[31mred"`},
		"no reason":      {text(500, "<html>"), nil, "no reason given"},
		"no JSON":        {text(200, "<html>"), nil, "something else"},
		"no data":        {text(200, "{}"), nil, "without a ciphertext"},
		"another's address": {func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
			return true
		}, nil, "status 307"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) bool {
			io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
			return true
		}, func(c *TransitConfig) { c.Timeout = 50 * time.Millisecond }, "Timeout"},
		"no token":           {nil, func(c *TransitConfig) { c.TokenFile += "x" }, "token: open"},
		"a token of rubbish": {nil, func(c *TransitConfig) { c.TokenFile = write(t, "token", []byte("hvs.\x00"), 0o600) }, "X-Vault-Token"},
		"another key":        {nil, func(c *TransitConfig) { c.Key = "other" }, "no handler"},
		"a strange server":   {nil, func(c *TransitConfig) { c.CA = "" }, "certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			v.set(func(v *vault) { v.act = test.act })
			c := v.config()
			if test.edit != nil {
				test.edit(&c)
			}
			_, err := newTransit(t, c).EncryptWithContext(t.Context(), []byte("x"), nil)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "hvs.") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestTransitConfig(t *testing.T) {
	good := newVault(t).config()
	for name, edit := range map[string]func(*TransitConfig){
		"not HTTPS":       func(c *TransitConfig) { c.URL = "http://127.0.0.1/v1/transit" },
		"no URL":          func(c *TransitConfig) { c.URL = "" },
		"a password":      func(c *TransitConfig) { c.URL = "https://a:b@127.0.0.1/v1/transit" },
		"a query":         func(c *TransitConfig) { c.URL += "?a=b" },
		"no key":          func(c *TransitConfig) { c.Key = "" },
		"a path as key":   func(c *TransitConfig) { c.Key = "a/b" },
		"a way up as key": func(c *TransitConfig) { c.Key = ".." },
		"no token":        func(c *TransitConfig) { c.TokenFile = "" },
		"no CA file":      func(c *TransitConfig) { c.CA += "x" },
		"an empty CA":     func(c *TransitConfig) { c.CA = c.TokenFile },
	} {
		c := good
		edit(&c)
		if _, err := NewTransit(c); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzTransitAnswer: an answer is octets or an error, whatever the service says.
func FuzzTransitAnswer(f *testing.F) {
	f.Add(200, `{"data":{"ciphertext":"vault:v1:AAAA"}}`)
	f.Add(200, `{"data":{"plaintext":"AAAA"}}`)
	f.Add(400, `{"errors":["no"]}`)
	f.Add(503, `{"errors":null}`)
	token := write(f, "token", []byte("hvs.token1"), 0o600)
	f.Fuzz(func(t *testing.T, status int, body string) {
		client := &http.Client{Transport: answerer(func() *http.Response {
			return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}
		})}
		r := &remote{config: TransitConfig{Key: "k", TokenFile: token}, url: &url.URL{Scheme: "https", Host: "vault", Path: "/v1/transit"}, client: client}
		if box, err := r.EncryptWithContext(t.Context(), []byte("x"), nil); (err == nil) != (len(box) > 0) || err == nil && status != 200 {
			t.Errorf("%q, %v", box, err)
		}
		if plain, err := r.DecryptWithContext(t.Context(), []byte("x"), nil); (err == nil) != (len(plain) > 0) || err == nil && status != 200 {
			t.Errorf("%q, %v", plain, err)
		}
	})
}

// answerer answers every request alike.
type answerer func() *http.Response

func (a answerer) RoundTrip(*http.Request) (*http.Response, error) { return a(), nil }
