package stack

import (
	"testing"

	"fragwall/packet/verdict"
)

// TestReusedIdentification has a sender reuse an identification after more and more other
// datagrams. The earlier datagram with this identification lost a fragment or was discarded.
func TestReusedIdentification(t *testing.T) {
	const id = 1 << 16 // no other datagram has it; in the 16 bits of IPv4 it is 0
	lost := func(b *bench, f family) {
		b.put(datagram(f, id, 2000).Fragments(1000)[0])
	}
	discarded := func(b *bench, f family) {
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
		{"lost, reused too soon", newBench, familyIPv4, lost, reuse - 1, false},
		{"lost", newBench, familyIPv4, lost, reuse, true},
		{"discarded, reused too soon", newBench, familyIPv4, discarded, reuse - 1, false},
		{"discarded", newBench, familyIPv4, discarded, reuse, true},
		{"an ipv6 identification has 32 bits", newBench, familyIPv6, discarded, reuse, false},
		{"the receiver may still hold fragments that a validator forwarded", newValidatorBench, familyIPv4, discarded, reuse, false},
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
				t.Fatalf("complete: %v, %v", d != nil, why)
			}
			if !tt.passes {
				return
			}
			if string(d.Frame(0)) != string(again[0]) || string(d.Frame(1)) != string(again[1]) {
				t.Error("the datagram does not consist of the newest fragments")
			}
			b.release(d)
			if n := b.dropped[verdict.FragmentSuperseded]; n != waited {
				t.Errorf("%d fragments superseded, want the %d held", n, waited)
			}
		})
	}
}
