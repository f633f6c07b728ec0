package packet_test

import (
	"testing"

	"fragwall/packet"
)

// TestVLANs checks which frames are in the same VLAN.
func TestVLANs(t *testing.T) {
	const q, ad = 0x8100, 0x88a8
	for _, tt := range []struct {
		name string
		tags []packet.Tag
		want packet.VLANs
		id   uint16
		n    int
	}{
		{"untagged", nil, packet.VLANs{}, 0, 0},
		{"priority", []packet.Tag{{q, 0xf000}}, packet.VLANs{}, 0, 0},
		{"two priorities", []packet.Tag{{q, 0}, {ad, 0xe000}}, packet.VLANs{}, 0, 0},
		{"VLAN with a priority", []packet.Tag{{q, 0xf00a}}, packet.VLANs{{q, 10}}, 10, 1},
		{"inside a priority tag", []packet.Tag{{q, 0}, {q, 10}}, packet.VLANs{{q, 10}}, 10, 1},
		{"with a priority tag inside", []packet.Tag{{q, 10}, {q, 0xe000}}, packet.VLANs{{q, 10}}, 10, 1},
		{"provider VLAN", []packet.Tag{{ad, 10}}, packet.VLANs{{ad, 10}}, 10, 1},
		{"VLAN inside a provider VLAN", []packet.Tag{{ad, 0x300a}, {q, 0xb014}}, packet.VLANs{{ad, 10}, {q, 20}}, 10, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := packet.Parsed{TagCount: uint8(len(tt.tags))}
			copy(p.Tags[:], tt.tags)
			if v := p.VLANs(); v != tt.want || v.ID() != tt.id || v.Len() != tt.n {
				t.Errorf("%v with identifier %d, %d of them", v, v.ID(), v.Len())
			}
		})
	}
}
