package stack

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// TestValidatorContinuesFromBeginning plays scripts whose datagrams begin as those of honest hosts
// do, and continue at random. With a fast path in front of the validator that forwards the
// beginnings, each fragment gets the same verdict as without.
func TestValidatorContinuesFromBeginning(t *testing.T) {
	forwarded, handed := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		script := []byte{rapid.ByteRange(0, 3).Draw(t, "header")}
		for range rapid.IntRange(1, 8).Draw(t, "datagrams") {
			o := op{
				id: 2 * rapid.Uint8Range(0, 1).Draw(t, "id"), outside: rapid.Bool().Draw(t, "outside"),
				blocks: rapid.Uint8Range(1, 4).Draw(t, "unit"), more: true,
			}
			for range rapid.IntRange(1, 6).Draw(t, "in order") {
				script = append(script, o.encode()...)
				o.start += o.blocks
			}
			for range rapid.IntRange(0, 4).Draw(t, "whatever") {
				odd := o
				odd.start = uint8(max(0, int(o.start)+rapid.IntRange(-int(o.start), 4).Draw(t, "start")))
				odd.blocks = rapid.SampledFrom([]uint8{o.blocks, o.blocks, 1, 2, 5}).Draw(t, "blocks")
				odd.more = rapid.Bool().Draw(t, "more")
				odd.wait = rapid.SampledFrom([]uint8{0, 0, 0, 1, 29, 31}).Draw(t, "wait")
				script = append(script, odd.encode()...)
			}
			o.more = false
			if rapid.Bool().Draw(t, "ends") {
				script = append(script, o.encode()...)
			}
		}
		f := &forwarder{}
		playOn(t, script, true, f)
		forwarded, handed = forwarded+f.count, handed+f.handed
	})
	if forwarded == 0 || handed == 0 {
		t.Errorf("%d fragments forwarded, %d beginnings handed over", forwarded, handed)
	}
}

// TestBeginningIsCharged has a validator take over the beginning of a datagram in many
// fragments, and then receive the rest. The validator charges for the datagram, and for nothing
// once all fragments have arrived.
func TestBeginningIsCharged(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		asked := 0
		b := newValidatorBench(t, func(o *Options) {
			o.Begun = func(p *packet.Parsed, side verdict.Side) (Beginning, bool) {
				asked++
				return Beginning{Bytes: 63000, Unit: 8, First: epoch}, p.Fragment.ID == 1 && side == verdict.Inside
			}
		})
		rest := datagram(f, 1, 64992).Fragments(1000)[63:]
		if _, _, why := b.validate(rest[0], deny); why != verdict.Passed {
			t.Fatal(why)
		}
		if u := b.table.Usage(); u.Bytes != datagramCost+int64(claimed(maxClaims)) {
			t.Errorf("%+v", u)
		}
		if _, _, why := b.validate(datagram(f, 1, 64992).Fragments(8)[7874], deny); why != verdict.FragmentDuplicate {
			t.Errorf("a fragment that the fast path had forwarded: %v", why)
		}
		if _, _, why := b.validate(rest[1], deny); why != verdict.Passed || asked != 1 {
			t.Errorf("%v, asked %d times", why, asked)
		}
		if u := b.table.Usage(); u != (Usage{}) {
			t.Errorf("after all fragments: %+v", u)
		}
	})
}

// TestBeginningKeepsItsDeadline takes over a beginning that is older than the fragments held.
// The datagram expires at the deadline of the beginning.
func TestBeginningKeepsItsDeadline(t *testing.T) {
	b := newValidatorBench(t, func(o *Options) {
		o.Begun = func(p *packet.Parsed, _ verdict.Side) (Beginning, bool) {
			return Beginning{Bytes: 800, Unit: 800, First: epoch}, p.Fragment.ID == 2
		}
	})
	b.now = epoch.Add(20 * time.Second)
	b.validate(datagram(familyIPv4, 1, 2400).Fragments(800)[1], accept)
	frames := datagram(familyIPv4, 2, 3200).Fragments(800)
	if _, waits, why := b.validate(frames[1], accept); waits || why != verdict.Passed {
		t.Fatalf("held: %v, %v", waits, why)
	}
	b.now = epoch.Add(30*time.Second - 1)
	if _, waits, why := b.validate(frames[2], accept); waits || why != verdict.Passed {
		t.Errorf("before the deadline: held: %v, %v", waits, why)
	}
	b.now = epoch.Add(30 * time.Second)
	if _, waits, _ := b.validate(frames[3], accept); !waits {
		t.Error("after the deadline the fragment was forwarded")
	}
}
