package adminserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/onem2m-maf/maf/internal/adminapi"
	"github.com/onem2m-maf/maf/internal/authority"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/onem2m"
)

// document is docs/admin-api.yaml, as far as this test reads it.
type document struct {
	Paths      map[string]map[string]yaml.Node `yaml:"paths"`
	Components struct {
		Schemas    map[string]schema `yaml:"schemas"`
		Parameters map[string]struct {
			Name string `yaml:"name"`
			In   string `yaml:"in"`
		} `yaml:"parameters"`
	} `yaml:"components"`
}

type operation struct {
	Parameters  []schema `yaml:"parameters"` // references
	RequestBody struct {
		Content map[string]struct {
			Schema schema `yaml:"schema"`
		} `yaml:"content"`
	} `yaml:"requestBody"`
	Responses map[string]struct {
		Content map[string]struct {
			Schema schema `yaml:"schema"`
		} `yaml:"content"`
	} `yaml:"responses"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Type       string            `yaml:"type"`
	Items      *schema           `yaml:"items"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Pattern    string            `yaml:"pattern"`
	Enum       []string          `yaml:"enum"`
	Minimum    *float64          `yaml:"minimum"`
}

func readDocument(t *testing.T) (doc document) {
	t.Helper()
	text, err := os.ReadFile("../../../docs/admin-api.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func (doc document) operation(t *testing.T, path, method string) (o operation) {
	t.Helper()
	node, ok := doc.Paths[path][strings.ToLower(method)]
	if !ok {
		t.Fatalf("%s %s is not in the document", method, path)
	}
	if err := node.Decode(&o); err != nil {
		t.Fatal(err)
	}
	return o
}

// check says what is wrong with a JSON value under a schema. A member that is
// not written down is wrong.
func (doc document) check(s schema, value any) error {
	if ref, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = doc.Components.Schemas[ref]
	}
	kind := ""
	switch v := value.(type) {
	case map[string]any:
		kind = "object"
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s is missing", name)
			}
		}
		for name, member := range v {
			property, ok := s.Properties[name]
			if !ok {
				return fmt.Errorf("%s is not in the document", name)
			}
			if err := doc.check(property, member); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	case []any:
		kind = "array"
		for _, item := range v {
			if err := doc.check(*s.Items, item); err != nil {
				return err
			}
		}
	case string:
		kind = "string"
		if !regexp.MustCompile(s.Pattern).MatchString(v) || s.Enum != nil && !slices.Contains(s.Enum, v) {
			return fmt.Errorf("%q is not what the document says", v)
		}
	case float64:
		kind = "integer"
		if s.Minimum != nil && v < *s.Minimum {
			return fmt.Errorf("%v is too small", v)
		}
	case bool:
		kind = "boolean"
	}
	if kind != s.Type {
		return fmt.Errorf("a value of %T where the document has %s", value, s.Type)
	}
	return nil
}

// members returns the names that JSON of a struct can have.
func members(t reflect.Type) (names []string) {
	for f := range t.Fields() {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "" {
			names = append(names, members(f.Type)...)
		} else {
			names = append(names, tag)
		}
	}
	return names
}

// TestSchemas: each schema has the members that its type has.
func TestSchemas(t *testing.T) {
	doc := readDocument(t)
	types := map[string]reflect.Type{
		"Client": reflect.TypeFor[adminapi.Client](), "NewClient": reflect.TypeFor[adminapi.NewClient](),
		"CreatedClient": reflect.TypeFor[adminapi.CreatedClient](), "ClientPage": reflect.TypeFor[adminapi.ClientPage](),
		"ClientChange": reflect.TypeFor[adminapi.ClientChange](), "ImportRow": reflect.TypeFor[adminapi.ImportRow](),
		"ImportReport": reflect.TypeFor[adminapi.ImportReport](), "RowError": reflect.TypeFor[adminapi.RowError](),
		"NewEntityB": reflect.TypeFor[adminapi.NewEntityB](), "EntityB": reflect.TypeFor[adminapi.EntityB](),
		"Runtime": reflect.TypeFor[adminapi.Runtime](), "Error": reflect.TypeFor[adminapi.Error](),
	}
	for name := range doc.Components.Schemas {
		if types[name] == nil {
			t.Errorf("%s is the schema of no type", name)
		}
	}
	for name, typ := range types {
		documented := slices.Sorted(maps.Keys(doc.Components.Schemas[name].Properties))
		if real := slices.Sorted(slices.Values(members(typ))); !slices.Equal(documented, real) {
			t.Errorf("%s has %q, and its type %q", name, documented, real)
		}
	}
}

