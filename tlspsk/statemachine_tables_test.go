package tlspsk

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The state machines, as tables: what each message means in each state. A cell is
//
//	>state      taken; the next state
//	-           dropped in silence
//	data        handed to the application
//	later       handed to the application if the handshake succeeds
//	warn        noted; one too many in a row is unexpected_message
//	reneg       refused with a no_renegotiation warning, the fourth with handshake_failure
//	reneg*      four of those at once
//	refused     the peer's fatal alert ends it
//	closed      the peer's close_notify ends it
//	forged      dropped, but the second in a DTLS handshake is bad_record_mac
//	early       DTLS: kept until there are keys, as it may be a Finished; then it is forged
//	gap         DTLS: dropped, but its message_seq is used up, so that nothing can follow
//	hello?      DTLS: answered with a HelloVerifyRequest by a server that keeps nothing
//	hello>      the same, and the peer has its cookie now
//	?           no sequence has this
//
// or the alert that ends the session. Every letter has a row and every row is
// complete: a message that a table forgets is a failure.

// The TLS server. "mid" is within a message of which a part has come, "mid2" that
// under keys. As long as the hello is not whole, its records may be of an older
// version.
const tlsServerTable = `
                          hello      key        ccs        finished   open       mid-hello  mid        mid2
ClientHello               >key       unexpected unexpected unexpected reneg      ?          ?          ?
ClientKeyExchange         unexpected >ccs       unexpected unexpected unexpected ?          ?          ?
ChangeCipherSpec          unexpected unexpected >finished  unexpected unexpected unexpected unexpected unexpected
Finished                  unexpected unexpected unexpected >open      unexpected ?          ?          ?
HelloRequest              unexpected unexpected unexpected unexpected unexpected ?          ?          ?
HelloVerifyRequest        unexpected unexpected unexpected unexpected unexpected ?          ?          ?
ServerHello               unexpected unexpected unexpected unexpected unexpected ?          ?          ?
ServerKeyExchange         unexpected unexpected unexpected unexpected unexpected ?          ?          ?
ServerHelloDone           unexpected unexpected unexpected unexpected unexpected ?          ?          ?
NewSessionTicket          unexpected unexpected unexpected unexpected unexpected ?          ?          ?
Certificate               unexpected unexpected unexpected unexpected unexpected ?          ?          ?
CertificateRequest        unexpected unexpected unexpected unexpected unexpected ?          ?          ?
CertificateVerify         unexpected unexpected unexpected unexpected unexpected ?          ?          ?
CertificateStatus         unexpected unexpected unexpected unexpected unexpected ?          ?          ?
unassigned message        unexpected unexpected unexpected unexpected unexpected ?          ?          ?
data                      unexpected unexpected unexpected unexpected data       unexpected unexpected unexpected
empty data                unexpected unexpected unexpected unexpected warn       unexpected unexpected unexpected
empty data, 17 times      unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
record of unknown type    unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
empty handshake record    unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
half a message            >mid-hello >mid       unexpected >mid2      unexpected ?          ?          ?
message too long          illegal    illegal    unexpected illegal    unexpected ?          ?          ?
warning                   warn       warn       warn       warn       warn       warn       warn       warn
17 warnings               unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
fatal alert               refused    refused    refused    refused    refused    refused    refused    refused
close_notify              closed     closed     closed     closed     closed     closed     closed     closed
empty alert               decode     decode     decode     decode     decode     decode     decode     decode
half an alert             decode     decode     decode     decode     decode     decode     decode     decode
two alerts at once        decode     decode     decode     decode     decode     decode     decode     decode
alert of no level         decode     decode     decode     decode     decode     decode     decode     decode
empty ChangeCipherSpec    unexpected unexpected decode     unexpected unexpected unexpected unexpected unexpected
long ChangeCipherSpec     unexpected unexpected decode     unexpected unexpected unexpected unexpected unexpected
ChangeCipherSpec of 2     unexpected unexpected decode     unexpected unexpected unexpected unexpected unexpected
record too long           overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow
header beyond all         overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow
record of 1.1             warn       version    version    version    version    warn       version    version
record of version 4       version    version    version    version    version    version    version    version
clear data                unexpected unexpected unexpected mac        mac        unexpected unexpected mac
clear alert               refused    refused    refused    mac        mac        refused    refused    mac
clear close_notify        closed     closed     closed     mac        mac        closed     closed     mac
clear ChangeCipherSpec    unexpected unexpected ?          mac        mac        unexpected unexpected mac
clear Finished            unexpected unexpected unexpected mac        mac        ?          ?          mac
forged data               unexpected unexpected unexpected mac        mac        unexpected unexpected mac
forged Finished           unexpected unexpected unexpected mac        mac        ?          ?          mac
requests to renegotiate   unexpected unexpected unexpected unexpected reneg*     ?          ?          ?
`

