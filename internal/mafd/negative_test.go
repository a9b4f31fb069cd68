package mafd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/keyapi"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// The tables here say what everybody gets who has no right to what they ask
// for: all of it against a real daemon on real sockets, on both transports.

type pemBlock struct {
	kind string
	der  []byte
}

func (b pemBlock) encode() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: b.kind, Bytes: b.der})
}

// TestHandshakeRefusals: whatever is wrong with identity or key, the client gets
// one and the same alert; the daemon's log has the true reason.
func TestHandshakeRefusals(t *testing.T) {
	m := startMAF(t, testConfig(shortDir(t)))
	km := m.add(t, meterID, nil)
	disabled := m.add(t, "disabled@maf.example.com", func(c *adminapi.NewClient) { c.Disabled = true })
	removed := m.add(t, "removed@maf.example.com", nil)
	if err := m.admin.Remove(t.Context(), kmID(t, "removed@maf.example.com")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, identity, sni string
		key                 secret.Key
		reason              string // "" for success
	}{
		{"right", meterID, "maf.example.com", km, ""},
		{"right, no SNI", meterID, "", km, ""},
		{"right, other letter case", "METER7@MAF.example.com", "Maf.Example.Com", km, ""},
		{"unknown KmId", "nobody@maf.example.com", "maf.example.com", km, "unknown client"},
		{"wrong Km", meterID, "maf.example.com", secret.New(make([]byte, 32)), "wrong Km"},
		{"Km cut short", meterID, "maf.example.com", secret.New(km.Bytes()[:31]), "wrong Km"},
		{"KmId of a MAF not served here", "meter7@maf.example.org", "maf.example.org", km, "FQDN is not served"},
		{"KmId of a MAF not served here, no SNI", "meter7@maf.example.org", "", km, "FQDN is not served"},
		{"KmId of another MAF served here", "meter7@maf.example.net", "maf.example.net", km, "unknown client"},
		{"SNI of another MAF served here", meterID, "maf.example.net", km, "SNI names another MAF"},
		{"SNI of a MAF not served here", meterID, "maf.example.org", km, "SNI names another MAF"},
		{"disabled client", "disabled@maf.example.com", "maf.example.com", disabled, "client is disabled"},
		{"removed client", "removed@maf.example.com", "maf.example.com", removed, "unknown client"},
		{"no KmId", "meter7", "maf.example.com", km, "not a KmId"},
		{"empty identity", "", "maf.example.com", km, "not a KmId"},
		{"KmId with a NUL behind", meterID + "\x00", "maf.example.com", km, "not a KmId"},
		{"KmId with a space before", " " + meterID, "maf.example.com", km, "not a KmId"},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachTransport(t, func(t *testing.T, network string) {
				before := len(m.log.String())
				conn, err := tlspsk.Dial(network, m.address(network), &tlspsk.Config{
					Identity: []byte(c.identity), Key: c.key.Bytes(), ServerName: c.sni,
					HandshakeTimeout: patience, RetransmitTimeout: quickly})
				if c.reason == "" {
					if err != nil {
						t.Fatal(err)
					}
					conn.Close()
					return
				}
				wantAlert(t, err)
				waitFor(t, "the reason in the log", func() bool {
					return strings.Contains(m.log.String()[before:], c.reason)
				})
			})
		})
	}
}

// wantAlert demands the one alert for all that is wrong with a name or a key.
func wantAlert(t *testing.T, err error) {
	t.Helper()
	var alert *tlspsk.AlertError
	if !errors.As(err, &alert) || !alert.Remote || alert.Alert != tlspsk.AlertBadRecordMAC {
		t.Errorf("got %v, want the peer's alert bad_record_mac", err)
	}
}

