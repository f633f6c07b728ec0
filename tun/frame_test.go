package tun

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"fragwall/packet"
	"fragwall/packet/packettest"
)

var (
	client4 = netip.AddrPortFrom(packettest.InsideIPv4, 40000)
	server4 = netip.AddrPortFrom(packettest.OutsideIPv4, 5000)
	client6 = netip.AddrPortFrom(packettest.InsideIPv6, 40000)
	server6 = netip.AddrPortFrom(packettest.OutsideIPv6, 5000)
)

// partial returns a frame of a datagram whose checksum is left for the NIC:
// the field, offset bytes into the transport header, holds the sum of the
// pseudo-header.
func partial(d packettest.Datagram, offset int) Frame {
	data := d.Frame()
	start := len(data) - len(d.Payload)
	f := Frame{Data: data, Offload: Offload{
		Flags:          NeedsChecksum,
		HeaderLength:   uint16(start + 20),
		ChecksumStart:  uint16(start),
		ChecksumOffset: uint16(offset),
	}}
	field := data[start+offset:]
	// The complete sum is that of the pseudo-header and all else.
	binary.BigEndian.PutUint16(field, 0)
	rest := checksum.Checksum(data[start:], 0)
	binary.BigEndian.PutUint16(field, ^checksum.Combine(^binary.BigEndian.Uint16(d.Payload[offset:]), ^rest)^0xffff)
	return f
}

func TestOffloadHeader(t *testing.T) {
	want := Offload{Flags: 3, GSO: 0x81, HeaderLength: 0x102, SegmentSize: 0x304, ChecksumStart: 0x506, ChecksumOffset: 0x708}
	b := make([]byte, headerSize)
	want.encode(b)
	var got Offload
	if got.decode(b); got != want {
		t.Errorf("%+v", got)
	}
}

func TestCompleteChecksum(t *testing.T) {
	tests := []struct {
		name   string
		d      packettest.Datagram
		offset int
	}{
		{"udp over ipv4", packettest.UDP(client4, server4, packettest.Body(101)), 6},
		{"udp over ipv6", packettest.UDP(client6, server6, packettest.Body(1000)), 6},
		{"tcp over ipv4", packettest.TCP(client4, server4, 2), 16},
		{"tcp over ipv6", packettest.TCP(client6, server6, 2), 16},
		{"tagged", packettest.Datagram{Tags: []packet.Tag{{TPID: 0x8100, TCI: 5}}, Src: client4.Addr(), Dst: server4.Addr(),
			Protocol: packet.ProtocolUDP, Payload: packettest.UDP(client4, server4, packettest.Body(20)).Payload}, 6},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := partial(tt.d, tt.offset)
			if bytes.Equal(f.Data, tt.d.Frame()) {
				t.Fatal("the checksum is complete already")
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

// TestCompleteChecksumZero has a sum come out as 0, which in UDP says that
// there is none.
func TestCompleteChecksumZero(t *testing.T) {
	f := Frame{Data: []byte{0xff, 0xff, 0, 0}, Offload: Offload{Flags: NeedsChecksum, ChecksumOffset: 2}}
	if !f.CompleteChecksum() || f.Data[2] != 0xff || f.Data[3] != 0xff {
		t.Errorf("% x", f.Data)
	}
}

func TestCompleteChecksumBeyondFrame(t *testing.T) {
	for _, o := range []Offload{
		{ChecksumStart: 19, ChecksumOffset: 0},
		{ChecksumStart: 10, ChecksumOffset: 9},
		{ChecksumStart: 65535, ChecksumOffset: 65535},
	} {
		o.Flags = NeedsChecksum
		f := Frame{Data: make([]byte, 20), Offload: o}
		if f.CompleteChecksum() || f.Offload != o || !bytes.Equal(f.Data, make([]byte, 20)) {
			t.Errorf("%+v became %+v, and the frame % x", o, f.Offload, f.Data)
		}
	}
}

// TestSegmentsTravelAsOne passes frames that stand for many packets.
func TestSegmentsTravelAsOne(t *testing.T) {
	long := func(d packettest.Datagram) packettest.Datagram {
		d.Payload = append(d.Payload, packettest.Body(40000)...)
		return d
	}
	udp := func(client, server netip.AddrPort) packettest.Datagram {
		return packettest.UDP(client, server, packettest.Body(30000))
	}
	tests := []struct {
		name   string
		d      packettest.Datagram
		gso    uint8
		offset int
	}{
		{"tcp over ipv4", long(packettest.TCP(client4, server4, 16)), GSOTCPv4, 16},
		{"tcp over ipv6", long(packettest.TCP(client6, server6, 16)), GSOTCPv6, 16},
		{"udp over ipv4", udp(client4, server4), GSOUDP, 6},
		{"udp over ipv6", udp(client6, server6), GSOUDP, 6},
		{"none", packettest.UDP(client4, server4, packettest.Body(1000)), GSONone, 6},
	}
	onEveryLane(t, func(t *testing.T, r *rig) {
		if !r.offload {
			return
		}
		stop := r.forward(unchanged)
		for _, tt := range tests {
			f := partial(tt.d, tt.offset)
			if f.Offload.GSO = tt.gso; tt.gso != GSONone {
				f.Offload.SegmentSize = 1000
			}
			if err := r.send(f); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			got, err := r.receive()
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			// How much the kernel keeps in one piece is its own affair.
			got.Offload.HeaderLength = f.Offload.HeaderLength
			if !bytes.Equal(got.Data, f.Data) || got.Offload != f.Offload {
				t.Errorf("%s: %d bytes became %d, %+v became %+v", tt.name, len(f.Data), len(got.Data), f.Offload, got.Offload)
			}
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
