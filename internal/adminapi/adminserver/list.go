package adminserver

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/onem2m"
)

// maxScan is how many of the store's pages one answer may take to find its
// clients in: some hundred milliseconds' work. Then it says where to go on.
const maxScan = 20

func (s *server) list(r *http.Request) (page adminapi.ClientPage, err error) {
	query := r.URL.Query()
	filter, err := readQuery(query, "after", "limit")
	if err != nil {
		return page, err
	}
	var after onem2m.KmID
	if text := query.Get("after"); text != "" {
		if after, err = onem2m.ParseKmID(text); err != nil {
			return page, invalid("after is not a KmID: " + err.Error())
		}
	}
	limit := adminapi.DefaultPage
	if text := query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > adminapi.MaxPage {
			return page, invalid(fmt.Sprintf("limit is not a number from 1 to %d", adminapi.MaxPage))
		}
	}
	return s.search(r, filter, after, limit)
}

// search finds the next page of clients that the filter lets through.
func (s *server) search(r *http.Request, f filter, after onem2m.KmID, limit int) (page adminapi.ClientPage, err error) {
	page.Clients = []adminapi.Client{} // "[]" in JSON, not "null"
	size := limit
	if f.Filter != (adminapi.Filter{}) {
		size = adminapi.MaxPage
	}
	after = f.begin(after)
	for range maxScan {
		clients, err := s.Clients.ListClients(r.Context(), after, size)
		if err != nil {
			return page, err
		}
		for _, c := range clients {
			if f.over(c.KmID) {
				return page, nil
			}
			after = c.KmID
			if f.lets(&c) {
				page.Clients = append(page.Clients, wire(c))
			}
			if len(page.Clients) == limit {
				page.Next = after
				return page, nil
			}
		}
		if len(clients) < size { // a shorter page is the last
			return page, nil
		}
	}
	page.Next = after
	return page, nil
}

// filter is an adminapi.Filter at work.
type filter struct{ adminapi.Filter }

// readQuery reads the filter in a query, in which others may be, too.
func readQuery(query url.Values, others ...string) (f filter, err error) {
	for name, values := range query {
		known := slices.Contains([]string{"prefix", "match", "entityB", "aeID", "disabled"}, name) || slices.Contains(others, name)
		if !known || len(values) > 1 {
			return f, invalid(fmt.Sprintf("the query has an unknown name, or one twice: %.40q", name))
		}
	}
	f.Prefix, f.Match = strings.ToLower(query.Get("prefix")), strings.ToLower(query.Get("match"))
	if strings.ContainsFunc(f.Prefix, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return f, invalid("prefix is not the beginning of a KmID")
	}
	if err := f.EntityB.UnmarshalText([]byte(query.Get("entityB"))); err != nil {
		return f, invalid("entityB: " + err.Error())
	}
	if err := f.AEID.UnmarshalText([]byte(query.Get("aeID"))); err != nil {
		return f, invalid("aeID: " + err.Error())
	}
	if query.Has("disabled") {
		disabled, err := readBool(query, "disabled")
		f.Disabled = &disabled
		return f, err
	}
	return f, nil
}

// readBool reads true or false; without the name it is false.
func readBool(query url.Values, name string) (bool, error) {
	switch query.Get(name) {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	}
	return false, invalid(name + " is neither true nor false")
}

// begin returns after what to list, so that clients before the prefix's are not
// looked at: they may be a million.
func (f *filter) begin(after onem2m.KmID) onem2m.KmID {
	if f.Prefix == "" {
		return after
	}
	// Before "meter1" is all that begins with "meter0", and DEL, which no KmID has,
	// is behind that.
	last := len(f.Prefix) - 1
	before := onem2m.KmID{Relative: f.Prefix[:last] + string(f.Prefix[last]-1) + "\x7f"}
	if before.String() > after.String() {
		return before
	}
	return after
}

// over reports whether no client from this one on has the prefix.
func (f *filter) over(id onem2m.KmID) bool {
	s := id.String()
	return s > f.Prefix && !strings.HasPrefix(s, f.Prefix)
}

// lets reports whether the filter lets the client through.
func (f *filter) lets(c *authority.Client) bool {
	id := c.KmID.String()
	return strings.HasPrefix(id, f.Prefix) && strings.Contains(id, f.Match) &&
		(f.EntityB.IsZero() || f.EntityB == c.IdB) &&
		(f.AEID.IsZero() || f.AEID == c.AEID) &&
		(f.Disabled == nil || *f.Disabled == c.Disabled)
}
