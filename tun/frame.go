package tun

import (
	"encoding/binary"
	"unsafe"

	"fragwall/packet/checksum"
)

// Frame is one Ethernet frame, without preamble and frame check sequence.
type Frame struct {
	Data []byte
	// Offload is what was left for the NIC to do; its zero value is nothing,
	// and what a TAP without offload delivers.
	Offload Offload

	// headroom is set where the HeaderSize bytes in front of Data belong to the
	// frame; see [FrameOf].
	headroom bool
}

// Offload is a frame's virtio-net header (virtio 1.3 §5.1.6, in the kernel
// struct virtio_net_hdr of include/uapi/linux/virtio_net.h): the frame may
// stand for many packets that a NIC cuts it into, and its transport checksum
// may be left for the NIC to fill in. It comes from whoever sent the frame, so
// that whoever relies on it has to hold it against the packet.
type Offload struct {
	Flags uint8 // bits NeedsChecksum and DataValid
	GSO   uint8 // what to cut it into: one of the values below, with the bit GSOECN
	// HeaderLength is how much of the frame to hold in one piece: at least its
	// headers, a hint only.
	HeaderLength uint16
	SegmentSize  uint16 // bytes of payload a packet, where GSO isn't GSONone
	// ChecksumStart is where in the frame the bytes begin that the checksum
	// covers, up to the frame's end; ChecksumOffset is where from there to store
	// it. Both only with NeedsChecksum.
	ChecksumStart, ChecksumOffset uint16
}

// Bits of [Offload.Flags].
const (
	// NeedsChecksum: the checksum field holds that of the pseudo-header alone.
	NeedsChecksum uint8 = 1
	// DataValid: the checksum was found right.
	DataValid uint8 = 2
)

// Values of [Offload.GSO].
const (
	GSONone  uint8 = 0
	GSOTCPv4 uint8 = 1
	// GSOFragments: IP fragments of one UDP datagram. TAPs take such frames, and
	// hand none over.
	GSOFragments uint8 = 3
	GSOTCPv6     uint8 = 4
	GSOUDP       uint8 = 5 // UDP datagrams over IPv4 or IPv6
	// GSOECN is added for TCP with CWR set, which only the first segment keeps.
	GSOECN uint8 = 0x80
)

// HeaderSize is the size of the virtio-net header in bytes, whose fields are in
// the machine's byte order.
const HeaderSize = 10

// FrameOf returns the frame of a buffer that holds its virtio-net header and then
// the Ethernet frame. [Frame.WithHeader] uses the header's place again.
func FrameOf(buffer []byte) Frame {
	f := Frame{Data: buffer[HeaderSize:], headroom: true}
	f.Offload.Decode(buffer)
	return f
}

// WithHeader writes the virtio-net header in front of Data and returns both as one
// piece. It reports false for a frame that [FrameOf] did not make, which has no room
// there.
func (f *Frame) WithHeader() ([]byte, bool) {
	if !f.headroom {
		return nil, false
	}
	start := unsafe.Add(unsafe.Pointer(unsafe.SliceData(f.Data)), -HeaderSize)
	b := unsafe.Slice((*byte)(start), HeaderSize+len(f.Data))
	f.Offload.Encode(b)
	return b, true
}

// Segmented reports whether the frame stands for more than one packet.
func (o *Offload) Segmented() bool { return o.GSO != GSONone }

// Decode reads the virtio-net header at the beginning of b.
func (o *Offload) Decode(b []byte) {
	_ = b[HeaderSize-1]
	o.Flags, o.GSO = b[0], b[1]
	o.HeaderLength = binary.NativeEndian.Uint16(b[2:])
	o.SegmentSize = binary.NativeEndian.Uint16(b[4:])
	o.ChecksumStart = binary.NativeEndian.Uint16(b[6:])
	o.ChecksumOffset = binary.NativeEndian.Uint16(b[8:])
}

// Encode writes the virtio-net header to the beginning of b.
func (o *Offload) Encode(b []byte) {
	_ = b[HeaderSize-1]
	b[0], b[1] = o.Flags, o.GSO
	binary.NativeEndian.PutUint16(b[2:], o.HeaderLength)
	binary.NativeEndian.PutUint16(b[4:], o.SegmentSize)
	binary.NativeEndian.PutUint16(b[6:], o.ChecksumStart)
	binary.NativeEndian.PutUint16(b[8:], o.ChecksumOffset)
}

// CompleteChecksum does what was left for the NIC to do with the frame's
// checksum, for who keeps the frame without its Offload, or quotes from it. It
// reports false, and changes nothing, where the Offload points out of the
// frame. A frame that is to be cut into segments gets a checksum that is good
// for the whole of it.
func (f *Frame) CompleteChecksum() bool {
	o := &f.Offload
	if o.Flags&NeedsChecksum == 0 {
		return true
	}
	start := int(o.ChecksumStart)
	field := start + int(o.ChecksumOffset)
	if field+2 > len(f.Data) {
		return false
	}
	sum := ^checksum.Sum(f.Data[start:], 0)
	if sum == 0 {
		sum = 0xffff // the same number; 0 would say "none" in UDP (RFC 768)
	}
	binary.BigEndian.PutUint16(f.Data[field:], sum)
	o.Flags &^= NeedsChecksum
	o.ChecksumStart, o.ChecksumOffset = 0, 0
	return true
}