// The TLS client. "kx" is where plain PSK may have a ServerKeyExchange or not,
// "kx-ec" where ECDHE_PSK must. "doomed" is "done" after a public key that is
// of no use, which the client finds out when it comes to need it. A HelloRequest
// within the handshake, which RFC 5246 section 7.4.1.1 would have ignored, is
// refused: no server sends one.
const tlsClientTable = `
                          hello      kx         kx-ec      done       doomed     ccs        finished   open       mid-hello  mid        mid2
ServerHello               >kx        unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
ServerKeyExchange         unexpected >done      >done      unexpected unexpected unexpected unexpected unexpected ?          ?          ?
ServerHelloDone           unexpected >ccs       unexpected >ccs       illegal    unexpected unexpected unexpected ?          ?          ?
ChangeCipherSpec          unexpected unexpected unexpected unexpected unexpected >finished  unexpected unexpected unexpected unexpected unexpected
Finished                  unexpected unexpected unexpected unexpected unexpected unexpected >open      unexpected ?          ?          ?
HelloRequest              unexpected unexpected unexpected unexpected unexpected unexpected unexpected reneg      ?          ?          ?
ClientHello               unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
HelloVerifyRequest        unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
ClientKeyExchange         unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
NewSessionTicket          unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
Certificate               unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
CertificateRequest        unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
CertificateVerify         unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
CertificateStatus         unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
unassigned message        unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected ?          ?          ?
data                      unexpected unexpected unexpected unexpected unexpected unexpected unexpected data       unexpected unexpected unexpected
empty data                unexpected unexpected unexpected unexpected unexpected unexpected unexpected warn       unexpected unexpected unexpected
empty data, 17 times      unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
record of unknown type    unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
empty handshake record    unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
half a message            >mid-hello >mid       >mid       >mid       >mid       unexpected >mid2      unexpected ?          ?          ?
message too long          illegal    illegal    illegal    illegal    illegal    unexpected illegal    unexpected ?          ?          ?
warning                   warn       warn       warn       warn       warn       warn       warn       warn       warn       warn       warn
17 warnings               unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected unexpected
fatal alert               refused    refused    refused    refused    refused    refused    refused    refused    refused    refused    refused
close_notify              closed     closed     closed     closed     closed     closed     closed     closed     closed     closed     closed
empty alert               decode     decode     decode     decode     decode     decode     decode     decode     decode     decode     decode
half an alert             decode     decode     decode     decode     decode     decode     decode     decode     decode     decode     decode
two alerts at once        decode     decode     decode     decode     decode     decode     decode     decode     decode     decode     decode
alert of no level         decode     decode     decode     decode     decode     decode     decode     decode     decode     decode     decode
empty ChangeCipherSpec    unexpected unexpected unexpected unexpected unexpected decode     unexpected unexpected unexpected unexpected unexpected
long ChangeCipherSpec     unexpected unexpected unexpected unexpected unexpected decode     unexpected unexpected unexpected unexpected unexpected
ChangeCipherSpec of 2     unexpected unexpected unexpected unexpected unexpected decode     unexpected unexpected unexpected unexpected unexpected
record too long           overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow
header beyond all         overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow   overflow
record of 1.1             warn       version    version    version    version    version    version    version    warn       version    version
record of version 4       version    version    version    version    version    version    version    version    version    version    version
clear data                unexpected unexpected unexpected unexpected unexpected unexpected mac        mac        unexpected unexpected mac
clear alert               refused    refused    refused    refused    refused    refused    mac        mac        refused    refused    mac
clear close_notify        closed     closed     closed     closed     closed     closed     mac        mac        closed     closed     mac
clear ChangeCipherSpec    unexpected unexpected unexpected unexpected unexpected ?          mac        mac        unexpected unexpected mac
clear Finished            unexpected unexpected unexpected unexpected unexpected unexpected mac        mac        ?          ?          mac
forged data               unexpected unexpected unexpected unexpected unexpected unexpected mac        mac        unexpected unexpected mac
forged Finished           unexpected unexpected unexpected unexpected unexpected unexpected mac        mac        ?          ?          mac
requests to renegotiate   unexpected unexpected unexpected unexpected unexpected unexpected unexpected reneg*     ?          ?          ?
`

