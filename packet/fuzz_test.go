package packet_test

import (
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/packet/verdict"
)

// seeds are frames of every shape that the decoder distinguishes.
func seeds() [][]byte {
	udp4 := packettest.UDP(in4, out4, packettest.Body(40))
	udp6 := packettest.UDP(in6, out6, packettest.Body(40))
	udp4.Options = []byte{0x94, 4, 0, 0, 131, 7, 4, 1, 2, 3, 4, 0}
	udp6.FirstBefore, udp6.Before = 0, []byte{44, 0, 5, 2, 0, 0, 1, 0}
	tagged := udp6
	tagged.Tags = []packet.Tag{{TPID: 0x88a8, TCI: 1}, {TPID: 0x8100, TCI: 2}}
	tagged.FirstBefore, tagged.Before = 43, []byte{17, 0, 4, 1, 0, 0, 0, 0}
	snap := tagged
	snap.LLC = packettest.SNAP
	inside := udp4
	inside.LLC = []byte{0xaa, 0xaa, 3, 0, 0, 0xf8, 0x81, 0, 0, 10}
	frames := [][]byte{udp4.Frame(), tagged.Frame(), snap.Frame(), inside.Frame(), udp4.Ethernet(0x0806, make([]byte, 28))}
	frames = append(frames, udp4.Fragments(24)...)
	return append(frames, udp6.Fragments(24)...)
}

// check checks the properties that callers rely on after [packet.Parsed.Decode].
func check(t *testing.T, frame []byte) {
	var p packet.Parsed
	if p.Decode(frame) != verdict.Passed {
		return
	}
	if p.Network > p.End || p.End > len(frame) {
		t.Fatalf("the packet is at [%d:%d] of %d bytes", p.Network, p.End, len(frame))
	}
	if end := p.FrameEnd(frame); end < p.End || end > len(frame) || p.LLC > p.Network {
		t.Fatalf("the frame ends at %d of %d bytes, the packet at %d, LLC begins at %d", end, len(frame), p.End, p.LLC)
	}
	isIP := p.Kind == packet.IPv4 || p.Kind == packet.IPv6
	if isIP && (!p.Src.IsValid() || !p.Dst.IsValid() || p.Src.Is4() != (p.Kind == packet.IPv4)) {
		t.Fatalf("addresses %v, %v", p.Src, p.Dst)
	}
	if f := p.Fragment; f.Present {
		length := p.End - f.Payload
		if !isIP || !p.Fragmented || f.Payload <= p.Network || length <= 0 || f.Offset%8 != 0 ||
			f.More && length%8 != 0 || f.Headers+f.Offset+length > 65535 {
			t.Fatalf("fragment %+v with %d bytes", f, length)
		}
	}
	if !p.Fragment.Present && isIP && (p.Upper < p.Network || p.Upper > p.End) {
		t.Fatalf("the upper layer is at %d of [%d:%d]", p.Upper, p.Network, p.End)
	}
}

func FuzzDecode(f *testing.F) {
	for _, frame := range seeds() {
		f.Add(frame)
	}
	f.Fuzz(check)
}

// TestHostileFrames cuts every seed at every length, and sets every header byte to extreme
// values.
func TestHostileFrames(t *testing.T) {
	for _, frame := range seeds() {
		for n := range frame {
			check(t, frame[:n])
		}
		for at := range frame {
			for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff, frame[at] + 1, frame[at] - 1} {
				hostile := append([]byte{}, frame...)
				hostile[at] = v
				check(t, hostile)
			}
		}
	}
}
