package saef

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/keyapi/keyserver"
	"github.com/onem2m-maf/maf/internal/pki"
	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/tlspsk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mafFQDN onem2m.FQDN = "maf.example.com"

var (
	inCSE = onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"}
	meter = onem2m.KmID{Relative: "meter7", FQDN: mafFQDN}
	km    = NewSecret(bytes.Repeat([]byte("m"), 32))
	aeID  = onem2m.AEID{SP: "sp.example.com", CSE: "in-cse", Stem: "Cmeter7"}
)

// fakeMAF is a MAF of tlspsk and keyserver with its keys in memory: what this
// package needs of one, and not a line of the real MAF's core.
type fakeMAF struct {
	tcp, udp   string // handshake endpoints
	keyAPI     string // base URL
	ca         *pki.Authority
	handshakes atomic.Int64
	asked      atomic.Int64
	stopKeyAPI func()

	mu       sync.Mutex
	clients  map[onem2m.KmID]*fakeClient // guarded by mu
	released map[onem2m.KcID]fakeKc      // guarded by mu
	log      []authority.Revocation      // guarded by mu
	dropped  int64                       // revocations before log; guarded by mu
	more     chan struct{}               // closed and replaced when log grows; guarded by mu
}

type fakeClient struct {
	km       Secret
	idB      onem2m.CSEID
	lifetime time.Duration
	aeID     onem2m.AEID
	cseID    onem2m.CSEID
}

type fakeKc struct {
	authority.Released
	idB onem2m.CSEID
}

// newMAF starts a MAF that knows meter.
func newMAF(t *testing.T) *fakeMAF {
	t.Helper()
	ca, err := pki.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMAF{
		ca:       ca,
		clients:  map[onem2m.KmID]*fakeClient{meter: {km: km, idB: inCSE, lifetime: time.Hour, aeID: aeID}},
		released: make(map[onem2m.KcID]fakeKc),
		more:     make(chan struct{}),
	}
	m.tcp = m.serveHandshakes(t, "tcp")
	m.udp = m.serveHandshakes(t, "udp")
	m.serveKeyAPI(t)
	return m
}

func (m *fakeMAF) serveHandshakes(t *testing.T, network string) string {
	t.Helper()
	listener, err := tlspsk.Listen(network, "127.0.0.1:0", &tlspsk.Config{GetPSK: m.getPSK, VerifyConnection: m.establish})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				// Over DTLS a server stays until the client has its Finished.
				c.Read(make([]byte, 1))
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	return listener.Addr().String()
}

func (m *fakeMAF) getPSK(_ context.Context, req *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
	id, err := onem2m.ParseKmID(string(req.Identity))
	if err != nil || req.ServerName != id.FQDN.String() {
		return nil, fmt.Errorf("%w: %q at %q", tlspsk.ErrUnknownIdentity, req.Identity, req.ServerName)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	client := m.clients[id]
	if client == nil {
		return nil, tlspsk.ErrUnknownIdentity
	}
	return &tlspsk.PSK{Key: client.km.Bytes(), Data: id}, nil
}

func (m *fakeMAF) establish(_ context.Context, cs *tlspsk.ConnectionState) error {
	exported, err := cs.ExportKeyingMaterial(kdf.ConnectionLabel, nil, kdf.ConnectionLength)
	if err != nil {
		return err
	}
	relative, kc, err := kdf.Connection(exported)
	if err != nil {
		return err
	}
	id := onem2m.KcID{Relative: relative, FQDN: mafFQDN}
	m.handshakes.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	kmID := cs.PSKData.(onem2m.KmID)
	client := m.clients[kmID]
	m.released[id] = fakeKc{authority.Released{
		KcID: id, Kc: kc, Expires: time.Now().Add(client.lifetime), Lifetime: client.lifetime,
		KmID: kmID, AEID: client.aeID, CSEID: client.cseID,
	}, client.idB}
	return nil
}

func (m *fakeMAF) Release(_ context.Context, idB onem2m.CSEID, id onem2m.KcID) (authority.Released, error) {
	m.asked.Add(1)
	m.mu.Lock()
	defer m.mu.Unlock()
	kc, ok := m.released[id]
	if !ok || kc.idB != idB {
		return authority.Released{}, authority.ErrNotFound
	}
	released := kc.Released
	released.Kc = NewSecret(kc.Kc.Bytes()) // the caller wipes it
	return released, nil
}

// lose forgets all keys, without a word.
func (m *fakeMAF) lose() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.released)
}

