// Package saef opens and accepts oneM2M security associations with keys from an
// M2M Authentication Function: the MAF-based Security Association Establishment
// Framework of TS-0003 8.2.2.3, over TLS and DTLS.
//
// A [Device] is Entity A, an AE or a CSE in the field. It shares a master key
// (Km) with the MAF and connects to Entity B:
//
//	device := &saef.Device{MAF: "maf.example.com:7443", KmID: kmID, Km: km}
//	conn, err := device.Dial(ctx, "tcp", "in-cse.example.com:8443")
//	fmt.Fprintln(conn, "hello")
//
// Dial does a MAF Handshake first when there is no connection key (Kc) yet or
// when Entity B refuses the one there is. The key is kept for the next Dial.
//
// An [EntityB] is the other end, a CSE. It shares no key with devices; it asks
// the MAF for Kc when a device names one, and learns from the MAF who the device
// is:
//
//	b := &saef.EntityB{MAFs: mafs, Certificate: certificate, RootCAs: roots}
//	listener, err := b.Listen("tcp", ":8443")
//	conn, err := listener.AcceptAssociation()
//	fmt.Println(conn.Association().Peer())
//
// While Entity B listens it follows what its MAFs revoke: associations whose key is
// revoked are closed within a second. When a MAF can't be reached, associations and
// keys that are known go on, and only what needs the MAF fails; [EntityB.Status]
// and EntityB.Log tell.
//
// Both work over "udp" as well; a Write is then one datagram, and so is a Read.
//
// Keys are held in values that fmt, slog and encoding/json show as "[redacted]".
package saef
