package main

import (
	"debug/buildinfo"
	"os"
	"slices"
	"testing"
)

// TestBill: the bill of this test's program has every module that Go says it is
// made of, each once, and the standard library.
func TestBill(t *testing.T) {
	info, err := buildinfo.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	info.Deps = append(info.Deps, &info.Main) // a test without dependencies has none
	d := bill(info)
	var names []string
	for _, c := range d.Components {
		names = append(names, c.Name)
	}
	if want := []string{"std", "github.com/onem2m-maf/maf"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if len(d.Dependencies) != 1 || len(d.Dependencies[0].DependsOn) != len(d.Components) {
		t.Errorf("%+v", d.Dependencies)
	}
}
