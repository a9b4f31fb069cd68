package matrix

import (
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
)

// Every combination has the verdict of the table.
func TestMatrix(t *testing.T) {
	rows, err := Rows()
	if err != nil {
		t.Fatal(err)
	}
	rules, err := policy.New(Config())
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		request := &policy.Request{
			Operation: row.Operation.Operation,
			Type:      row.Operation.Type,
			From:      row.Form.From,
			HasFrom:   row.Form.HasFrom,
			To:        row.Operation.To,
		}
		if row.Operation.Content != "" {
			if request.Content, err = primitive.Parse([]byte(row.Operation.Content)); err != nil {
				t.Fatal(err)
			}
		}
		got := rules.Peer(row.Peer.Association).Check(request)
		if got.Allowed != (row.Status == 0) || got.Status != row.Status || got.From != row.Origin || got.HasFrom != got.Allowed {
			t.Errorf("%v:\n got %+v\nwant status %d, originator %q (%s)", row, got, row.Status, row.Origin, row.Clause)
		}
	}
	if want := len(Peers()) * len(Forms()) * 7; len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
}
