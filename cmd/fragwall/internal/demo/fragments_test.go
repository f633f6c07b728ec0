package demo

import (
	"bytes"
	"net/netip"
	"testing"

	"fragwall/packet/packettest"
)

// TestFragments compares the fragments with those of package packettest.
func TestFragments(t *testing.T) {
	for _, hosts := range [][2]string{{"10.0.0.1:1234", "10.0.0.2:53"}, {"[2001:db8::1]:1234", "[2001:db8::2]:53"}} {
		from, to := netip.MustParseAddrPort(hosts[0]), netip.MustParseAddrPort(hosts[1])
		d := packettest.UDP(from, to, packettest.Body(4000))
		d.ID = 4711
		got, want := fragmentsOf(from, to, 4711, body(4000), 1448), d.Fragments(1448)
		if len(got) != len(want) {
			t.Fatalf("%d fragments, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i][12:], want[i][12:]) { // after the MAC addresses
				t.Errorf("fragment %d is\n%x\nwant\n%x", i, got[i], want[i])
			}
		}
	}
}
