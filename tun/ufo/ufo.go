package ufo

import (
	"bytes"
	"encoding/binary"

	"fragwall/packet/checksum"
	"fragwall/tun"
)

// Datagram is a UDP datagram over IPv4: its fragments in the order of their offsets. The zero
// Datagram has none.
type Datagram struct {
	frames  []tun.Frame
	payload int // offset of the IP payload in each frame
	size    int // bytes of payload of each fragment except the last
	length  int // bytes of all payload, including the UDP header
}

// MaxFragments is the maximum number of fragments of a datagram. It is enough for 65,535 bytes in
// fragments of 1,480 bytes.
const MaxFragments = 64

// onePiece is the number of bytes of a datagram's frame that the kernel keeps in linear memory:
// as many as the eBPF programs on its path read (LONGEST_HEADERS in fastpath/bpf). With fewer,
// the programs would have to pull the bytes into linear memory.
const onePiece = 128

// Sizes and offsets in bytes (IEEE 802.3, 802.1Q, RFC 791 §3.1, RFC 768).
const (
	sizeMACs = 12
	sizeTag  = 4
	sizeType = 2
	maxTags  = 2

	sizeIPv4   = 20 // without options
	maxPacket  = 65535
	ipTOS      = 1
	ipLength   = 2
	ipID       = 4
	ipFragment = 6
	ipTTL      = 8
	ipChecksum = 10
	ipSource   = 12

	sizeUDP     = 8
	udpLength   = 4
	udpChecksum = 6
)

// HeaderSize is the maximum size of [Datagram.Header] in bytes.
const HeaderSize = tun.HeaderSize + sizeMACs + maxTags*sizeTag + sizeType + sizeIPv4

const (
	typeIPv4    = 0x0800
	typeDot1Q   = 0x8100
	typeDot1AD  = 0x88a8
	protocolUDP = 17
	versionIHL  = 0x45 // IPv4, a header without options

	// Bits of the 16-bit field of flags and fragment offset.
	reserved      = 0x8000
	moreFragments = 0x2000
)

// Find returns the datagram whose fragments are at the beginning of frames, which must not be
// empty. It reports false if they are not all fragments of one datagram, in order, or if the
// kernel would not make exactly these fragments. The kernel copies the Ethernet header, tags and
// IPv4 header of the first fragment to all of them, except length, offset, M flag and header
// checksum, and recomputes the UDP checksum.
func Find(frames []tun.Frame) (d Datagram, found bool) {
	first := frames[0].Data
	network := networkHeader(first)
	if network == 0 || len(frames) < 2 || !isFragment(first, network, 0, true) {
		return Datagram{}, false
	}
	d.payload = network + sizeIPv4
	d.size = len(first) - d.payload
	if d.size%8 != 0 {
		return Datagram{}, false
	}
	for i := range frames[:min(len(frames), MaxFragments)] {
		f := &frames[i]
		size := len(f.Data) - d.payload
		more := size == d.size && isFragment(f.Data, network, d.length, true)
		last := size > 0 && size <= d.size && isFragment(f.Data, network, d.length, false)
		if !more && !last || !alike(first, f.Data, network) || f.Offload.Segmented() || f.Offload.Flags&tun.NeedsChecksum != 0 {
			return Datagram{}, false
		}
		d.length += size
		if last {
			d.frames = frames[:i+1]
			break
		}
	}
	if len(d.frames) == 0 || !d.sound() {
		return Datagram{}, false
	}
	return d, true
}

// networkHeader returns the offset of the IPv4 header, if the frame is a UDP packet over IPv4
// without options that is long enough for a UDP header. Otherwise it returns 0.
func networkHeader(b []byte) int {
	at := sizeMACs
	for range maxTags + 1 {
		if len(b) < at+sizeType+sizeIPv4+sizeUDP {
			return 0
		}
		switch binary.BigEndian.Uint16(b[at:]) {
		case typeIPv4:
			h := b[at+sizeType:]
			if h[0] != versionIHL || h[9] != protocolUDP {
				return 0
			}
			return at + sizeType
		case typeDot1Q, typeDot1AD:
			at += sizeTag
		default:
			return 0
		}
	}
	return 0
}

