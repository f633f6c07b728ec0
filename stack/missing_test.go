package stack

import (
	"slices"
	"testing"

	"fragwall/packet/verdict"
)

// TestMissing compares the missing ranges with a map of all blocks of 8 bytes, both for few
// claims and for so many that they are kept as bits.
func TestMissing(t *testing.T) {
	for _, step := range []int{1, 3, 7, 50} { // blocks of 8 bytes, one of which arrives
		for _, end := range []int{0, 30_000} {
			d := &Datagram{}
			d.end = end
			var want []Gap
			for at := 0; at < 30_000; at += 8 * step {
				start, behind := at, at+8
				if why := d.claims.add(start, behind); why != verdict.Passed {
					t.Fatal(why)
				}
				if next := min(at+8*step, 30_000); step > 1 && (next < 30_000 || end != 0 && behind < next) {
					want = append(want, Gap{behind, next})
				}
				if at+8*step >= 30_000 && end == 0 {
					want = append(want, Gap{Start: behind})
				}
			}
			if got := d.Missing(); !slices.Equal(got, want) {
				t.Errorf("one block in %d, end %d: %v, want %v", step, end, got, want)
			}
		}
	}
	if got := (&Datagram{}).Missing(); !slices.Equal(got, []Gap{{}}) {
		t.Errorf("a datagram without fragments: %v", got)
	}
}
