package stack

import (
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// TestCreditIsEarned has a source spend all the credit that a datagram earned it, and no more.
func TestCreditIsEarned(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t)
		var p packet.Parsed
		frames := datagram(f, 1, 1600).Fragments(800)
		p.Decode(frames[0])
		spend := func() (n int) {
			for b.spend(&p, verdict.Inside) {
				n++
			}
			return n
		}
		if spend() != 0 {
			t.Error("a new source has credit")
		}
		for range 2 * creditMost / creditEarned {
			b.mustWait(frames[0])
			d, _ := b.add(frames[1], verdict.Inside)
			b.reassembler.Credit(d)
			b.release(d)
		}
		if b.spend(&p, verdict.Outside) {
			t.Error("the same prefix on the other side has the credit too")
		}
		if n := spend(); n != creditMost {
			t.Errorf("credit for %d fragments, want %d", n, creditMost)
		}
	})
}

// TestValidatorCredits checks that a datagram earns credit if all its fragments passed, and
// none if it was denied.
func TestValidatorCredits(t *testing.T) {
	b := newValidatorBench(t)
	var p packet.Parsed
	for _, why := range []verdict.Reason{verdict.PolicyRule, verdict.Passed} {
		for _, frame := range datagram(familyIPv4, 1, 1600).Fragments(800) {
			b.validate(frame, func(*packet.Parsed) verdict.Reason { return why })
			p.Decode(frame)
		}
		if got := b.spend(&p, verdict.Inside); got != (why == verdict.Passed) {
			t.Errorf("after %v: credit %v", why, got)
		}
		if got := b.credited == packettest.InsideIPv4; got != (why == verdict.Passed) {
			t.Errorf("after %v: the ledger knows %v", why, b.credited)
		}
	}
}

// spend takes the cost of a fragment from its source's credit.
func (b *bench) spend(p *packet.Parsed, side verdict.Side) bool {
	k := keyOf(p, side)
	return b.table.credits.of(k.source()).spend()
}
