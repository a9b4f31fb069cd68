package adminserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// rowsOf makes n rows with keys, m00000 and so on.
func rowsOf(n int) iter.Seq[adminapi.ImportRow] {
	return func(yield func(adminapi.ImportRow) bool) {
		for i := range n {
			row := adminapi.ImportRow{Line: 2 * i, NewClient: adminapi.NewClient{
				Client: adminapi.Client{KmID: kmID(fmt.Sprintf("m%05d", i)), EntityB: inCSE},
				Km:     adminapi.Key{Key: secret.New([]byte("sixteen octets!!"))}}}
			if !yield(row) {
				return
			}
		}
	}
}

// importAll imports and returns the last report, with all errors.
func importAll(t *testing.T, admin *adminapi.Admin, o adminapi.ImportOptions, rows iter.Seq[adminapi.ImportRow]) (last adminapi.ImportReport, err error) {
	t.Helper()
	var errs []adminapi.RowError
	err = admin.Import(t.Context(), o, rows, func(r adminapi.ImportReport) error {
		if r.Rows < last.Rows || r.Rows != r.Added+r.Same+r.Updated+r.Failed {
			t.Errorf("after %+v comes %+v", last, r)
		}
		last, errs = r, append(errs, r.Errors...)
		return nil
	})
	last.Errors = errs
	return last, err
}