// ask is one request, and the status that it gets.
type ask struct {
	method, path string // as in the document
	target, body string
	status       int
	fail         error // of the authority
}

// TestOpenAPI asks for each answer that the document has, and holds what comes
// against it: no method, parameter or answer that isn't documented, none
// documented that doesn't come, and each as described.
func TestOpenAPI(t *testing.T) {
	const row = `{"kmID":"new@maf.example.com","entityB":"//sp.example.com/in-cse","aeID":"//sp.example.com/Sx","lifetime":"30m","disabled":true,"km":"000102030405060708090a0b0c0d0e0f"}`
	const key = "00000000000000000000000000000001@maf.example.com"
	broken := errors.New("the disk is on fire")
	one, keys := "/v1/clients/{KmID}", "/v1/keys/{KcID}"
	asks := []ask{
		{"GET", "/v1/status", "/v1/status", "", 200, nil},
		{"GET", "/v1/clients", "/v1/clients?limit=1&after=a@b&prefix=m&match=e&entityB=//sp.example.com/in-cse&aeID=//sp.example.com/Sx&disabled=true", "", 200, nil},
		{"GET", "/v1/clients", "/v1/clients?limit=1", "", 200, nil},
		{"GET", "/v1/clients", "/v1/clients?limit=0", "", 400, nil},
		{"GET", "/v1/clients", "/v1/clients", "", 500, broken},
		{"POST", "/v1/clients", "/v1/clients", row, 201, nil},
		{"POST", "/v1/clients", "/v1/clients", `{"kmID":"a@b","entityB":"//sp.example.com/in-cse","cseID":"/mn"}`, 201, nil},
		{"POST", "/v1/clients", "/v1/clients", `{}`, 400, nil},
		{"POST", "/v1/clients", "/v1/clients", `{"kmID":"meter7@maf.example.com","entityB":"//sp.example.com/in-cse"}`, 409, nil},
		{"POST", "/v1/clients", "/v1/clients", row, 500, broken},
		{"POST", "/v1/clients:import", "/v1/clients:import?update=true&dryRun=true", row + "\n{}", 200, nil},
		{"POST", "/v1/clients:import", "/v1/clients:import", row, 200, broken},
		{"POST", "/v1/clients:import", "/v1/clients:import?update=maybe", row, 400, nil},
		{"GET", "/v1/clients:export", "/v1/clients:export?prefix=m&match=e&entityB=//sp.example.com/in-cse&aeID=//sp.example.com/Sx&disabled=true", "", 200, nil},
		{"GET", "/v1/clients:export", "/v1/clients:export", "", 200, nil},
		{"GET", "/v1/clients:export", "/v1/clients:export?x=1", "", 400, nil},
		{"GET", "/v1/clients:export", "/v1/clients:export?km=true", "", 403, nil},
		{"GET", "/v1/clients:export", "/v1/clients:export", "", 500, broken},
		{"GET", one, "/v1/clients/meter7@maf.example.com", "", 200, nil},
		{"GET", one, "/v1/clients/x", "", 400, nil},
		{"GET", one, "/v1/clients/x@y", "", 404, nil},
		{"GET", one, "/v1/clients/meter7@maf.example.com", "", 500, broken},
		{"PATCH", one, "/v1/clients/meter7@maf.example.com", `{"disabled":false,"lifetime":"20m","aeID":"","cseID":"/mn","entityB":"//sp.example.com/b"}`, 200, nil},
		{"PATCH", one, "/v1/clients/x", `{}`, 400, nil},
		{"PATCH", one, "/v1/clients/x@y", `{}`, 404, nil},
		{"PATCH", one, "/v1/clients/meter7@maf.example.com", `{}`, 409, authority.ErrBusy},
		{"PATCH", one, "/v1/clients/meter7@maf.example.com", `{}`, 500, broken},
		{"DELETE", one, "/v1/clients/x", "", 400, nil},
		{"DELETE", one, "/v1/clients/x@y", "", 404, nil},
		{"DELETE", one, "/v1/clients/new@maf.example.com", "", 204, nil},
		{"DELETE", one, "/v1/clients/meter7@maf.example.com", "", 500, broken},
		{"DELETE", keys, "/v1/keys/" + key, "", 204, nil},
		{"DELETE", keys, "/v1/keys/x", "", 400, nil},
		{"DELETE", keys, "/v1/keys/0" + key[:30] + "2" + key[32:], "", 404, nil},
		{"DELETE", keys, "/v1/keys/" + key, "", 500, broken},
		{"POST", "/v1/entity-b", "/v1/entity-b", `{"cseID":"//sp.example.com/in-cse","lifetime":"24h"}`, 201, nil},
		{"POST", "/v1/entity-b", "/v1/entity-b", `{"cseID":"in-cse"}`, 400, nil},
		{"POST", "/v1/entity-b", "/v1/entity-b", `{"cseID":"//sp.example.com/in-cse"}`, 409, nil},
	}
	doc := readDocument(t)
	w := newDocumented()
	came := make(map[string]bool)
	for _, a := range asks {
		doc.holds(t, a, w.ask(a), came)
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if method == "parameters" {
				continue
			}
			for status := range doc.operation(t, path, method).Responses {
				if what := strings.ToUpper(method) + " " + path + " " + status; !came[what] {
					t.Errorf("%s is documented but never came", what)
				}
			}
		}
	}
}

