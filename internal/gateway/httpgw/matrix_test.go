package httpgw

import (
	"fmt"
	"strings"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/gateway/matrix"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/onem2m"
)

// The whole table of identity rules, through HTTP.
func TestMatrix(t *testing.T) {
	rows, err := matrix.Rows()
	if err != nil {
		t.Fatal(err)
	}
	cse := backendtest.Start(t, backendtest.LastWins)
	cse.Answer = func(*backendtest.Request) (int, string) { return int(onem2m.StatusNotImplemented), "{}" }
	g := newRig(t, cse.URL, func(c *Config, b *BackendConfig) {
		if c.Rules, err = policy.New(matrix.Config()); err != nil {
			t.Fatal(err)
		}
	})
	verdicts := make(map[string]matrix.Row)
	for _, row := range rows {
		verdicts[row.Peer.Name+row.Operation.Name+row.Form.From+fmt.Sprint(row.Form.HasFrom)] = row
	}
	clients := make(map[string]*client)
	sent := 0
	for i, row := range rows {
		if row.Peer.Association.KmID.IsZero() {
			continue // who has no association does not get as far as HTTP
		}
		if testing.Short() && i%5 != 0 {
			continue
		}
		name := row.Peer.Name
		if clients[name] == nil {
			clients[name] = g.dial(g.site.Device(row.Peer.Association))
		}
		got := clients[name].ask(matrixRequest(row, i))
		sent++
		if got.headers["Connection"] == "close" {
			clients[name].conn.Close()
			delete(clients, name)
		}
		want := row
		line, _, _ := strings.Cut(row.Form.From, "\r\n")
		if trimmed := strings.Trim(line, " \t"); trimmed != row.Form.From {
			// HTTP has no such originator: white space around a value is no part of
			// it, and the line's end ends it.
			want = verdicts[name+row.Operation.Name+trimmed+"true"]
		}
		if want.Status != 0 && !isPlain(want.Form.From, longestFrom, false) && want.Form.From != "" {
			want.Status = onem2m.StatusBadRequest // before anyone asks whether this peer may do anything
		}
		seen := cse.Requests()
		if want.Status != 0 {
			if got.rsc() != int(want.Status) || got.status != want.Status.HTTPStatus() || len(seen) > 0 {
				t.Errorf("%v: %v, want %v; the CSE got %+v", row, got, want.Status, seen)
			}
			continue
		}
		if got.rsc() != int(onem2m.StatusNotImplemented) || len(seen) != 1 || !seen[0].HasFrom || seen[0].Origin != want.Origin {
			t.Errorf("%v: %v, want %q; the CSE got %+v", row, got, want.Origin, seen)
		}
	}
	if sent < 500 {
		t.Errorf("only %d rows", sent)
	}
}

func matrixRequest(row matrix.Row, i int) string {
	op := row.Operation
	headers := fmt.Sprintf("X-M2M-RI: %d\r\nX-M2M-RVI: 3\r\n", i)
	if row.Form.HasFrom {
		headers += "X-M2M-Origin: " + row.Form.From + "\r\n"
	}
	switch {
	case op.Type != 0:
		headers += fmt.Sprintf("Content-Type: application/json;ty=%d\r\n", op.Type)
	case op.Content != "":
		headers += "Content-Type: application/json\r\n"
	}
	if op.Content != "" {
		headers += fmt.Sprintf("Content-Length: %d\r\n", len(op.Content))
	}
	return methods[op.Operation] + " " + string(appendPath(nil, op.To)) + " HTTP/1.1\r\nHost: g\r\n" + headers + "\r\n" + op.Content
}
