package tlspsk

// The DTLS server, with its listener: "start" and "cookie" are the peer's state,
// since the server has none before a cookie has come back. In "gap" and "gap2" a
// message_seq is used up for nothing, before and after there are keys: the
// handshake can't go on, and times out. A ChangeCipherSpec says nothing here,
// present or absent: the epoch in each record says the same, and only that
// counts (docs/divergences.md).
const dtlsServerTable = `
                               start      cookie     key        finished   open       gap        gap2
ClientHello                    hello>     >key       unexpected gap        -          -          -
ClientKeyExchange              -          -          >finished  gap        -          -          -
Finished                       -          -          gap        >open      -          -          -
HelloRequest                   -          -          unexpected gap        -          -          -
HelloVerifyRequest             -          -          unexpected gap        -          -          -
ServerHello                    -          -          unexpected gap        -          -          -
ServerKeyExchange              -          -          unexpected gap        -          -          -
ServerHelloDone                -          -          unexpected gap        -          -          -
NewSessionTicket               -          -          unexpected gap        -          -          -
Certificate                    -          -          unexpected gap        -          -          -
CertificateRequest             -          -          unexpected gap        -          -          -
CertificateVerify              -          -          unexpected gap        -          -          -
CertificateStatus              -          -          unexpected gap        -          -          -
unassigned message             -          -          unexpected gap        -          -          -
clear Finished                 -          -          unexpected gap        -          -          -
ChangeCipherSpec               -          -          -          -          -          -          -
ChangeCipherSpec of 2          -          -          -          -          -          -          -
protected ChangeCipherSpec     -          -          -          -          -          -          -
data                           -          -          -          -          data       -          -
empty data                     -          -          -          -          -          -          -
clear data                     -          -          -          -          -          -          -
warning                        -          -          -          -          -          -          -
fatal alert                    -          -          -          refused    refused    -          refused
close_notify                   -          -          -          closed     closed     -          closed
half an alert                  -          -          -          -          -          -          -
clear warning                  -          -          -          -          -          -          -
clear fatal alert              -          -          refused    refused    -          refused    refused
clear close_notify             -          -          closed     closed     -          closed     closed
clear half an alert            -          -          -          -          -          -          -
record of unknown type         -          -          -          -          -          -          -
empty handshake record         -          -          -          -          -          -          -
half a header                  -          -          -          -          -          -          -
fragment beyond its end        -          -          -          -          -          -          -
empty datagram                 -          -          -          -          -          -          -
garbage                        -          -          -          -          -          -          -
half a record                  -          -          -          -          -          -          -
record of another version      -          -          -          -          -          -          -
record of epoch 2              -          -          -          -          -          -          -
record of a strange ID         -          -          -          -          -          -          -
record without its ID          -          -          -          -          -          -          -
message from the future        -          -          -          -          -          -          -
message too long               -          -          -          -          -          -          -
repeat                         -          -          -          -          -          -          -
stray fragment                 -          -          gap        -          -          -          -
protected unknown type         -          -          -          -          -          -          -
forged data                    -          -          -          -          -          -          -
forged alert                   -          -          -          -          -          -          -
forged handshake               -          -          early      forged     -          -          forged
replay                         -          -          -          -          -          -          -
protected ClientHello          -          -          gap        unexpected reneg      -          -
protected HelloRequest         -          -          gap        unexpected -          -          -
protected ClientKeyExchange    -          -          gap        unexpected -          -          -
protected ServerHelloDone      -          -          gap        unexpected -          -          -
requests to renegotiate        -          -          gap        unexpected reneg*     -          -
ClientHello without a cookie   hello>     hello?     hello?     hello?     hello?     hello?     hello?
ClientHello of another client  hello?     hello?     hello?     hello?     hello?     hello?     hello?
`

