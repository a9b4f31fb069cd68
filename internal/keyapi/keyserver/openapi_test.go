package keyserver

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/onem2m-maf/maf/internal/keyapi"
)

// document is docs/key-api.yaml, as far as this test reads it.
type document struct {
	OpenAPI string `yaml:"openapi"`
	Paths   map[string]struct {
		Get struct {
			Responses map[string]struct {
				Headers map[string]struct {
					Ref    string `yaml:"$ref"`
					Schema schema `yaml:"schema"`
				} `yaml:"headers"`
				Content map[string]struct {
					Schema struct {
						Ref string `yaml:"$ref"`
					} `yaml:"schema"`
				} `yaml:"content"`
			} `yaml:"responses"`
		} `yaml:"get"`
	} `yaml:"paths"`
	Components struct {
		Headers map[string]struct {
			Schema schema `yaml:"schema"`
		} `yaml:"headers"`
		Schemas map[string]schema `yaml:"schemas"`
	} `yaml:"components"`
}

type schema struct {
	Ref        string            `yaml:"$ref"`
	Items      *schema           `yaml:"items"`
	Type       string            `yaml:"type"`
	Required   []string          `yaml:"required"`
	Properties map[string]schema `yaml:"properties"`
	Not        *schema           `yaml:"not"`
	Pattern    string            `yaml:"pattern"`
	Const      any               `yaml:"const"`
	Minimum    *int              `yaml:"minimum"`
	Examples   []any             `yaml:"examples"`
}

// check says what is wrong with a JSON value under a schema. It is stricter than the
// document: a member that is not written down is wrong.
func (doc document) check(s schema, value any) error {
	if ref, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		if s, ok = doc.Components.Schemas[ref]; !ok {
			return fmt.Errorf("%s is not in the document", ref)
		}
	}
	switch v := value.(type) {
	case []any:
		if s.Type != "array" || s.Items == nil {
			return fmt.Errorf("an array where the document has %s", s.Type)
		}
		for _, item := range v {
			if err := doc.check(*s.Items, item); err != nil {
				return err
			}
		}
	case map[string]any:
		if s.Type != "object" {
			return fmt.Errorf("an object where the document has %s", s.Type)
		}
		for _, name := range s.Required {
			if _, ok := v[name]; !ok {
				return fmt.Errorf("%s is missing", name)
			}
		}
		if s.Not != nil && !slices.ContainsFunc(s.Not.Required, func(name string) bool { return v[name] == nil }) {
			return fmt.Errorf("has all of %v", s.Not.Required)
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
	case string:
		if s.Type != "string" || s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(v) || s.Const != nil && s.Const != v {
			return fmt.Errorf("%q is not what the document says", v)
		}
	case float64:
		if s.Type != "integer" || v != float64(int(v)) || s.Minimum != nil && int(v) < *s.Minimum || s.Const != nil && s.Const != int(v) {
			return fmt.Errorf("%v is not what the document says", v)
		}
	default:
		return fmt.Errorf("%T is no type of this API", v)
	}
	return nil
}

func readDocument(t *testing.T) document {
	t.Helper()
	text, err := os.ReadFile("../../../docs/key-api.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var doc document
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") || len(doc.Paths) != 2 {
		t.Fatalf("not the document this test knows: %+v", doc)
	}
	return doc
}

// TestOpenAPI asks for every answer that the server has, and holds each against
// the document: no answer that isn't documented, none documented that doesn't
// come, and every one as described.
func TestOpenAPI(t *testing.T) {
	doc := readDocument(t)
	w := newWorld(t)
	entityB := w.client(t, w.ca.issue(t, named("in-cse.sp.example.com")))
	nobody := w.client(t, w.ca.issue(t, named()))

	members := make(map[string]bool)
	var answers []answerOf
	ask := func(got answerOf, err error) {
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, got)
	}
	for _, last := range []string{"0", "1", "2", "3", "5", "6"} {
		ask(w.ask(t, entityB, "GET", keyapi.Path(keyID(last)), ""))
	}
	ask(w.ask(t, entityB, "PUT", keyapi.Path(keyID("1")), ""))
	ask(w.ask(t, entityB, "GET", keyapi.Path(keyID("1")), "body"))
	ask(w.ask(t, nobody, "GET", keyapi.Path(keyID("1")), ""))
	doc.checkAnswers(t, "/v1/keys/{MAF-FQDN}/{RelativeKcId}", answers, members)

	answers = nil
	for _, after := range []int64{-1, someRevoked, startOver, storeFails} {
		ask(w.ask(t, entityB, "GET", keyapi.RevocationsQuery(after), ""))
	}
	ask(w.ask(t, entityB, "PUT", keyapi.RevocationsPath, ""))
	ask(w.ask(t, entityB, "GET", keyapi.RevocationsPath+"?after=x", ""))
	ask(w.ask(t, nobody, "GET", keyapi.RevocationsPath, ""))
	doc.checkAnswers(t, keyapi.RevocationsPath, answers, members)

	for ref, s := range doc.Components.Schemas {
		for name, property := range s.Properties {
			if !members[name] {
				t.Errorf("%s.%s is documented but never came", ref, name)
			}
			for _, example := range property.Examples {
				if err := doc.check(property, example); err != nil {
					t.Errorf("%s.%s: its example: %v", ref, name, err)
				}
			}
		}
	}
}

// note notes the names of all members of a JSON value.
func note(members map[string]bool, value any) {
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			note(members, item)
		}
	case map[string]any:
		for name, member := range v {
			members[name] = true
			note(members, member)
		}
	}
}

// checkAnswers holds all answers of one path against the document, and notes
// their members.
func (doc document) checkAnswers(t *testing.T, name string, answers []answerOf, members map[string]bool) {
	path, ok := doc.Paths[name]
	if !ok {
		t.Fatalf("%s is not in the document", name)
	}
	for _, got := range answers {
		status := strconv.Itoa(got.status)
		described, ok := path.Get.Responses[status]
		if !ok {
			t.Errorf("%s is not in the document", status)
			continue
		}
		for name, header := range described.Headers {
			if ref, ok := strings.CutPrefix(header.Ref, "#/components/headers/"); ok {
				header.Schema = doc.Components.Headers[ref].Schema
			}
			if err := doc.check(header.Schema, got.header.Get(name)); err != nil {
				t.Errorf("%s: header %s: %v", status, name, err)
			}
		}
		if len(described.Headers) == 0 {
			t.Errorf("%s: the document has no headers", status)
		}
		content, ok := described.Content[got.header.Get("Content-Type")]
		ref, isRef := strings.CutPrefix(content.Schema.Ref, "#/components/schemas/")
		if !ok || !isRef {
			t.Errorf("%s: the document has no schema for %q", status, got.header.Get("Content-Type"))
			continue
		}
		var body map[string]any
		if err := json.Unmarshal([]byte(got.body), &body); err != nil {
			t.Errorf("%s: %v", status, err)
			continue
		}
		if err := doc.check(doc.Components.Schemas[ref], body); err != nil {
			t.Errorf("%s: %v in %v", status, err, body)
		}
		note(members, body)
	}
	for status := range path.Get.Responses {
		if !slices.ContainsFunc(answers, func(got answerOf) bool { return strconv.Itoa(got.status) == status }) {
			t.Errorf("%s is documented but never came", status)
		}
	}
}