func TestImport(t *testing.T) {
	admin, fake := serve(t, nil)
	const n = 5*importBatch + 7
	check := func(what string, o adminapi.ImportOptions, want adminapi.ImportReport) {
		t.Helper()
		want.Rows, want.End = n, true
		got, err := importAll(t, admin, o, rowsOf(n))
		if len(got.Errors) != got.Failed {
			t.Errorf("%s: %d errors of %d failures", what, len(got.Errors), got.Failed)
		}
		got.Errors = nil
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	check("dry run", adminapi.ImportOptions{DryRun: true}, adminapi.ImportReport{Added: n})
	if len(fake.clients) != 0 {
		t.Errorf("a dry run adds %d clients", len(fake.clients))
	}
	check("first", adminapi.ImportOptions{}, adminapi.ImportReport{Added: n})
	if len(fake.clients) != n {
		t.Errorf("%d clients", len(fake.clients))
	}
	check("again", adminapi.ImportOptions{}, adminapi.ImportReport{Same: n})
	c := fake.clients[kmID("m00003")]
	c.Disabled = true
	fake.clients[kmID("m00003")] = c
	check("one differs", adminapi.ImportOptions{}, adminapi.ImportReport{Same: n - 1, Failed: 1})
	check("and is updated", adminapi.ImportOptions{Update: true}, adminapi.ImportReport{Same: n - 1, Updated: 1})
	for _, km := range fake.kms {
		if !km.Equal(secret.New(make([]byte, km.Len()))) {
			t.Fatal("a key was not wiped")
		}
	}
}

// TestImportErrors: each bad row is told of with its line, and hurts no other.
func TestImportErrors(t *testing.T) {
	fake := &fakeClients{clients: make(map[onem2m.KmID]authority.Client)}
	h := Handler(handlerConfig(fake))
	good := func(id string) string {
		return `{"kmID":"` + id + `","entityB":"//sp/cse","km":"000102030405060708090a0b0c0d0e0f"}`
	}
	body := strings.Join([]string{
		good("a@b"), "", good("a@b"), `{"kmid":"b@b"}`, `not JSON`, good("c@b"),
		`{"kmID":"d@b","entityB":"//sp/cse","km":"secret","line":77}`,
		`{"kmID":"e@b","entityB":"//sp/cse","lifetime":"1000h"}`,
		`{"kmID":"f@b","line":99}`, good("g@b"),
	}, "\n")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/v1/clients:import", strings.NewReader(body)))
	lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
	want := []string{ // the second a@b begins another batch
		`{"rows":1,"added":1,"same":0,"updated":0,"failed":0}`,
		`{"rows":9,"added":3,"same":1,"updated":0,"failed":5,"errors":[` +
			`{"line":4,"kmID":"b@b","code":"invalid","error":"it has an unknown member \"kmid\""},` +
			`{"line":5,"code":"invalid","error":"invalid character 'o' in literal null (expecting 'u')"},` +
			`{"line":7,"kmID":"d@b","code":"invalid","error":"key is neither hexadecimal nor base64 (for 32 octets: 64 hex digits or 44 base64 characters)"},` +
			`{"line":8,"kmID":"e@b","code":"invalid","error":"the Kc lifetime 1000h is outside of what mafd allows, 0s to 1h (keys.min_lifetime, keys.max_lifetime)"},` +
			`{"line":99,"kmID":"f@b","code":"invalid","error":"invalid client: no Entity B"}],"end":true}`,
	}
	if w.Code != http.StatusOK || !slices.Equal(lines, want) {
		t.Errorf("%d\n%s\nwant\n%s", w.Code, w.Body, strings.Join(want, "\n"))
	}
}

// handlerConfig is the least that a Handler needs.
func handlerConfig(fake *fakeClients) Config {
	return Config{Clients: fake, Log: slog.New(slog.DiscardHandler), MaxLifetime: time.Hour, DefaultLifetime: time.Hour}
}

// TestImportGivesUp: when nothing succeeds any more, and for a line that never
// ends.
func TestImportGivesUp(t *testing.T) {
	admin, fake := serve(t, nil)
	fake.fail = errors.New("the disk is on fire")
	got, err := importAll(t, admin, adminapi.ImportOptions{}, rowsOf(100_000))
	if !errors.Is(err, adminapi.CodeInternal) || got.Failed != importBatch {
		t.Errorf("%+v, %v", got.Failed, err)
	}
	w := httptest.NewRecorder()
	Handler(handlerConfig(fake)).ServeHTTP(w, httptest.NewRequest("POST", "/v1/clients:import", strings.NewReader("\n"+strings.Repeat("x", 1<<20))))
	if !strings.Contains(w.Body.String(), `"failure":{"status":400,"code":"invalid","error":"line 2 is longer than 4096 octets"}`) {
		t.Errorf("an endless line: %s", w.Body)
	}
}

// TestImportStreams: rows are worked on while others are still to come, and no
// more are asked for than the socket and a batch hold.
func TestImportStreams(t *testing.T) {
	admin, _ := serve(t, nil)
	seen := make(chan int, 10_000)
	rows := func(yield func(adminapi.ImportRow) bool) {
		for row := range rowsOf(4 * 64 << 10 / 200) { // more than all buffers
			if !yield(row) {
				return
			}
		}
		<-seen // blocks for ever if no report comes before the end
		yield(adminapi.ImportRow{NewClient: adminapi.NewClient{Client: adminapi.Client{KmID: kmID("last"), EntityB: inCSE}}})
	}
	err := admin.Import(t.Context(), adminapi.ImportOptions{}, rows, func(r adminapi.ImportReport) error {
		seen <- r.Rows
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestImportStopped: an import ends when its context does or its report says so.
func TestImportStopped(t *testing.T) {
	admin, _ := serve(t, nil)
	stop := errors.New("enough")
	err := admin.Import(t.Context(), adminapi.ImportOptions{}, rowsOf(1<<30), func(adminapi.ImportReport) error { return stop })
	if err != stop {
		t.Errorf("stopped by the report: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = admin.Import(ctx, adminapi.ImportOptions{}, rowsOf(1<<30), func(adminapi.ImportReport) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped by the context: %v", err)
	}
}

func TestExport(t *testing.T) {
	var noted []string
	admin, fake := serve(t, func(c *Config) {
		c.AllowKeyExport = true
		c.BeforeKeyExport = func(context.Context) error { noted = append(noted, "export"); return nil }
	})
	const n = 2*exportPage + 3
	if _, err := importAll(t, admin, adminapi.ImportOptions{}, rowsOf(n)); err != nil {
		t.Fatal(err)
	}
	for _, withKm := range []bool{false, true} {
		i := 0
		for row, err := range admin.Export(t.Context(), adminapi.Filter{}, withKm) {
			if err != nil {
				t.Fatal(err)
			}
			id := kmID(fmt.Sprintf("m%05d", i))
			want := ""
			if withKm {
				want = "key of " + id.String()
			}
			if row.KmID != id || string(row.Km.Bytes()) != want || !row.Created.IsZero() || row.Lifetime != adminapi.Duration(time.Hour) {
				t.Fatalf("row %d: %+v", i, row)
			}
			i++
		}
		if i != n {
			t.Errorf("%d rows, want %d", i, n)
		}
	}
	if !slices.Equal(noted, []string{"export"}) {
		t.Errorf("noted %q", noted)
	}
	for _, km := range fake.kms {
		if !km.Equal(secret.New(make([]byte, km.Len()))) {
			t.Fatal("a key was not wiped")
		}
	}
	for row, err := range admin.Export(t.Context(), adminapi.Filter{Prefix: "m00007"}, false) {
		if err != nil || row.KmID != kmID("m00007") {
			t.Errorf("%+v, %v", row, err)
		}
	}
}

// TestExportRefused: keys leave only where the configuration allows it and the
// auditor has noted it.
func TestExportRefused(t *testing.T) {
	first := func(admin *adminapi.Admin, withKm bool) (adminapi.ImportRow, error) {
		for row, err := range admin.Export(t.Context(), adminapi.Filter{}, withKm) {
			return row, err
		}
		return adminapi.ImportRow{}, io.EOF
	}
	admin, fake := serve(t, nil)
	fake.clients[kmID("a")] = authority.Client{KmID: kmID("a"), IdB: inCSE}
	if row, err := first(admin, true); !errors.Is(err, adminapi.CodeForbidden) || !row.Km.IsZero() {
		t.Errorf("not allowed: %v", err)
	}
	if row, err := first(admin, false); err != nil || row.KmID != kmID("a") {
		t.Errorf("without keys: %+v, %v", row, err)
	}
	admin, fake = serve(t, func(c *Config) {
		c.AllowKeyExport = true
		c.BeforeKeyExport = func(context.Context) error { return errors.New("no sink can be written") }
	})
	fake.clients[kmID("a")] = authority.Client{KmID: kmID("a"), IdB: inCSE}
	if row, err := first(admin, true); !errors.Is(err, adminapi.CodeInternal) || !row.Km.IsZero() {
		t.Errorf("not audited: %v", err)
	}
	fake.fail = errors.New("the disk is on fire")
	if _, err := first(admin, false); !errors.Is(err, adminapi.CodeInternal) {
		t.Errorf("a failing store: %v", err)
	}
}

// TestExportBreaksOff: an export that fails in the middle does not look whole.
func TestExportBreaksOff(t *testing.T) {
	admin, fake := serve(t, nil)
	for i := range 10 * exportPage { // more than the socket holds
		id := kmID(fmt.Sprintf("m%060d", i))
		fake.clients[id] = authority.Client{KmID: id, IdB: inCSE}
	}
	var last error
	for _, err := range admin.Export(t.Context(), adminapi.Filter{}, false) {
		fake.mu.Lock()
		fake.fail = errors.New("the disk is on fire")
		fake.mu.Unlock()
		last = err
	}
	if last == nil || !strings.Contains(last.Error(), "broke off") {
		t.Errorf("it ends with %v", last)
	}
}

func TestSearch(t *testing.T) {
	admin, fake := serve(t, nil)
	add := func(id string, change func(*authority.Client)) {
		c := authority.Client{KmID: kmID(id), IdB: inCSE}
		change(&c)
		fake.clients[c.KmID] = c
	}
	as := func(*authority.Client) {}
	for _, id := range []string{"a", "meter", "meter-1", "meter.1", "meter0", "meter0z", "meter1", "meter10", "meter_1", "meterz", "metf", "z"} {
		add(id, as)
	}
	add("off", func(c *authority.Client) { c.Disabled = true })
	add("elsewhere", func(c *authority.Client) { c.IdB.ID = "other-cse" })
	add("named", func(c *authority.Client) { c.AEID = onem2m.AEID{SP: "sp.example.com", Stem: "Sx"} })
	yes := true
	for _, c := range []struct {
		filter adminapi.Filter
		after  string
		want   string
	}{
		{adminapi.Filter{}, "off", "z"},
		{adminapi.Filter{Prefix: "meter1"}, "", "meter10 meter1"},
		{adminapi.Filter{Prefix: "METER"}, "", "meter-1 meter.1 meter0 meter0z meter10 meter1 meter meter_1 meterz"}, // '@' sorts between
		{adminapi.Filter{Prefix: "meter@maf"}, "", "meter"},
		{adminapi.Filter{Prefix: "meter"}, "meter1", "meter meter_1 meterz"},
		{adminapi.Filter{Prefix: "zz"}, "", ""},
		{adminapi.Filter{Match: "r1"}, "", "meter10 meter1"},
		{adminapi.Filter{Match: "1", Prefix: "meter1"}, "meter10", "meter1"},
		{adminapi.Filter{Disabled: &yes}, "", "off"},
		{adminapi.Filter{EntityB: onem2m.CSEID{SP: "sp.example.com", ID: "other-cse"}}, "", "elsewhere"},
		{adminapi.Filter{AEID: onem2m.AEID{SP: "sp.example.com", Stem: "Sx"}}, "", "named"},
	} {
		var after onem2m.KmID
		if c.after != "" {
			after = kmID(c.after)
		}
		var got []string
		for client, err := range admin.All(t.Context(), c.filter, after) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, client.KmID.Relative)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v after %q: %q", c.filter, c.after, got)
		}
	}
}

// manyClients are so many, m000000 and so on.
type manyClients struct {
	*fakeClients
	n int
}

func (m manyClients) ListClients(_ context.Context, after onem2m.KmID, limit int) (list []authority.Client, _ error) {
	next := 0
	if !after.IsZero() {
		fmt.Sscanf(after.Relative, "m%d", &next)
		next++
	}
	for ; next < m.n && len(list) < limit; next++ {
		list = append(list, authority.Client{KmID: kmID(fmt.Sprintf("m%06d", next)), IdB: inCSE})
	}
	return list, nil
}

// TestSearchPages: a search through many clients comes in answers of bounded
// work, and finds each once.
func TestSearchPages(t *testing.T) {
	const n = (maxScan + 1) * adminapi.MaxPage
	admin, _ := serve(t, func(c *Config) { c.Clients = manyClients{c.Clients.(*fakeClients), n} })
	last := fmt.Sprintf("m%06d", n-1)
	page, err := admin.Page(t.Context(), adminapi.Filter{Match: last}, onem2m.KmID{}, 10)
	if err != nil || len(page.Clients) != 0 || page.Next.IsZero() {
		t.Errorf("%d clients, next %v, %v", len(page.Clients), page.Next, err)
	}
	found := 0
	for c, err := range admin.All(t.Context(), adminapi.Filter{Match: last}, onem2m.KmID{}) {
		if err != nil || c.KmID != kmID(last) {
			t.Errorf("%v, %v", c.KmID, err)
		}
		found++
	}
	if found != 1 {
		t.Errorf("found %d times", found)
	}
}
