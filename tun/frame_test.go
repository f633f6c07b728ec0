package tun_test

import (
	"bytes"
	"testing"

	"fragwall/packet"
	"fragwall/packet/packettest"
	"fragwall/tun"
	"fragwall/tun/internal/lanetest"
)

func TestOffloadHeader(t *testing.T) {
	want := tun.Offload{Flags: 3, GSO: 0x81, HeaderLength: 0x102, SegmentSize: 0x304, ChecksumStart: 0x506, ChecksumOffset: 0x708}
	b := make([]byte, tun.HeaderSize)
	want.Encode(b)
	var got tun.Offload
	if got.Decode(b); got != want {
		t.Errorf("%+v", got)
	}
}

func TestCompleteChecksum(t *testing.T) {
	tests := []struct {
		name   string
		d      packettest.Datagram
		offset int
	}{
		{"udp over ipv4", packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(101)), 6},
		{"udp over ipv6", packettest.UDP(lanetest.Client6, lanetest.Server6, packettest.Body(1000)), 6},
		{"tcp over ipv4", packettest.TCP(lanetest.Client4, lanetest.Server4, 2), 16},
		{"tcp over ipv6", packettest.TCP(lanetest.Client6, lanetest.Server6, 2), 16},
		{"tagged", packettest.Datagram{Tags: []packet.Tag{{TPID: 0x8100, TCI: 5}}, Src: lanetest.Client4.Addr(), Dst: lanetest.Server4.Addr(),
			Protocol: packet.ProtocolUDP, Payload: packettest.UDP(lanetest.Client4, lanetest.Server4, packettest.Body(20)).Payload}, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := lanetest.Partial(tt.d, tt.offset)
			if bytes.Equal(f.Data, tt.d.Frame()) {
				t.Fatal("the checksum is already complete")
			}
			if !f.CompleteChecksum() || !bytes.Equal(f.Data, tt.d.Frame()) {
				t.Errorf("got\n% .80x\nwant\n% .80x", f.Data, tt.d.Frame())
			}
			if f.Offload.Flags != 0 || f.Offload.ChecksumStart != 0 {
				t.Errorf("%+v", f.Offload)
			}
		})
	}
}

// TestCompleteChecksumZero computes a checksum that is 0. UDP sends it as 0xffff, because 0 means
// no checksum.
func TestCompleteChecksumZero(t *testing.T) {
	f := tun.Frame{Data: []byte{0xff, 0xff, 0, 0}, Offload: tun.Offload{Flags: tun.NeedsChecksum, ChecksumOffset: 2}}
	if !f.CompleteChecksum() || f.Data[2] != 0xff || f.Data[3] != 0xff {
		t.Errorf("% x", f.Data)
	}
}

func TestCompleteChecksumBeyondFrame(t *testing.T) {
	for _, o := range []tun.Offload{
		{ChecksumStart: 19, ChecksumOffset: 0},
		{ChecksumStart: 10, ChecksumOffset: 9},
		{ChecksumStart: 65535, ChecksumOffset: 65535},
	} {
		o.Flags = tun.NeedsChecksum
		f := tun.Frame{Data: make([]byte, 20), Offload: o}
		if f.CompleteChecksum() || f.Offload != o || !bytes.Equal(f.Data, make([]byte, 20)) {
			t.Errorf("%+v became %+v; the frame is % x", o, f.Offload, f.Data)
		}
	}
}
