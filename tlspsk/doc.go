// Package tlspsk implements TLS 1.2 and DTLS 1.2 with pre-shared keys, as
// client and as server, in the shape of crypto/tls.
//
// It has the PSK and ECDHE_PSK cipher suites of RFC 5487, 5489, 6655, 7905 and
// 8442, the extended master secret (RFC 7627), encrypt-then-MAC (RFC 7366),
// server_name and max_fragment_length (RFC 6066), record_size_limit (RFC
// 8449), and keying material exporters (RFC 5705). It has no certificates, no
// other versions, no compression, no session resumption, and refuses
// renegotiation: what is not there can't be attacked.
//
// A server:
//
//	config := &tlspsk.Config{
//		GetPSK: func(ctx context.Context, req *tlspsk.PSKRequest) (*tlspsk.PSK, error) {
//			key, ok := keys[string(req.Identity)]
//			if !ok {
//				return nil, tlspsk.ErrUnknownIdentity
//			}
//			return &tlspsk.PSK{Key: key}, nil
//		},
//	}
//	listener, err := tlspsk.Listen("udp", ":5684", config) // or "tcp"
//
// A client:
//
//	conn, err := tlspsk.Dial("udp", "maf.example.com:5684", &tlspsk.Config{
//		Identity: []byte("meter7@maf.example.com"),
//		Key:      key,
//	})
//
// # What a peer can do
//
// A peer that does not know a key learns nothing of which identities exist: an
// unknown identity and a wrong key take the same steps and end in the same
// alert. A DTLS server keeps nothing about an address before a cookie has come
// back from it. Once a DTLS session is established, nothing that is not
// authenticated has any effect on it.
//
// Handshakes run on the goroutine that reads, writes or calls Handshake;
// callbacks may block there for as long as the handshake may take, and hold no
// other resource than that goroutine and a few kilobytes.
package tlspsk
