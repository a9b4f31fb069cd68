package mqttgw

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// The parsers read a request's members as those of real CSEs do. Each returns the
// originator that it sees, "" for none.
var parsers = map[string]func(payload []byte) (from string, err error){
	"first wins": func(payload []byte) (string, error) {
		return readFrom(payload, func(name string) bool { return name == "fr" }, true)
	},
	"last wins": func(payload []byte) (string, error) {
		return readFrom(payload, func(name string) bool { return name == "fr" }, false)
	},
	"ignores case": func(payload []byte) (string, error) {
		return readFrom(payload, func(name string) bool { return strings.EqualFold(name, "fr") }, false)
	},
}

// readFrom walks the members of a request, which may stand in "m2m:rqp". Like C
// programs it takes a string to end at a NUL.
func readFrom(payload []byte, is func(string) bool, first bool) (string, error) {
	var members []member
	if err := readMembers(payload, &members); err != nil {
		return "", err
	}
	from, found := "", false
	for _, m := range members {
		if m.name == "m2m:rqp" {
			return readFrom(m.value, is, first)
		}
		if !is(m.name) || first && found {
			continue
		}
		found = true
		if err := json.Unmarshal(m.value, &from); err != nil {
			return "", err
		}
	}
	from, _, _ = strings.Cut(from, "\x00")
	return from, nil
}

type member struct {
	name  string
	value json.RawMessage
}

func readMembers(object []byte, members *[]member) error {
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("no object: %v, %v", t, err)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		m := member{name: t.(string)}
		if err := d.Decode(&m.value); err != nil {
			return err
		}
		*members = append(*members, m)
	}
	return nil
}
