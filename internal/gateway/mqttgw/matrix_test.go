package mqttgw

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/onem2m-maf/maf/internal/gateway/matrix"
	"github.com/onem2m-maf/maf/internal/gateway/mqtt"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/saef"
)

// Every row of the matrix of identity rules, through MQTT: what the peer gets,
// and whom the CSE sees.
func TestMatrix(t *testing.T) {
	rows, err := matrix.Rows()
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t, echo)
	f := newFixture(t, b.address(), matrix.Config(), nil)
	type connection struct {
		*client
		broker *session
		names  *names
	}
	connections := make(map[string]connection)
	for _, p := range matrix.Peers() {
		if p.Association == (saef.Association{}) {
			continue // there is no MQTT without an association
		}
		c := f.connect(f.device(p))
		connections[p.Name] = connection{c, b.session(), &names{
			cse: f.server.config.CSE, cseNames: f.server.config.CSENames,
			credential: p.Association.CredentialID().String(), peer: f.server.config.Rules.Peer(p.Association),
		}}
	}
	done := 0
	for _, row := range rows {
		c, ok := connections[row.Peer.Name]
		if !ok {
			continue
		}
		done++
		name, told := rowTopic(row, c.names)
		c.send(&mqtt.Publish{Topic: name.String(), Payload: rowPayload(t, row)})
		if told {
			p, ok := c.read().(*mqtt.Publish)
			if !ok || p.Topic != name.answer().String() {
				t.Errorf("%s: answered with %+v", row, p)
			}
		}
		e := f.entries.next(t)
		if unreadable(row.Form.From) {
			row.Status, row.Clause = 4000, "no JSON; the rules are not asked"
		}
		if row.Status != 0 {
			if !e.Refused || e.Status != row.Status {
				t.Errorf("%s: %+v, want %d (%s)", row, e, row.Status, row.Clause)
			}
			continue
		}
		if e.Refused || e.Status != 2000 {
			t.Errorf("%s: %+v, want it allowed (%s)", row, e, row.Clause)
			continue
		}
		p := c.broker.next().(*mqtt.Publish)
		for parser, parse := range parsers {
			if from, err := parse(p.Payload); err != nil || from != row.Origin {
				t.Errorf("%s: a CSE whose parser %s sees %q, %v, want %q", row, parser, from, err, row.Origin)
			}
		}
	}
	for name, c := range connections {
		if n := len(c.broker.got); n > 0 {
			t.Errorf("%s: the CSE got %d requests more than were allowed", name, n)
		}
	}
	if done < len(rows)/2 {
		t.Errorf("%d of %d rows", done, len(rows))
	}
}

// device makes the device of a peer in the matrix.
func (f *fixture) device(p matrix.Peer) *saef.Device {
	switch a := p.Association; {
	case !a.AEID.IsZero():
		return f.site.AE(p.Name, a.AEID.String())
	case !a.CSEID.IsZero():
		return f.site.CSE(p.Name, a.CSEID.String())
	}
	return f.site.Unnamed(p.Name)
}

// rowTopic returns the topic on which the peer sends the request of a row, and
// whether it has a topic to be answered on.
func rowTopic(row matrix.Row, n *names) (name topic, told bool) {
	name = topic{kind: kindReq, receiver: "in-cse", format: formatJSON}
	if op := row.Operation; op.Operation == policy.Create && (op.Type == typeAE || op.Type == typeRemoteCSE) {
		name.kind, name.originator = kindRegReq, n.credential
		return name, true
	}
	if own := n.ownNames(); len(own) > 0 {
		name.originator = own[0]
		return name, true
	}
	name.originator = "Cnobody"
	return name, false
}

// unreadable reports whether the parser refuses a text with this in it.
func unreadable(from string) bool { return strings.Contains(from, "\x00") || !utf8.ValidString(from) }

func rowPayload(t *testing.T, row matrix.Row) []byte {
	t.Helper()
	req := map[string]any{"op": int(row.Operation.Operation), "to": row.Operation.To, "rqi": "r", "rvi": "3"}
	if row.Form.HasFrom {
		req["fr"] = row.Form.From
	}
	if row.Operation.Type != 0 {
		req["ty"] = row.Operation.Type
	}
	if row.Operation.Content != "" {
		req["pc"] = json.RawMessage(row.Operation.Content)
	}
	payload, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	if !utf8.ValidString(row.Form.From) { // as the device would write it
		payload = bytes.ReplaceAll(payload, []byte(`\ufffd`), []byte("\xc3"))
	}
	return payload
}
