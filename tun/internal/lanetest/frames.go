package lanetest

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"fragwall/packet/checksum"
	"fragwall/packet/packettest"
	"fragwall/tun"
)

// Endpoints on the inside and on the outside.
var (
	Client4 = netip.AddrPortFrom(packettest.InsideIPv4, 40000)
	Server4 = netip.AddrPortFrom(packettest.OutsideIPv4, 5000)
	Client6 = netip.AddrPortFrom(packettest.InsideIPv6, 40000)
	Server6 = netip.AddrPortFrom(packettest.OutsideIPv6, 5000)
)

// Number returns an Ethernet frame of length bytes with an experimental EtherType (IEEE 802
// clause 9.2.3) that carries a number.
func Number(number, length int) []byte {
	b := make([]byte, length)
	copy(b, "\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	binary.BigEndian.PutUint32(b[14:], uint32(number))
	for i := 18; i < length; i++ {
		b[i] = byte(number + i)
	}
	return b
}

// Lengths are lengths of frames in bytes, from the minimum of [Number] to the maximum of a TAP with
// an MTU of 1,500 without tags.
var Lengths = []int{18, 60, 61, 64, 1000, 1514}

// Partial returns a datagram's frame whose checksum is left to the NIC: the checksum field, at an
// offset in the transport header, holds only the sum of the pseudo-header.
func Partial(d packettest.Datagram, offset int) tun.Frame {
	data := d.Frame()
	start := len(data) - len(d.Payload)
	f := tun.Frame{Data: data, Offload: tun.Offload{
		Flags:          tun.NeedsChecksum,
		HeaderLength:   uint16(start + 20),
		ChecksumStart:  uint16(start),
		ChecksumOffset: uint16(offset),
	}}
	field := data[start+offset:]
	// The complete sum is the sum of the pseudo-header plus the rest, so subtract the rest.
	binary.BigEndian.PutUint16(field, 0)
	rest := checksum.Sum(data[start:], 0)
	binary.BigEndian.PutUint16(field, ^checksum.Add(^binary.BigEndian.Uint16(d.Payload[offset:]), ^rest)^0xffff)
	return f
}

// Through sends frames and expects them at the other end, in order. The bursts are small enough
// for every queue.
func (r *Rig) Through(t *testing.T, frames [][]byte) {
	t.Helper()
	const burst = 100
	for chunk := range slices.Chunk(frames, burst) {
		for _, f := range chunk {
			if err := r.Send(tun.Frame{Data: f}); err != nil {
				t.Fatal(err)
			}
		}
		r.Expect(t, chunk...)
	}
}

// Expect receives frames and compares them, in order.
func (r *Rig) Expect(t *testing.T, frames ...[]byte) {
	t.Helper()
	for i, want := range frames {
		got, err := r.Receive()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(got.Data, want) {
			t.Fatalf("frame %d differs: got %d bytes\n% .40x\nwant %d\n% .40x", i, len(got.Data), got.Data, len(want), want)
		}
	}
}
