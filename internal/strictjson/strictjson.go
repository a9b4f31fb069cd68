// Package strictjson reads flat JSON objects in the one way that every other
// reader would read them, too.
//
// encoding/json takes "KMID" for kmID, and of a member that stands twice the
// last; another reader, or the person who approved the file, may go by the
// first. Here a member has exactly its name, stands once, and is one that the
// struct has.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Unmarshal reads data, one JSON object without others inside, into the struct
// that v points to. After an error the struct may hold some of its members.
//
// An error says at most the name of a member, no value, unless a member's own
// UnmarshalText does. The octets of a value that reads itself from text are not
// copied on the way: clear(data) leaves nothing of a key.
func Unmarshal(data []byte, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return readable(err)
	}
	names, flat := members(data)
	if !flat {
		return errors.New("it is not one JSON object of plain values")
	}
	known := reflect.TypeOf(v).Elem()
	for i, name := range names {
		if !has(known, name) {
			return fmt.Errorf("it has an unknown member %.40q", name)
		}
		if slices.ContainsFunc(names[:i], func(other []byte) bool { return bytes.Equal(name, other) }) {
			return fmt.Errorf("it has the member %q twice", name)
		}
	}
	return nil
}

// readable puts encoding/json's complaint about a type, which may quote a
// number, into words of the caller's world.
func readable(err error) error {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		if wrong.Field == "" {
			return errors.New("it is not a JSON object")
		}
		kind, _, _ := strings.Cut(wrong.Value, " ") // without the number itself
		return fmt.Errorf("its member %s can't be a %s", wrong.Field, kind)
	}
	return err
}

// members returns the names, as they are written, of the members of the object
// that data, valid JSON, is. flat is false when data isn't an object, or has
// objects or arrays inside.
func members(data []byte) (names [][]byte, flat bool) {
	data = bytes.TrimLeft(data, space)
	if len(data) == 0 || data[0] != '{' {
		return nil, false
	}
	for rest := data[1:]; len(rest) > 0; {
		switch rest[0] {
		case '{', '[':
			return nil, false
		case '"':
			n := stringLength(rest)
			after := bytes.TrimLeft(rest[n:], space)
			if after[0] == ':' { // valid JSON doesn't end here
				names = append(names, rest[1:n-1])
			}
			rest = after
		default:
			rest = rest[1:]
		}
	}
	return names, true
}

const space = " \t\r\n"

// stringLength returns the length of the JSON string that b begins with, with
// its quotes.
func stringLength(b []byte) int {
	n := 1
	for b[n] != '"' {
		if b[n] == '\\' {
			n++
		}
		n++
	}
	return n + 1
}

// has reports whether JSON of the struct type t can have a member of this name.
func has(t reflect.Type, name []byte) bool {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "" && f.Anonymous && f.Type.Kind() == reflect.Struct {
			if has(f.Type, name) {
				return true
			}
		} else if tag == string(name) {
			return true
		}
	}
	return false
}
