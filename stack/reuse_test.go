package stack

import (
	"testing"

	"fragwall/packet/verdict"
)

// TestReusedIdentification has a sender come back to an identification after
// more and more other datagrams, where the one before had lost a fragment or
// was given up.
func TestReusedIdentification(t *testing.T) {
	const id = 1 << 16 // no other datagram's, in the 16 bits of IPv4 those of 0
	lost := func(b *bench, f family) {
		b.put(datagram(f, id, 2000).Fragments(1000)[0])
	}
	givenUp := func(b *bench, f family) {
		lost(b, f)
		d := datagram(f, id, 2000)
		b.put(d.Fragment(504, d.Payload[504:1504], true)) // overlaps
	}
	tests := []struct {
		name   string
		engine func(t testing.TB, change ...func(*Options)) *bench
		family family
		before func(*bench, family)
		others int
		passes bool
	}{
		{"lost, as soon as that", newBench, familyIPv4, lost, reuse - 1, false},
		{"lost", newBench, familyIPv4, lost, reuse, true},
		{"given up, as soon as that", newBench, familyIPv4, givenUp, reuse - 1, false},
		{"given up", newBench, familyIPv4, givenUp, reuse, true},
		{"ipv6 has identifications enough", newBench, familyIPv6, givenUp, reuse, false},
		{"what a validator let pass may still wait at the receiver", newValidatorBench, familyIPv4, givenUp, reuse, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.engine(t)
			tt.before(b, tt.family)
			other := datagram(tt.family, 1, 1600).Fragments(800)
			for range tt.others {
				b.put(other[0])
				b.put(other[1])
			}
			waited := b.held
			again := datagram(tt.family, id, 1800).Fragments(1000)
			b.put(again[0])
			if b.validator.Table != nil {
				if _, _, why := b.validate(again[1], accept); why != verdict.FragmentPoisoned {
					t.Errorf("%v, want %v", why, verdict.FragmentPoisoned)
				}
				return
			}
			d, why := b.add(again[1], verdict.Inside)
			if (d != nil) != tt.passes {
				t.Fatalf("whole: %v, %v", d != nil, why)
			}
			if !tt.passes {
				return
			}
			if string(d.Frame(0)) != string(again[0]) || string(d.Frame(1)) != string(again[1]) {
				t.Error("the datagram has other fragments than came last")
			}
			b.release(d)
			if n := b.dropped[verdict.FragmentSuperseded]; n != waited {
				t.Errorf("%d fragments superseded, of %d that waited", n, waited)
			}
		})
	}
}
