package stack

import (
	"testing"

	"pgregory.net/rapid"

	"fragwall/packet/verdict"
)

// slowClaims is the oracle for claims: it keeps every range that was claimed.
type slowClaims []claim

func (s *slowClaims) add(start, end int) verdict.Reason {
	for _, c := range *s {
		switch {
		case int(c.start) == start && int(c.end) == end:
			return verdict.FragmentDuplicate
		case int(c.start) < end && start < int(c.end):
			return verdict.FragmentOverlap
		}
	}
	*s = append(*s, claim{uint16(start), uint16(end)})
	return verdict.Passed
}

// covers reports whether every byte of a range was claimed.
func (s slowClaims) covers(start, end int) bool {
	for at := start; at < end; at += 8 {
		if s.add(at, min(at+8, end)) == verdict.Passed {
			return false
		}
	}
	return true
}

// TestClaimsAgreeWithOracle claims random ranges, enough for a list to become bits. The results
// are those of the oracle, except for what bits cannot tell.
func TestClaimsAgreeWithOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var fast claims
		var slow slowClaims
		longest := rapid.SampledFrom([]int{1, 2, 100}).Draw(t, "longest")
		n := rapid.SampledFrom([]int{20, 1000}).Draw(t, "n")
		start := rapid.IntRange(0, 8100)
		blocks := rapid.IntRange(1, longest)
		for range n {
			from := start.Draw(t, "from")
			to := min(from+blocks.Draw(t, "blocks"), 8191)
			covered := slow.covers(from*8, to*8)
			got, want := fast.add(from*8, to*8), slow.add(from*8, to*8)
			if fast.blocks != nil && covered {
				want = verdict.FragmentDuplicate
			}
			if got != want {
				t.Fatalf("[%d, %d): %v, want %v", from*8, to*8, got, want)
			}
		}
	})
}

// TestMaxClaims shows when a list becomes bits, and that neither takes more than 1 KiB.
func TestMaxClaims(t *testing.T) {
	var c claims
	for i := range 8190 {
		c.add(i*8, i*8+8)
		if bits := i >= maxClaims; bits != (c.blocks != nil) || claimed(i+1) > 1024 || cap(c.list)*claimSize > 1024 {
			t.Fatalf("%d claims: bits: %v, %d bytes, room for %d", i+1, bits, claimed(i+1), cap(c.list))
		}
	}
	if why := c.add(8191*8, 8191*8+7); why != verdict.Passed {
		t.Errorf("the end that is not a multiple of 8: %v", why)
	}
}
