package demo

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
	"github.com/onem2m-maf/maf/tlspsk"
)

// PlatformCommand is the hidden command of maf that is Platform:
//
//	maf demo-platform FOLDER MAF-FQDN KEY-API-URL
const PlatformCommand = "demo-platform"

// An Event is what a platform tells the demo, as a line of JSON.
type Event struct {
	Listening string `json:"listening,omitempty"` // its address: the first event
	// A device has come in, and who it is.
	Peer    string       `json:"peer,omitempty"`
	KcID    *onem2m.KcID `json:"kcID,omitempty"`
	Expires *time.Time   `json:"expires,omitempty"`
	// A device has been turned away, and why.
	Refused string `json:"refused,omitempty"`
}

// Platform is an Entity B that notes each line that a device sends and answers
// it, until ctx ends. The folder is one of "maf entity-b add".
func Platform(ctx context.Context, folder string, maf onem2m.FQDN, keyAPI string, out io.Writer) error {
	file := func(name string) string { return filepath.Join(folder, name) }
	certificate, err := tls.LoadX509KeyPair(file("cert.pem"), file("key.pem"))
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(file("ca.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)

	tell := teller(out)
	b := &saef.EntityB{
		MAFs:        map[onem2m.FQDN]string{maf: keyAPI},
		Certificate: certificate,
		RootCAs:     roots,
		OnRefused:   func(r saef.Refusal) { tell(Event{Refused: why(r)}) },
	}
	defer b.Close()
	listener, err := b.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	tell(Event{Listening: listener.Addr().String()})
	for {
		conn, err := listener.AcceptAssociation()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		a := conn.Association()
		tell(Event{Peer: a.Peer(), KcID: &a.KcID, Expires: &a.Expires})
		go answer(conn)
	}
}

// why says why a device was turned away, in the fewest words.
func why(r saef.Refusal) string {
	err := r.Err
	if alert := (*tlspsk.AlertError)(nil); errors.As(err, &alert) && alert.Err != nil {
		err = alert.Err
	}
	return strings.TrimPrefix(err.Error(), tlspsk.ErrUnknownIdentity.Error()+": ")
}

// teller returns a function that writes events, whoever calls it.
func teller(out io.Writer) func(Event) {
	var mu sync.Mutex
	e := json.NewEncoder(out)
	return func(event Event) {
		mu.Lock()
		defer mu.Unlock()
		e.Encode(event)
	}
}

func answer(conn *saef.Conn) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		fmt.Fprintf(conn, "noted for %s: %q\n", conn.Association().Peer(), lines.Text())
	}
}
