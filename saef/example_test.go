package saef_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/onem2m-maf/maf/onem2m"
	"github.com/onem2m-maf/maf/saef"
)

// Entity A: a device that sends a line to Entity B.
func ExampleDevice() {
	km, err := saef.ParseSecret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	if err != nil {
		log.Fatal(err)
	}
	device := &saef.Device{
		MAF:   "maf.example.com:7443",
		KmID:  onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"},
		Km:    km,
		Cache: saef.FileCache("/var/lib/meter/kc.json"),
	}
	conn, err := device.Dial(context.Background(), "tcp", "in-cse.example.com:8443")
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, "230.1 V")
}

// Entity B: a CSE that says who has connected.
func ExampleEntityB() {
	certificate, err := tls.LoadX509KeyPair("in-cse.crt", "in-cse.key")
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool() // with the certificate of the MAF's authority
	b := &saef.EntityB{
		MAFs:        map[onem2m.FQDN]string{"maf.example.com": "https://maf.example.com:8443"},
		Certificate: certificate,
		RootCAs:     roots,
		OnRefused:   func(r saef.Refusal) { log.Printf("refused %v (%q): %v", r.RemoteAddr, r.Identity, r.Err) },
	}
	listener, err := b.Listen("tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.AcceptAssociation()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(conn.Association().Peer(), "has connected")
		go io.Copy(io.Discard, conn)
	}
}

// HTTP over associations, with the peer's identity at hand.
func ExampleEntityB_http() {
	var b saef.EntityB
	listener, err := b.Listen("tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	type key struct{}
	server := http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, key{}, c.(*saef.Conn).Association())
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintln(w, "hello", r.Context().Value(key{}).(saef.Association).Peer())
		}),
	}
	log.Fatal(server.Serve(listener))
}
