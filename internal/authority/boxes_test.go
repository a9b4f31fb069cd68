package authority

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/onem2m-maf/maf/internal/store"
	"github.com/onem2m-maf/maf/onem2m"
)

// Every field of a row is bound to the row's box, save for those that are named
// here. A field that is added to a row has to be thought about.
func TestBindings(t *testing.T) {
	client := store.Client{
		KmID: onem2m.KmID{Relative: "meter7", FQDN: "maf.example.com"}, UID: 5,
		IdB:  onem2m.CSEID{SP: "sp.example.com", ID: "in-cse"},
		AEID: onem2m.AEID{SP: "sp.example.com", CSE: "in-cse", Stem: "Cmeter"}, CSEID: onem2m.CSEID{SP: "sp.example.com", ID: "mn"},
		Lifetime: time.Hour,
	}
	checkBinding(t, &client, kmBinding,
		"Version", "Created", "Updated", "SealedKm",
		"AEID.SPRelative") // never in the absolute form, which is the one that is kept
	key := store.Key{
		ID:   onem2m.KcID{Relative: onem2m.RelativeKeyID{1, 2, 3}, FQDN: "maf.example.com"},
		KmID: client.KmID, UID: 5, IdB: client.IdB, Expires: time.Unix(1_900_000_000, 0),
	}
	checkBinding(t, &key, kcBinding, "SealedKc")
}

func checkBinding[R any](t *testing.T, row *R, binding func(*R) []byte, unbound ...string) {
	t.Helper()
	seen := map[string]string{string(binding(row)): "the row as it was"}
	free := map[string]bool{}
	for _, name := range unbound {
		free[name] = true
	}
	eachLeaf(t, reflect.ValueOf(row).Elem(), "", func(name string) {
		b := string(binding(row))
		if free[name] {
			delete(free, name)
			if seen[b] == "" {
				t.Errorf("%T.%s is bound to the box", *row, name)
			}
			return
		}
		if same := seen[b]; same != "" {
			t.Errorf("%T: changing %s binds like %s", *row, name, same)
		}
		seen[b] = name
	})
	for name := range free {
		t.Errorf("%T has no field %s", *row, name)
	}
}

// eachLeaf changes one field after the other, calls f, and changes it back.
func eachLeaf(t *testing.T, v reflect.Value, name string, f func(name string)) {
	t.Helper()
	old := reflect.ValueOf(v.Interface())
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(v.Interface().(time.Time).Add(time.Second)))
	case time.Duration:
		v.SetInt(v.Int() + int64(time.Second))
	case []byte:
		v.SetBytes([]byte("changed"))
	case onem2m.RelativeKeyID:
		v.Index(15).SetUint(9)
	default:
		switch v.Kind() {
		case reflect.String:
			v.SetString(v.String() + "x")
		case reflect.Int64:
			v.SetInt(v.Int() + 1)
		case reflect.Bool:
			v.SetBool(!v.Bool())
		case reflect.Struct:
			for i := range v.NumField() {
				field := v.Type().Field(i).Name
				if name != "" {
					field = name + "." + field
				}
				eachLeaf(t, v.Field(i), field, f)
			}
			return
		default:
			t.Fatalf("a row with a %v: %s", v.Kind(), name)
		}
	}
	f(name)
	v.Set(old)
}

// Two lists of fields never look the same, whatever is in them.
func TestFieldsAreUnambiguous(t *testing.T) {
	seen := map[string]string{}
	for _, fields := range [][]string{
		{}, {""}, {"", ""}, {"a"}, {"a", ""}, {"", "a"}, {"ab"}, {"a", "b"}, {"\x01a"}, {"\x01", "a"},
	} {
		b := string(appendFields(nil, fields...))
		if same, ok := seen[b]; ok {
			t.Errorf("%q looks like %s", fields, same)
		}
		seen[b] = fmt.Sprintf("%q", fields)
	}
}

// The layout is in every store there is: a change to it must be seen.
func TestBindingLayout(t *testing.T) {
	c := store.Client{KmID: onem2m.KmID{Relative: "m", FQDN: "f"}, UID: 1, IdB: onem2m.CSEID{SP: "s", ID: "i"}, Lifetime: 2 * time.Second, Disabled: true}
	want := []byte("\x08maf Km 1" + "\x01m\x01f" + "\x01s\x01i" + "\x00\x00\x00" + "\x00\x00" +
		"\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00\x00\x02" + "\x01")
	if got := kmBinding(&c); !bytes.Equal(got, want) {
		t.Errorf("Km: %q", got)
	}
	k := store.Key{ID: onem2m.KcID{FQDN: "f"}, KmID: c.KmID, UID: 1, IdB: c.IdB, Expires: time.Unix(3, 0)}
	want = []byte("\x08maf Kc 1" + "\x10" + string(make([]byte, 16)) + "\x01f" + "\x01m\x01f" + "\x01s\x01i" +
		"\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00\x00\x03")
	if got := kcBinding(&k); !bytes.Equal(got, want) {
		t.Errorf("Kc: %q", got)
	}
}
