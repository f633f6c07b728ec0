package stack

import (
	"bytes"
	"fmt"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// rebuild sends fragments, the last of which completes their datagram, and returns the frames
// that it is rebuilt into for an MTU of 1,500 bytes.
func (b *bench) rebuild(fragments [][]byte) ([][]byte, verdict.Reason) {
	b.Helper()
	for _, frame := range fragments[:len(fragments)-1] {
		b.mustWait(frame)
	}
	d, why := b.add(fragments[len(fragments)-1], verdict.Inside)
	if d == nil {
		b.Fatalf("not complete: %v", why)
	}
	defer b.release(d)
	n, why := d.Rebuild(1500)
	var frames [][]byte
	for i := range n {
		frames = append(frames, bytes.Clone(d.Rebuilt(i)))
	}
	return frames, why
}

// same compares frames.
func (b *bench) same(got, want [][]byte) {
	b.Helper()
	if len(got) != len(want) {
		b.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			n := min(len(got[i]), len(want[i]), 100)
			b.Fatalf("frame %d of %d bytes, want %d:\n% x\n% x", i, len(got[i]), len(want[i]), got[i][:n], want[i][:n])
		}
	}
}

// unfragmented returns a datagram in one frame. In IPv4 it keeps its identification.
func unfragmented(d packettest.Datagram) []byte {
	if d.Src.Is4() {
		return d.Fragment(0, d.Payload, false)
	}
	if n := len(d.Before); n > 0 && len(d.After) > 0 {
		d.Before = bytes.Clone(d.Before)
		d.Before[n-8] = d.FirstAfter // skips the fragment header
	}
	return d.Frame()
}

// chained returns a datagram with extension headers before and after the fragment header.
func chained(n int) packettest.Datagram {
	d := datagram(familyIPv6, 7, n)
	d.FirstBefore = 0                                                           // hop-by-hop
	d.Before = []byte{60, 0, 5, 2, 0, 0, 1, 0, 44, 0, 1, 4, 0, 0, 0, 0}         // router alert, destination options
	d.FirstAfter, d.After = 60, []byte{packet.ProtocolUDP, 0, 1, 4, 0, 0, 0, 0} // destination options
	return d
}

// TestRebuiltWhole rebuilds datagrams that fit the MTU, most of them exactly.
func TestRebuiltWhole(t *testing.T) {
	options := datagram(familyIPv4, 7, 1500-20-12)
	options.Options = []byte{7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0} // record route, no operation, router alert
	tagged := datagram(familyIPv6, 7, 1400)
	tagged.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 0x2002}}
	tagged.TrafficClass, tagged.TTL = 0xb9, 3
	snap := datagram(familyIPv4, 7, 1500-8-20)
	snap.Tags, snap.LLC = tagged.Tags[:1], packettest.SNAP
	for name, d := range map[string]packettest.Datagram{
		"ipv4": datagram(familyIPv4, 7, 1480), "ipv6": datagram(familyIPv6, 7, 1460),
		"options": options, "chained": chained(1460 - 24), "tagged": tagged, "llc": snap,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			got, _ := b.rebuild(d.Fragments(800))
			b.same(got, [][]byte{unfragmented(d)})
		})
	}
}

// TestRebuiltInFragments rebuilds datagrams that exceed the MTU by a byte or by far. They leave
// in fragments as large as the largest that arrived, whatever the order and the sizes of the
// others.
func TestRebuiltInFragments(t *testing.T) {
	snap := datagram(familyIPv6, 7, 1500-8-40+1)
	snap.LLC = packettest.SNAP
	for _, tt := range []struct {
		name    string
		d       packettest.Datagram
		largest int // payload
	}{
		{"llc, a byte too long", snap, 1000},
		{"ipv4, a byte too long", datagram(familyIPv4, 7, 1481), 1000},
		{"ipv6, a byte too long", datagram(familyIPv6, 7, 1461), 1000},
		{"ipv4", datagram(familyIPv4, 7, 65515), 1480},
		{"ipv6", datagram(familyIPv6, 7, 65535), 1448},
		{"chained", chained(8000), 1432},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			whole := tt.d.Fragmentable()
			var fragments [][]byte
			for at, n := 0, 256; at < len(whole); at += n {
				if at > 0 {
					n = tt.largest // the first is small
				}
				end := min(at+n, len(whole))
				fragments = append([][]byte{tt.d.Fragment(at, whole[at:end], end < len(whole))}, fragments...)
			}
			got, why := b.rebuild(fragments)
			if why != verdict.Passed {
				t.Fatal(why)
			}
			b.same(got, tt.d.Fragments(tt.largest))
		})
	}
}

// TestRebuiltOptions has IPv4 options of every kind. The first fragment has all of them, the
// others only those with the copied flag (RFC 791 §3.1).
func TestRebuiltOptions(t *testing.T) {
	tests := []struct {
		name            string
		options, copied []byte
	}{
		{"none copied", []byte{7, 7, 4, 0, 0, 0, 0, 0}, nil},
		{"all copied", []byte{0x94, 4, 0, 0}, []byte{0x94, 4, 0, 0}},
		{"one of three, padded", []byte{7, 7, 4, 0, 0, 0, 0, 1, 0x83, 7, 4, 1, 2, 3, 4, 0}, []byte{0x83, 7, 4, 1, 2, 3, 4, 0}},
		{"after the end of options", []byte{0, 0x94, 4, 0}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			d := datagram(familyIPv4, 7, 4000)
			d.Options = tt.options
			got, _ := b.rebuild(d.Fragments(1200))
			want := d.Fragments(1200)
			d.Options = tt.copied
			for i := 1; i < len(want); i++ {
				want[i] = d.Fragments(1200)[i]
			}
			b.same(got, want)
		})
	}
}