// documented is the server that the document is held against.
type documented struct {
	fake   *fakeClients
	config Config
}

func newDocumented() *documented {
	fake := &fakeClients{clients: make(map[onem2m.KmID]authority.Client)}
	aeID := onem2m.AEID{SP: "sp.example.com", Stem: "Sx"}
	fake.clients[kmID("meter7")] = authority.Client{KmID: kmID("meter7"), IdB: inCSE, AEID: aeID, Disabled: true, Lifetime: time.Hour, Created: time.Unix(1, 0)}
	config := handlerConfig(fake)
	config.Status = func() adminapi.Runtime {
		return adminapi.Runtime{FQDNs: []onem2m.FQDN{"a"}, TLS: []string{"a"}, DTLS: []string{}, KeyAPI: []string{"a"}, Telemetry: []string{"a"}, CA: "a"}
	}
	config.IssueEntityB = func(_ context.Context, id onem2m.CSEID, _ time.Duration) (adminapi.EntityB, error) {
		return adminapi.EntityB{CSEID: id, Key: adminapi.Key{Key: secret.New([]byte("PEM"))}}, nil
	}
	return &documented{fake, config}
}

func (d *documented) ask(a ask) *httptest.ResponseRecorder {
	d.fake.fail = a.fail
	config := d.config
	if a.path == "/v1/entity-b" && a.status == 409 {
		config.IssueEntityB = nil
	}
	w := httptest.NewRecorder()
	Handler(config).ServeHTTP(w, httptest.NewRequest(a.method, a.target, strings.NewReader(a.body)))
	return w
}

// holds holds one question and its answer against the document.
func (doc document) holds(t *testing.T, a ask, w *httptest.ResponseRecorder, came map[string]bool) {
	t.Helper()
	what := fmt.Sprintf("%s %s %d", a.method, a.path, w.Code)
	came[what] = true
	o := doc.operation(t, a.path, a.method)
	described, ok := o.Responses[strconv.Itoa(w.Code)]
	if w.Code != a.status || !ok {
		t.Errorf("%s: want %d: %s", what, a.status, w.Body)
		return
	}
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%s may be cached", what)
	}
	if w.Code < 300 {
		doc.holdsRequest(t, what, o, a)
	}
	content, ok := described.Content[w.Header().Get("Content-Type")]
	if !ok && w.Body.Len() > 0 {
		t.Errorf("%s: the document has no %q", what, w.Header().Get("Content-Type"))
	}
	for line := range strings.Lines(w.Body.String()) {
		var value any
		if err := json.Unmarshal([]byte(line), &value); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if err := doc.check(content.Schema, value); err != nil {
			t.Errorf("%s: %v in %s", what, err, line)
		}
	}
}

// holdsRequest: what was asked and answered is described.
func (doc document) holdsRequest(t *testing.T, what string, o operation, a ask) {
	t.Helper()
	var parameters []string
	for _, p := range o.Parameters {
		parameters = append(parameters, doc.Components.Parameters[strings.TrimPrefix(p.Ref, "#/components/parameters/")].Name)
	}
	for name := range httptest.NewRequest(a.method, a.target, nil).URL.Query() {
		if !slices.Contains(parameters, name) {
			t.Errorf("%s: the document has no parameter %s", what, name)
		}
	}
	for _, content := range o.RequestBody.Content {
		line, _, _ := strings.Cut(a.body, "\n")
		var value any
		if err := json.Unmarshal([]byte(line), &value); err != nil {
			t.Errorf("%s: %v", what, err)
		} else if err := doc.check(content.Schema, value); err != nil {
			t.Errorf("%s: %v in %s", what, err, line)
		}
	}
	if a.body != "" && o.RequestBody.Content == nil {
		t.Errorf("%s: the document has no body", what)
	}
}