// Messages with the wrong content: as the one they are like, but where that one
// is taken, the alert. "where" is the kind of handshake in which it is wrong.
const clientFaults = `
                                         like               alert        where
ClientHello of 1.1                       ClientHello        version      -
ClientHello of 1.3 alone                 ClientHello        version      -
ClientHello, no common suite             ClientHello        failure      -
ClientHello, no suites                   ClientHello        decode       -
ClientHello, session ID too long         ClientHello        decode       tls
ClientHello, record_size_limit of 63     ClientHello        illegal      -
ClientHello, max_fragment_length 5       ClientHello        illegal      -
ClientHello, renegotiation_info          ClientHello        failure      -
ClientHello, foreign group               ClientHello        failure      ecdhe
ClientHello, no extended master secret   ClientHello        failure      strong
ClientHello, no encrypt-then-MAC         ClientHello        failure      strong
ClientHello and an octet                 ClientHello        decode       -
ClientHello, no null compression         ClientHello        illegal      -
ClientHello, no compression              ClientHello        decode       -
ClientHello, extension repeated          ClientHello        illegal      -
ClientHello, compressed points alone     ClientHello        illegal      -
ClientHello, empty server_name           ClientHello        decode       -
ClientHello, NUL in server_name          ClientHello        decode       -
ClientHello, server_name cut             ClientHello        decode       -
ClientHello, extension beyond the block  ClientHello        decode       -
empty ClientHello                        ClientHello        decode       tls
ClientKeyExchange, no point              ClientKeyExchange  decode       ecdhe
ClientKeyExchange, short point           ClientKeyExchange  illegal      ecdhe
ClientKeyExchange, bad point             ClientKeyExchange  illegal      ecdhe
ClientKeyExchange and an octet           ClientKeyExchange  decode       -
ClientKeyExchange, identity cut          ClientKeyExchange  decode       -
ClientKeyExchange, long identity         ClientKeyExchange  illegal      -
empty ClientKeyExchange                  ClientKeyExchange  decode       -
empty Finished                           Finished           decode       -
Finished of zeros                        Finished           decrypt      -
the peer's Finished                      Finished           decrypt      -
short Finished                           Finished           decode       -
long Finished                            Finished           decode       -
`

const serverFaults = `
                                              like               alert        where
ServerHello of 1.1                            ServerHello        version      -
ServerHello of 1.3                            ServerHello        version      -
ServerHello, other suite                      ServerHello        illegal      -
ServerHello, no suite                         ServerHello        illegal      -
ServerHello, compression                      ServerHello        illegal      -
ServerHello, session ID too long              ServerHello        decode       -
ServerHello, max_fragment_length              ServerHello        unsupported  -
ServerHello, record_size_limit                ServerHello        unsupported  -
ServerHello, renegotiation_info               ServerHello        failure      -
ServerHello, no extended master secret        ServerHello        failure      strong
ServerHello, no encrypt-then-MAC              ServerHello        failure      strong
ServerHello and an octet                      ServerHello        decode       -
ServerHello, encrypt-then-MAC unasked         ServerHello        unsupported  aead
ServerHello, extension repeated               ServerHello        illegal      -
ServerHello, unknown extension                ServerHello        unsupported  -
ServerHello, supported_versions               ServerHello        unsupported  -
ServerHello, something in an empty extension  ServerHello        decode       -
ServerHello, compressed points alone          ServerHello        illegal      ecdhe
empty ServerHello                             ServerHello        decode       -
ServerKeyExchange, foreign group              ServerKeyExchange  >doomed      ecdhe
ServerKeyExchange, no point                   ServerKeyExchange  decode       ecdhe
ServerKeyExchange, short point                ServerKeyExchange  >doomed      ecdhe
ServerKeyExchange, bad point                  ServerKeyExchange  >doomed      ecdhe
ServerKeyExchange, explicit curve             ServerKeyExchange  decode       -
ServerKeyExchange and an octet                ServerKeyExchange  decode       -
ServerKeyExchange, hint cut                   ServerKeyExchange  decode       -
empty ServerKeyExchange                       ServerKeyExchange  decode       -
ServerHelloDone and an octet                  ServerHelloDone    decode       -
empty Finished                                Finished           decode       -
Finished of zeros                             Finished           decrypt      -
the peer's Finished                           Finished           decrypt      -
short Finished                                Finished           decode       -
long Finished                                 Finished           decode       -
`

// tableAlerts are the alerts by the names that the tables have for them.
var tableAlerts = map[string]Alert{
	"unexpected":  AlertUnexpectedMessage,
	"mac":         AlertBadRecordMAC,
	"overflow":    AlertRecordOverflow,
	"failure":     AlertHandshakeFailure,
	"illegal":     AlertIllegalParameter,
	"decode":      AlertDecodeError,
	"decrypt":     AlertDecryptError,
	"version":     AlertProtocolVersion,
	"unsupported": AlertUnsupportedExtension,
}

// A stateTable is a table that has been read: a verdict by letter and state.
type stateTable struct {
	states  []string
	letters []string // in the table's order, then those with faults
	order   int      // how many have none
	cells   map[string]map[string]string
}

var columns = regexp.MustCompile(`\s{2,}`)