// TestAssociationRefusals: with a key that it can't get from the MAF, Entity B
// fails the handshake, and again with the same alert whatever the reason.
func TestAssociationRefusals(t *testing.T) {
	m := startMAF(t, testConfig(shortDir(t)))
	establish := func(id string, change func(*adminapi.NewClient)) saef.Key {
		t.Helper()
		key, err := m.device(t, "udp", id, m.add(t, id, change)).Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	good := establish(meterID, func(c *adminapi.NewClient) { c.AEID = aeID(t, meterAEID) })
	others := establish("other@maf.example.com", func(c *adminapi.NewClient) { c.EntityB = cseID(t, rivalCSE) })
	expired := establish("brief@maf.example.com", func(c *adminapi.NewClient) { c.Lifetime = adminapi.Duration(authority.MinLifetime) })
	disabled := establish("disabled@maf.example.com", nil)
	off := true
	if _, err := m.admin.Change(t.Context(), kmID(t, "disabled@maf.example.com"), adminapi.ClientChange{Disabled: &off}); err != nil {
		t.Fatal(err)
	}
	moved := establish("moved@maf.example.com", nil)
	rival := cseID(t, rivalCSE)
	if _, err := m.admin.Change(t.Context(), kmID(t, "moved@maf.example.com"), adminapi.ClientChange{EntityB: &rival}); err != nil {
		t.Fatal(err)
	}
	removed := establish("removed@maf.example.com", nil)
	if err := m.admin.Remove(t.Context(), kmID(t, "removed@maf.example.com")); err != nil {
		t.Fatal(err)
	}
	m.add(t, "removed@maf.example.com", nil) // the name is back, the key is not
	time.Sleep(authority.MinLifetime)        // whole seconds count: by now expired is

	unknown, wrong, foreign, elsewhere := good, good, good, good
	unknown.KcID.Relative[0] ^= 1
	wrong.Kc = secret.New(make([]byte, 32))
	foreign.KcID.FQDN = "maf.example.org"
	elsewhere.KcID.FQDN = alsoServed

	b := &saef.EntityB{MAFs: m.keyAPIs(), Certificate: m.certificate(t, cityCSE), RootCAs: m.roots(t)}
	defer b.Close()
	eachTransport(t, func(t *testing.T, network string) {
		l, err := b.Listen(network, "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for _, c := range []struct {
			name string
			key  saef.Key
			good bool
		}{
			{"right", good, true},
			{"wrong Kc", wrong, false},
			{"unknown KcId", unknown, false},
			{"expired Kc", expired, false},
			{"Kc of another Entity B", others, false},
			{"Kc of a client that was disabled", disabled, false},
			{"Kc of a client that was given another Entity B", moved, false},
			{"Kc of a client that was removed", removed, false},
			{"KcId of a MAF that Entity B does not know", foreign, false},
			{"KcId under another FQDN of the same MAF", elsewhere, false},
		} {
			t.Run(c.name, func(t *testing.T) {
				accepted := make(chan *saef.Conn, 1)
				if c.good {
					go func() {
						conn, err := l.AcceptAssociation()
						if err != nil {
							t.Error(err)
						}
						accepted <- conn
					}()
				}
				conn, err := tlspsk.Dial(network, l.Addr().String(), &tlspsk.Config{
					Identity: []byte(c.key.KcID.String()), Key: c.key.Kc.Bytes(),
					HandshakeTimeout: patience, RetransmitTimeout: quickly})
				if !c.good {
					wantAlert(t, err)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				theirs := <-accepted
				if theirs == nil {
					return
				}
				defer theirs.Close()
				if a := theirs.Association(); a.AEID != aeID(t, meterAEID) || a.KmID != kmID(t, meterID) || a.KcID != good.KcID {
					t.Errorf("Entity B sees %+v", a)
				}
			})
		}
	})
}

// TestKeyAPIRefusals: who does not show a certificate of the right authority,
// for the right use, with the right CSE-ID, gets no key, and does not find out
// whether there is one.
func TestKeyAPIRefusals(t *testing.T) {
	m := startMAF(t, testConfig(shortDir(t)))
	key, err := m.device(t, "tcp", meterID, m.add(t, meterID, nil)).Handshake(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unknown := key.KcID
	unknown.Relative[0] ^= 1

	stranger, err := pki.New("stranger", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server, err := m.ca.Server([]string{"in-cse.city.example"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	city, other := m.certificate(t, cityCSE), m.certificate(t, rivalCSE)
	for _, c := range []struct {
		name        string
		certificate *tls.Certificate
		id          onem2m.KcID
		status      int // 0: TLS fails
	}{
		{"right", &city, key.KcID, 200},
		{"no certificate", nil, key.KcID, 0},
		{"untrusted certificate", entityB(t, stranger, cityCSE, time.Now()), key.KcID, 0},
		{"expired certificate", entityB(t, m.ca, cityCSE, time.Now().Add(-2*time.Hour)), key.KcID, 0},
		{"certificate for servers", server, key.KcID, 0},
		{"another entity's certificate", &other, key.KcID, 404},
		{"unknown KcId", &city, unknown, 404},
		{"unknown KcId, another entity's certificate", &other, unknown, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, err := m.ask(t, c.certificate, c.id)
			switch {
			case c.status == 0 && err == nil:
				t.Errorf("TLS let it in: status %d", status)
			case c.status != 0 && err != nil:
				t.Error(err)
			case status != c.status:
				t.Errorf("status %d, want %d", status, c.status)
			case status == 404 && body != `{"error":"no such key for this CSE-ID"}`:
				t.Errorf("the answer is %s", body)
			}
		})
	}
}

// entityB is a certificate for one hour from then on.
func entityB(t *testing.T, ca *pki.Authority, cse string, from time.Time) *tls.Certificate {
	t.Helper()
	b, err := ca.EntityB(cseID(t, cse), from, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(b.CertificatePEM, b.KeyPEM.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// ask asks the key API for a key by plain HTTPS.
func (m *testMAF) ask(t *testing.T, certificate *tls.Certificate, id onem2m.KcID) (status int, body string, err error) {
	t.Helper()
	config := &tls.Config{RootCAs: m.roots(t)}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: patience}
	resp, err := client.Get("https://" + m.Runtime.KeyAPI[0] + keyapi.Path(id))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// TestKeyAPIWithoutCSEID: a certificate that the authority vouches for but that
// carries no CSE-ID gets in, and gets 403.
func TestKeyAPIWithoutCSEID(t *testing.T) {
	dir := shortDir(t)
	ca, leaf := plainAuthority(t)
	config := testConfig(dir)
	config.KeyAPI.ClientCA = dir + "/ca.pem"
	if err := os.WriteFile(config.KeyAPI.ClientCA, pemBlock{"CERTIFICATE", ca}.encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	m := startMAF(t, config)
	status, body, err := m.ask(t, leaf, onem2m.KcID{Relative: onem2m.RelativeKeyID{1}, FQDN: served})
	if err != nil || status != http.StatusForbidden {
		t.Errorf("status %d (%v): %s", status, err, body)
	}
}

// plainAuthority makes an authority and a client's certificate with no name in
// subjectAltName.
func plainAuthority(t *testing.T) (ca []byte, leaf *tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(template, parent *x509.Certificate) []byte {
		template.NotAfter = time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	root := &x509.Certificate{Subject: pkix.Name{CommonName: "operator"}, IsCA: true, BasicConstraintsValid: true}
	ca = issue(root, root)
	return ca, &tls.Certificate{PrivateKey: key, Certificate: [][]byte{issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "in-cse.city.example"}, // a name here counts for nothing
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, root)}}
}