// TestRebuiltDF has DF on some fragments of 4,000 bytes. New fragments have DF if the largest
// that arrived had it, as in Linux. A datagram that leaves as a whole packet does not have it,
// since it may not fit the rest of the path.
func TestRebuiltDF(t *testing.T) {
	for _, tt := range []struct {
		first, rest, want bool
		size              int
	}{
		{first: true, rest: true, want: true, size: 1480},
		{first: false, rest: false, want: false, size: 1480},
		{first: true, rest: false, want: true, size: 1480},  // as large as the others, which lack DF
		{first: true, rest: false, want: false, size: 1000}, // smaller than the others, which lack DF
		{first: false, rest: true, want: true, size: 1000},
	} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			b := newBench(t)
			d := datagram(familyIPv4, 7, 4000)
			d.DontFragment = tt.first
			fragments := [][]byte{d.Fragment(0, d.Payload[:tt.size], true)}
			d.DontFragment = tt.rest
			for at := tt.size; at < 4000; at += 1480 {
				end := min(at+1480, 4000)
				fragments = append(fragments, d.Fragment(at, d.Payload[at:end], end < 4000))
			}
			got, _ := b.rebuild(fragments)
			d.DontFragment = tt.want
			b.same(got, d.Fragments(1480))
		})
	}
	b := newBench(t)
	d := datagram(familyIPv4, 7, 1400)
	d.DontFragment = true
	got, _ := b.rebuild(d.Fragments(1000))
	d.DontFragment = false
	b.same(got, [][]byte{unfragmented(d)})
}

// TestRebuiltECN has every pair of codepoints on two fragments (RFC 3168 §5.3;
// net/ipv4/inet_fragment.c, ip_frag_ecn_table).
func TestRebuiltECN(t *testing.T) {
	const notECT, ect1, ect0, ce, invalid = 0, 1, 2, 3, 0xff
	want := [4][4]uint8{ // by the codepoints of the first and of the second fragment
		notECT: {notECT: notECT, ect1: invalid, ect0: invalid, ce: invalid},
		ect1:   {notECT: invalid, ect1: ect1, ect0: ect1, ce: ce},
		ect0:   {notECT: invalid, ect1: ect0, ect0: ect0, ce: ce},
		ce:     {notECT: invalid, ect1: ce, ect0: ce, ce: ce},
	}
	bothFamilies(t, func(t *testing.T, f family) {
		for first := range uint8(4) {
			for second := range uint8(4) {
				b := newBench(t)
				d := datagram(f, 7, 1400)
				d.TrafficClass = 0xb8 | first
				fragments := d.Fragments(1000)
				d.TrafficClass = 0x28 | second // another DSCP: that of the first fragment counts
				fragments[1] = d.Fragments(1000)[1]
				got, why := b.rebuild(fragments)
				if want[first][second] == invalid {
					if why != verdict.FragmentECN || got != nil {
						t.Errorf("%02b and %02b: %d frames, %v", first, second, len(got), why)
					}
					continue
				}
				d.TrafficClass = 0xb8 | want[first][second]
				b.same(got, [][]byte{unfragmented(d)})
			}
		}
	})
}

// TestRebuiltBehindLLC has a first fragment behind LLC, and another fragment that is longer
// than an 802.3 frame allows.
func TestRebuiltBehindLLC(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t)
		large, room := 1480, 1472 // payload of a fragment of 1,500 bytes, without and with LLC
		if f == familyIPv6 {
			large, room = 1448, 1440
		}
		d := datagram(f, 7, 1000+large)
		whole := d.Fragmentable()
		last := d.Fragment(1000, whole[1000:], false)
		d.LLC = packettest.SNAP
		got, _ := b.rebuild([][]byte{last, d.Fragment(0, whole[:1000], true)})
		b.same(got, d.Fragments(room))
	})
}

// TestRebuiltHasHeadersOfFirst has fragments that differ in all fields that may differ. The rebuilt
// frames have the TTL, tags and extension headers of the first.
func TestRebuiltHasHeadersOfFirst(t *testing.T) {
	bothFamilies(t, func(t *testing.T, f family) {
		b := newBench(t)
		d := datagram(f, 7, 2000)
		d.Tags, d.TTL = []packet.Tag{{TPID: 0x8100, TCI: 0xe001}}, 9
		d.FirstBefore, d.Before = 60, []byte{44, 0, 1, 4, 0, 0, 0, 0}
		other := d
		other.Tags, other.TTL = []packet.Tag{{TPID: 0x8100, TCI: 0x2000}, {TPID: 0x8100, TCI: 1}}, 60
		other.FirstBefore, other.Before = 0, nil
		got, _ := b.rebuild([][]byte{other.Fragments(1400)[1], d.Fragments(1400)[0]})
		b.same(got, d.Fragments(1400))
	})
}