// isFragment reports whether the frame holds an IPv4 packet without trailer, with this fragment
// offset in bytes, this M flag, no other flag, and the header checksum that the kernel writes.
// The frame is long enough for the header.
func isFragment(b []byte, network, offset int, more bool) bool {
	h := b[network:][:sizeIPv4]
	field := uint16(offset / 8)
	if more {
		field |= moreFragments
	}
	return int(binary.BigEndian.Uint16(h[ipLength:])) == len(b)-network &&
		binary.BigEndian.Uint16(h[ipFragment:]) == field &&
		checksum.Sum(h, 0) == checksum.Valid &&
		binary.BigEndian.Uint16(h[ipChecksum:]) != 0xffff // equivalent to 0, which the kernel writes
}

// alike reports whether two frames agree in all fields that the fragments of one datagram share.
// network is the offset of the IPv4 header in both.
func alike(a, b []byte, network int) bool {
	ip, other := a[network:][:sizeIPv4], b[network:][:sizeIPv4]
	return bytes.Equal(a[:network], b[:network]) &&
		ip[0] == other[0] && ip[ipTOS] == other[ipTOS] &&
		ip[ipID] == other[ipID] && ip[ipID+1] == other[ipID+1] &&
		ip[ipTTL] == other[ipTTL] && ip[ipTTL+1] == other[ipTTL+1] &&
		bytes.Equal(ip[ipSource:], other[ipSource:])
}

// sound reports whether the kernel fragments a datagram of this length, and whether the UDP
// header has this length and the checksum that the kernel computes. A checksum of 0 means none
// (RFC 768), so the kernel would not write it. Before Linux 5.16 the kernel did not fragment a
// datagram with at most one fragment's payload after the UDP header (include/linux/virtio_net.h,
// virtio_net_hdr_to_skb).
func (d *Datagram) sound() bool {
	udp := d.Payload(0)
	if sizeIPv4+d.length > maxPacket || d.length <= d.size+sizeUDP || int(binary.BigEndian.Uint16(udp[udpLength:])) != d.length ||
		binary.BigEndian.Uint16(udp[udpChecksum:]) == 0 {
		return false
	}
	addresses := d.frames[0].Data[d.payload-sizeIPv4+ipSource:][:sizeIPv4-ipSource]
	sum := checksum.Sum(addresses, checksum.Add(protocolUDP, uint16(d.length)))
	for i := range d.frames {
		sum = checksum.Sum(d.Payload(i), sum) // all lengths except the last are even
	}
	return sum == checksum.Valid
}

// Len returns the number of fragments.
func (d *Datagram) Len() int { return len(d.frames) }

// Payload returns the payload of the i-th fragment. In the single frame, the payloads follow
// [Datagram.Header] in order.
func (d *Datagram) Payload(i int) []byte { return d.frames[i].Data[d.payload:] }

// Header writes the headers of the single frame to the beginning of b, and returns them: the
// virtio-net header, the Ethernet header with its tags, and the IPv4 header. b has at least
// [HeaderSize] bytes. The IPv4 header has the reserved flag set. By this flag, eBPF programs
// (fastpath/bpf), which do not see the virtio-net header, distinguish the frame from one that the
// kernel cuts into smaller datagrams. The kernel sets the flags and the offset of each fragment
// itself.
func (d *Datagram) Header(b []byte) []byte {
	o := tun.Offload{GSO: tun.GSOFragments, HeaderLength: uint16(min(onePiece, d.payload+d.length)), SegmentSize: uint16(d.size)}
	o.Encode(b)
	h := b[tun.HeaderSize:][:d.payload]
	copy(h, d.frames[0].Data)
	ip := h[d.payload-sizeIPv4:]
	binary.BigEndian.PutUint16(ip[ipLength:], uint16(sizeIPv4+d.length))
	binary.BigEndian.PutUint16(ip[ipFragment:], reserved)
	checksum.Put(ip, ipChecksum, 0)
	return b[:tun.HeaderSize+d.payload]
}
