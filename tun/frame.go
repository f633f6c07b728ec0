package tun

import (
	"encoding/binary"
	"unsafe"

	"fragwall/packet/checksum"
)

// Frame is one Ethernet frame, without preamble and frame check sequence.
type Frame struct {
	Data []byte
	// Offload is the work that is left to the NIC. The zero value means none; a TAP without
	// offload delivers only such frames.
	Offload Offload

	// headroom reports that the HeaderSize bytes before Data belong to the frame; see
	// [FrameOf].
	headroom bool
}

// Offload is a frame's virtio-net header (virtio 1.3 §5.1.6; in the kernel struct
// virtio_net_hdr of include/uapi/linux/virtio_net.h). The NIC may have to cut the frame into
// many packets, and to compute its transport checksum. The sender of the frame sets the header,
// so code that relies on it must check it against the packet.
type Offload struct {
	Flags uint8 // bits NeedsChecksum and DataValid
	GSO   uint8 // the kind of segmentation: one of the values below, possibly with the bit GSOECN
	// HeaderLength is the number of bytes to keep in linear memory, at least the headers. It is
	// only a hint.
	HeaderLength uint16
	SegmentSize  uint16 // bytes of payload per packet; not used with GSONone
	// ChecksumStart is the offset in the frame of the bytes that the checksum covers, up to the
	// end of the frame. ChecksumOffset is the offset of the checksum field from there. Both are
	// valid only with NeedsChecksum.
	ChecksumStart, ChecksumOffset uint16
}

// Bits of [Offload.Flags].
const (
	// NeedsChecksum: the checksum field holds only the sum of the pseudo-header.
	NeedsChecksum uint8 = 1
	// DataValid: the checksum was verified.
	DataValid uint8 = 2
)

// Values of [Offload.GSO].
const (
	GSONone  uint8 = 0
	GSOTCPv4 uint8 = 1
	// GSOFragments: IP fragments of one UDP datagram. TAPs accept such frames but deliver none.
	GSOFragments uint8 = 3
	GSOTCPv6     uint8 = 4
	GSOUDP       uint8 = 5 // UDP datagrams over IPv4 or IPv6
	// GSOECN is added for TCP with CWR set. Only the first segment keeps CWR.
	GSOECN uint8 = 0x80
)

// HeaderSize is the size of the virtio-net header in bytes. Its fields are in native byte order.
const HeaderSize = 10

// FrameOf returns the frame in a buffer that holds the virtio-net header and then the Ethernet
// frame. [Frame.WithHeader] reuses the space of the header.
func FrameOf(buffer []byte) Frame {
	f := Frame{Data: buffer[HeaderSize:], headroom: true}
	f.Offload.Decode(buffer)
	return f
}

// WithHeader writes the virtio-net header directly before Data and returns both as one slice. It
// reports false if [FrameOf] did not make the frame: then there is no room before Data.
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

// CompleteChecksum computes the checksum that was left to the NIC, for callers that keep or
// quote the frame without its Offload. It reports false and changes nothing if the Offload
// points outside the frame. If the frame is still to be segmented, the checksum is valid for the
// frame as a whole.
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
		sum = 0xffff // equivalent; in UDP, 0 means no checksum (RFC 768)
	}
	binary.BigEndian.PutUint16(f.Data[field:], sum)
	o.Flags &^= NeedsChecksum
	o.ChecksumStart, o.ChecksumOffset = 0, 0
	return true
}
