package stack

import (
	"net/netip"
	"testing"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// TestSpreadIsSipHash compares the hash with the test vector of the SipHash reference code for
// the message 00 to 07 (8 bytes) under the key 00 to 0f.
func TestSpreadIsSipHash(t *testing.T) {
	key := [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	if got := newKeyedHash(&key).sum(0x0706050403020100); got != 0x93f5f5799a932462 {
		t.Errorf("%#x", got)
	}
}

// TestSourcesHaveDistinctWords changes each part of a source that identifies it, and the host
// bits, which do not.
func TestSourcesHaveDistinctWords(t *testing.T) {
	word := func(addr string, side verdict.Side) source {
		p := packet.Parsed{Kind: packet.IPv6, Src: netip.MustParseAddr(addr)}
		if p.Src.Is4() {
			p.Kind = packet.IPv4
		}
		p.Dst = p.Src
		k := keyOf(&p, side)
		return k.source()
	}
	seen := map[source]string{}
	for _, addr := range []string{"10.0.0.1", "10.0.1.1", "11.0.0.1", "a00::1", "2001:db8::1", "2001:db8:0:100::1", "2001:db9::1"} {
		for side := range verdict.Side(verdict.Sides) {
			w := word(addr, side)
			if other, ok := seen[w]; ok {
				t.Errorf("%s from %v has the same word as %s", addr, side, other)
			}
			seen[w] = addr + " from " + side.String()
		}
	}
	if word("10.0.0.1", verdict.Inside) != word("10.0.0.255", verdict.Inside) ||
		word("2001:db8::1", verdict.Inside) != word("2001:db8:0:ff::2", verdict.Inside) {
		t.Error("hosts of one network have different words")
	}
}

// TestKeyedHashesHaveDistinctKeys checks that two tables without a given key use different keys.
func TestKeyedHashesHaveDistinctKeys(t *testing.T) {
	if one, other := newKeyedHash(nil), newKeyedHash(nil); one == other {
		t.Error("two hashes have the same key")
	}
}
