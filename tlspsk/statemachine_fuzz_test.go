package tlspsk

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
)

// A fuzzScript is a sequence as a fuzzer writes it: the victim's role, the
// variant, the delivery, and an octet for each letter of the table.
type fuzzScript struct {
	m      machine
	v      variant
	d      delivery
	table  *stateTable
	script []string
}

const longestScript = 40

// fuzzTables reads the tables for all variants.
func fuzzTables(f *testing.F, dtls bool) map[string]*stateTable {
	tables := make(map[string]*stateTable)
	for _, m := range machines {
		for _, v := range variants {
			if m.dtls != dtls {
				continue
			}
			table, err := readTable(m.table, m.faults, v, dtls)
			if err != nil {
				f.Fatal(err)
			}
			tables[m.name+v.name] = table
		}
	}
	return tables
}

func readScript(b []byte, dtls bool, deliveries []delivery, tables map[string]*stateTable) (s fuzzScript, ok bool) {
	if len(b) < 3 {
		return s, false
	}
	i := int(b[0]) % 2
	if dtls {
		i += 2
	}
	s.m, s.v, s.d = machines[i], variants[int(b[1])%len(variants)], deliveries[int(b[2])%len(deliveries)]
	s.table = tables[s.m.name+s.v.name]
	for _, c := range b[3:min(len(b), 3+longestScript)] {
		s.script = append(s.script, s.table.letters[int(c)%len(s.table.letters)])
	}
	return s, true
}

// writeScript is the inverse, for seeds.
func writeScript(m machine, v, d int, table *stateTable, script []string) []byte {
	b := []byte{0, byte(v), byte(d)}
	if m.victimIsClient {
		b[0] = 1
	}
	for _, letter := range script {
		b = append(b, byte(slices.Index(table.letters, letter)))
	}
	return b
}

// addScripts adds the honest sequences as seeds: the fuzzer has to deviate from
// those, and would not find them by itself.
func addScripts(f *testing.F, dtls bool, deliveries []delivery, tables map[string]*stateTable) {
	for _, m := range machines {
		for i, v := range variants {
			if m.dtls != dtls {
				continue
			}
			for d := range deliveries {
				f.Add(writeScript(m, i, d, tables[m.name+v.name], m.honest(v)))
			}
		}
	}
}

// FuzzStateMachineTLS: any sequence whatever ends as the tables say.
func FuzzStateMachineTLS(f *testing.F) {
	tables := fuzzTables(f, false)
	deliveries := []delivery{whole, split, joined, octets}
	addScripts(f, false, deliveries, tables)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := readScript(b, false, deliveries, tables)
		if !ok || s.v.connectionIDs {
			return
		}
		want, script, _ := s.m.predictTLS(s.table, s.v, s.d, s.script)
		got, err := s.m.playTLS(s.v, s.d, script)
		if got != want || err != nil {
			t.Errorf("%s, %s: %s\nwant %+v\ngot  %+v (%v)", s.m.name, s.v.name, strings.Join(script, "; "), want, got, err)
		}
	})
}

// FuzzStateMachineDTLS is the same over datagrams.
func FuzzStateMachineDTLS(f *testing.F) {
	tables := fuzzTables(f, true)
	deliveries := []delivery{whole, fragments, doubled}
	addScripts(f, true, deliveries, tables)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := readScript(b, true, deliveries, tables)
		if !ok {
			return
		}
		want, script := s.m.predictDTLS(s.table, s.v, s.d, s.script)
		var got outcome
		var err error
		synctest.Test(t, func(*testing.T) { got, err = s.m.playDTLS(s.v, s.d, script) })
		if got != want || err != nil {
			t.Errorf("%s, %s: %s\nwant %+v\ngot  %+v (%v)", s.m.name, s.v.name, strings.Join(script, "; "), want, got, err)
		}
	})
}