// revoke ends keys and tells so.
func (m *fakeMAF) revoke(r authority.Revocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, kc := range m.released {
		if kc.KmID == r.KmID && (r.KcID.IsZero() || r.KcID == id) {
			delete(m.released, id)
		}
	}
	m.log = append(m.log, r)
	close(m.more)
	m.more = make(chan struct{})
}

// dropLog makes every reader of the revocations start over.
func (m *fakeMAF) dropLog() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dropped += int64(len(m.log)) + 1
	m.log = nil
}

func (m *fakeMAF) Revocations(ctx context.Context, _ onem2m.CSEID, after int64, limit int) ([]authority.Revocation, int64, error) {
	for {
		m.mu.Lock()
		list, first, more := m.log, m.dropped, m.more
		m.mu.Unlock()
		last := first + int64(len(list))
		switch {
		case after < 0:
			return nil, last, nil
		case after < first || after > last:
			return nil, 0, authority.ErrStartOver
		case after < last:
			list = list[after-first:]
			list = list[:min(limit, len(list))]
			return list, after + int64(len(list)), nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil, after, nil
		}
	}
}

func (m *fakeMAF) edit(change func(*fakeClient)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(m.clients[meter])
}

func (m *fakeMAF) serveKeyAPI(t *testing.T) {
	t.Helper()
	cert, err := m.ca.Server([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	// After a stop, where it was.
	addr := strings.TrimPrefix(m.keyAPI, "https://")
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m.keyAPI = "https://" + listener.Addr().String()
	server := keyserver.NewServer(keyserver.TLSConfig(cert, m.ca.Pool()), m, slog.New(slog.DiscardHandler))
	var done sync.WaitGroup
	done.Go(func() { server.ServeTLS(listener, "", "") })
	m.stopKeyAPI = func() { server.Close(); done.Wait() }
	t.Cleanup(m.stopKeyAPI)
}

// device is meter.
func (m *fakeMAF) device() *Device {
	return &Device{MAF: m.tcp, KmID: meter, Km: km}
}

// entityB returns an Entity B with the given CSE-ID that trusts m, and whose
// refusals can be waited for.
func (m *fakeMAF) entityB(t *testing.T, id onem2m.CSEID) (*EntityB, <-chan Refusal) {
	t.Helper()
	issued, err := m.ca.EntityB(id, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(issued.CertificatePEM, issued.KeyPEM.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	refusals := make(chan Refusal, 100)
	b := &EntityB{
		MAFs:        map[onem2m.FQDN]string{mafFQDN: m.keyAPI},
		Certificate: cert,
		RootCAs:     m.ca.Pool(),
		OnRefused:   func(r Refusal) { refusals <- r },
	}
	t.Cleanup(func() { b.Close() })
	return b, refusals
}

// listen starts a listener of b whose associations echo, and returns its
// address and the associations.
func listen(t *testing.T, b *EntityB, network string) (addr string, associations <-chan Association) {
	t.Helper()
	listener, err := b.Listen(network, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan Association, 100)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.AcceptAssociation()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			accepted <- c.Association()
			all.Go(func() {
				defer c.Close()
				buf := make([]byte, 100)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					c.Write(buf[:n])
				}
			})
		}
	})
	t.Cleanup(func() { listener.Close(); all.Wait() })
	waitFollowed(t, b)
	return listener.Addr().String(), accepted
}

// dial opens an association, checks that it carries data, and closes it.
func dial(t *testing.T, d *Device, network, addr string) {
	t.Helper()
	c, err := d.Dial(t.Context(), network, addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Fatalf("%q, %v", buf[:n], err)
	}
}