func rows(text string) [][]string {
	var list [][]string
	for line := range strings.Lines(strings.Trim(text, "\n")) {
		name, rest, _ := strings.Cut(columns.ReplaceAllString(strings.TrimRight(line, "\n"), "\x00"), "\x00")
		list = append(list, append([]string{name}, strings.FieldsFunc(rest, func(r rune) bool { return r == 0 || r == ' ' })...))
	}
	return list
}

// readTable reads a table and the messages with faults that belong to it.
func readTable(text, faults string, v variant, dtls bool) (*stateTable, error) {
	t := &stateTable{cells: make(map[string]map[string]string)}
	list := rows(text)
	t.states = list[0][1:]
	for _, row := range list[1:] {
		if len(row) != len(t.states)+1 || t.cells[row[0]] != nil {
			return nil, fmt.Errorf("row %q", row)
		}
		cells := make(map[string]string)
		for i, verdict := range row[1:] {
			if err := t.check(verdict); err != nil {
				return nil, fmt.Errorf("%s, %s: %v", row[0], t.states[i], err)
			}
			cells[t.states[i]] = verdict
		}
		t.letters = append(t.letters, row[0])
		t.cells[row[0]] = cells
	}
	t.order = len(t.letters)
	if dtls && v.connectionIDs {
		t.hideTypes()
	}
	return t, t.readFaults(faults, v, dtls)
}

func (t *stateTable) check(verdict string) error {
	next, taken := strings.CutPrefix(verdict, ">")
	verdicts := strings.Fields("- data later warn reneg reneg* refused closed forged early gap hello? hello> ?")
	if _, alert := tableAlerts[verdict]; alert || slices.Contains(verdicts, verdict) || taken && slices.Contains(t.states, next) {
		return nil
	}
	return fmt.Errorf("verdict %q", verdict)
}

func (t *stateTable) readFaults(text string, v variant, dtls bool) error {
	where := map[string]bool{"-": true, "tls": !dtls, "ecdhe": v.ecdhe(), "strong": v.requireStrong,
		"aead": v.suite != TLS_PSK_WITH_AES_128_CBC_SHA256 && v.suite != TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256}
	for _, row := range rows(text)[1:] {
		applies, ok := where[row[3]]
		if !ok || t.check(row[2]) != nil || t.cells[row[1]] == nil || t.cells[row[0]] != nil {
			return fmt.Errorf("row %q", row)
		}
		if !applies {
			continue
		}
		cells := make(map[string]string)
		for state, verdict := range t.cells[row[1]] {
			// A message's form is looked at before the key is needed that is of no use.
			if strings.HasPrefix(verdict, ">") || state == "doomed" && verdict == "illegal" {
				verdict = row[2]
			}
			cells[state] = verdict
		}
		t.letters = append(t.letters, row[0])
		t.cells[row[0]] = cells
	}
	return nil
}

// hideTypes makes the table one for a server that has given out a connection ID:
// it can't tell what is in a record that does not authenticate, which may be a
// Finished.
func (t *stateTable) hideTypes() {
	if !slices.Contains(t.states, "key") {
		return // a client, which gives out none
	}
	for _, letter := range []string{"protected ChangeCipherSpec", "data", "empty data", "warning", "fatal alert", "close_notify",
		"half an alert", "protected unknown type", "forged data", "forged alert"} {
		t.cells[letter]["key"] = "early"
	}
	for _, letter := range []string{"forged data", "forged alert"} {
		t.cells[letter]["finished"], t.cells[letter]["gap2"] = "forged", "forged"
	}
}

// orderLetters are the letters with the right content: what deviates is when
// they are said.
func (t *stateTable) orderLetters() []string { return t.letters[:t.order] }

// Every letter that a puppet can say has a row in the tables, and the other
// way round.
func TestStateTablesComplete(t *testing.T) {
	for _, m := range machines {
		said := make(map[string]bool)
		for _, v := range variants {
			table, err := readTable(m.table, m.faults, v, m.dtls)
			if err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
			for _, name := range table.letters {
				said[name] = true
				_, isMessage := puppetMessages[name]
				if !isMessage && !m.hasRecord(name) {
					t.Errorf("%s: no puppet can say %q", m.name, name)
				}
			}
		}
		for _, name := range m.records() {
			if !said[name] {
				t.Errorf("%s: the table has no %q", m.name, name)
			}
		}
		for name := range puppetMessages {
			// A message with a fault has a row where its sender is the puppet.
			plain := !strings.ContainsAny(name, " ") || name == "unassigned message"
			if plain && !said[name] {
				t.Errorf("%s: the table has no %q", m.name, name)
			}
		}
	}
	for name := range puppetMessages {
		if !strings.Contains(tlsServerTable+clientFaults+serverFaults, "\n"+name+" ") {
			t.Errorf("no table has %q", name)
		}
	}
}
