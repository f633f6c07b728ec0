//go:build !race

package filter_test

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"fragwall/filter"
	"fragwall/packet"
	"fragwall/packet/verdict"
)

// The race detector is excluded because its own memory would count too.

// TestCompileStaysSmall compiles many rules of each kind, and compares some verdicts with those
// of the oracle.
func TestCompileStaysSmall(t *testing.T) {
	small := func(s shape, n int, most uint64) {
		t.Run(s.name, func(t *testing.T) {
			p, packets := s.policy(n)
			c := measureCompile(t, p)
			t.Logf("%v, peak %d MiB, kept %d MiB", c.took, c.peak>>20, c.kept>>20)
			if c.peak > most {
				t.Errorf("peak %d MiB, want at most %d", c.peak>>20, most>>20)
			}
			for i := range packets[:20] {
				got, want := c.table.Judge(&packet.View{Parsed: &packets[i]}, stopped), oracle(p, &packets[i], verdict.Inside)
				if got != want {
					t.Fatalf("%+v: %v, want %v", packets[i], got, want)
				}
			}
		})
	}
	for _, s := range shapes {
		small(s, 100_000, 300<<20)
	}
	for _, s := range hostile {
		small(s, 20_000, 100<<20) // lists with 250,000 values in total
	}
}

// TestFlowMemory fills the table with flows from different sources, which take the most memory.
func TestFlowMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := newWire(t, &filter.Policy{Stateful: true, Default: verdict.Accept})
	d := w.view(verdict.Inside, udp(families[0].in, families[0].out))
	const flows = 1_000_000
	for i := range flows {
		d.Src = netip.AddrFrom4([4]byte{byte(1 + i>>16), byte(i >> 8), byte(i), 1})
		w.table.Judge(d, w.clock)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := w.table.Flows(); n != flows {
		t.Errorf("%d flows", n)
	}
	bytes := after.HeapAlloc - before.HeapAlloc
	t.Logf("%d bytes per flow", bytes/flows)
	if bytes > 272*flows {
		t.Errorf("%d MiB", bytes>>20)
	}

	w.now += time.Hour
	for range 10 {
		w.table.Expire(w.clock, 10)
	}
	if n := w.table.Flows(); n != 0 {
		t.Errorf("%d flows after an hour", n)
	}
}