// The DTLS client. A server may ask for a cookie twice.
const dtlsClientTable = `
                               hello      hello2     hello3     kx         kx-ec      done       doomed     finished   open       gap        gap2
ServerHello                    >kx        >kx        >kx        unexpected unexpected unexpected unexpected gap        -          -          -
HelloVerifyRequest             >hello2    >hello3    unexpected unexpected unexpected unexpected unexpected gap        -          -          -
ServerKeyExchange              unexpected unexpected unexpected >done      >done      unexpected unexpected gap        -          -          -
ServerHelloDone                unexpected unexpected unexpected >finished  unexpected >finished  illegal    gap        -          -          -
Finished                       gap        gap        gap        gap        gap        gap        gap        >open      -          -          -
HelloRequest                   unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
ClientHello                    unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
ClientKeyExchange              unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
NewSessionTicket               unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
Certificate                    unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
CertificateRequest             unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
CertificateVerify              unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
CertificateStatus              unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
unassigned message             unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
clear Finished                 unexpected unexpected unexpected unexpected unexpected unexpected unexpected gap        -          -          -
ChangeCipherSpec               -          -          -          -          -          -          -          -          -          -          -
ChangeCipherSpec of 2          -          -          -          -          -          -          -          -          -          -          -
protected ChangeCipherSpec     -          -          -          -          -          -          -          -          -          -          -
data                           -          -          -          -          -          -          -          later      data       -          -
empty data                     -          -          -          -          -          -          -          -          -          -          -
clear data                     -          -          -          -          -          -          -          -          -          -          -
warning                        -          -          -          -          -          -          -          -          -          -          -
fatal alert                    -          -          -          -          -          -          -          refused    refused    -          refused
close_notify                   -          -          -          -          -          -          -          closed     closed     -          closed
half an alert                  -          -          -          -          -          -          -          -          -          -          -
clear warning                  -          -          -          -          -          -          -          -          -          -          -
clear fatal alert              refused    refused    refused    refused    refused    refused    refused    refused    -          refused    refused
clear close_notify             closed     closed     closed     closed     closed     closed     closed     closed     -          closed     closed
clear half an alert            -          -          -          -          -          -          -          -          -          -          -
record of unknown type         -          -          -          -          -          -          -          -          -          -          -
empty handshake record         -          -          -          -          -          -          -          -          -          -          -
half a header                  -          -          -          -          -          -          -          -          -          -          -
fragment beyond its end        -          -          -          -          -          -          -          -          -          -          -
empty datagram                 -          -          -          -          -          -          -          -          -          -          -
garbage                        -          -          -          -          -          -          -          -          -          -          -
half a record                  -          -          -          -          -          -          -          -          -          -          -
record of another version      -          -          -          -          -          -          -          -          -          -          -
record of epoch 2              -          -          -          -          -          -          -          -          -          -          -
record of a strange ID         -          -          -          -          -          -          -          -          -          -          -
record without its ID          -          -          -          -          -          -          -          -          -          -          -
message from the future        -          -          -          -          -          -          -          -          -          -          -
message too long               -          -          -          -          -          -          -          -          -          -          -
repeat                         -          -          -          -          -          -          -          -          -          -          -
stray fragment                 gap        gap        gap        gap        gap        gap        gap        -          -          -          -
protected unknown type         -          -          -          -          -          -          -          -          -          -          -
forged data                    -          -          -          -          -          -          -          -          -          -          -
forged alert                   -          -          -          -          -          -          -          -          -          -          -
forged handshake               early      early      early      early      early      early      early      forged     -          -          forged
replay                         -          -          -          -          -          -          -          -          -          -          -
protected ClientHello          gap        gap        gap        gap        gap        gap        gap        unexpected -          -          -
protected HelloRequest         gap        gap        gap        gap        gap        gap        gap        unexpected reneg      -          -
protected ClientKeyExchange    gap        gap        gap        gap        gap        gap        gap        unexpected -          -          -
protected ServerHelloDone      gap        gap        gap        gap        gap        gap        gap        unexpected -          -          -
requests to renegotiate        gap        gap        gap        gap        gap        gap        gap        unexpected reneg*     -          -
ClientHello without a cookie   unexpected unexpected unexpected unexpected unexpected unexpected unexpected -          -          -          -
ClientHello of another client  unexpected unexpected unexpected unexpected unexpected unexpected unexpected -          -          -          -
`
