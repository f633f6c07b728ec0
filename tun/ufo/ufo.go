package ufo

import (
	"bytes"
	"encoding/binary"

	"fragwall/packet/checksum"
	"fragwall/tun"
)

// Datagram is a UDP datagram over IPv4, as its fragments in the order of their
// offsets. The zero Datagram has none.
type Datagram struct {
	frames  []tun.Frame
	payload int // where in each frame the IP payload begins
	size    int // bytes of payload of each fragment but the last
	length  int // of all payload, UDP header included, in bytes
}

// MaxFragments is of how many fragments a datagram may be: enough for 65,535 bytes in
// fragments of 1,480.
const MaxFragments = 64

// onePiece is how much of a datagram's frame the kernel is to hold in one piece, in
// bytes: as much as the programs look at that it meets (LONGEST_HEADERS in
// fastpath/bpf), which would pull it together otherwise.
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

// HeaderSize is what [Datagram.Header] needs at most, in bytes.
const HeaderSize = tun.HeaderSize + sizeMACs + maxTags*sizeTag + sizeType + sizeIPv4

const (
	typeIPv4    = 0x0800
	typeDot1Q   = 0x8100
	typeDot1AD  = 0x88a8
	protocolUDP = 17
	versionIHL  = 0x45 // IPv4, a header without options

	// Of the 16 bits of flags and fragment offset:
	reserved      = 0x8000
	moreFragments = 0x2000
)

// Find returns the datagram whose fragments the first of the frames are. It reports
// false where they are not all fragments of one, in order, or where the kernel would
// not make exactly these of it: it gives all of them the Ethernet header, tags and IPv4
// header of the first, but for length, offset, M flag and header checksum, and
// computes the UDP checksum anew.
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

// networkHeader returns where the header of an IPv4 packet begins that is UDP, has no
// options and as much payload as a UDP header; 0 where the frame is anything else.
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

// isFragment reports whether the frame, which is long enough for it, is to its end an
// IPv4 packet with this fragment offset, in bytes, and M flag, without another flag, and
// with the header checksum that the kernel writes.
func isFragment(b []byte, network, offset int, more bool) bool {
	h := b[network:][:sizeIPv4]
	field := uint16(offset / 8)
	if more {
		field |= moreFragments
	}
	return int(binary.BigEndian.Uint16(h[ipLength:])) == len(b)-network &&
		binary.BigEndian.Uint16(h[ipFragment:]) == field &&
		checksum.Sum(h, 0) == checksum.Valid &&
		binary.BigEndian.Uint16(h[ipChecksum:]) != 0xffff // as good as 0, which the kernel writes
}

// alike reports whether two frames, of which the network header begins at the same
// place, are equal in all that fragments of one datagram have in common.
func alike(a, b []byte, network int) bool {
	ip, other := a[network:][:sizeIPv4], b[network:][:sizeIPv4]
	return bytes.Equal(a[:network], b[:network]) &&
		ip[0] == other[0] && ip[ipTOS] == other[ipTOS] &&
		ip[ipID] == other[ipID] && ip[ipID+1] == other[ipID+1] &&
		ip[ipTTL] == other[ipTTL] && ip[ipTTL+1] == other[ipTTL+1] &&
		bytes.Equal(ip[ipSource:], other[ipSource:])
}

// sound reports whether the kernel cuts a datagram of that length, and the UDP header
// says the same length and has the checksum that the kernel computes. Before Linux 5.16
// the kernel took a datagram for a single packet that had no more than a fragment's
// payload behind the UDP header (include/linux/virtio_net.h, virtio_net_hdr_to_skb). There is no other for these bytes but 0, which
// says that there is none (RFC 768).
func (d *Datagram) sound() bool {
	udp := d.Payload(0)
	if sizeIPv4+d.length > maxPacket || d.length <= d.size+sizeUDP || int(binary.BigEndian.Uint16(udp[udpLength:])) != d.length ||
		binary.BigEndian.Uint16(udp[udpChecksum:]) == 0 {
		return false
	}
	addresses := d.frames[0].Data[d.payload-sizeIPv4+ipSource:][:sizeIPv4-ipSource]
	sum := checksum.Sum(addresses, checksum.Add(protocolUDP, uint16(d.length)))
	for i := range d.frames {
		sum = checksum.Sum(d.Payload(i), sum) // all but the last are of an even length
	}
	return sum == checksum.Valid
}

// Len returns of how many fragments the datagram is.
func (d *Datagram) Len() int { return len(d.frames) }

// Payload returns the payload of the i-th fragment. They stand behind
// [Datagram.Header], one after the other.
func (d *Datagram) Payload(i int) []byte { return d.frames[i].Data[d.payload:] }

// Header writes what stands in front of the payload of the datagram in one piece to
// the beginning of b: the virtio-net header, the Ethernet header with its tags, and the
// IPv4 header. That has the reserved flag, which tells the datagram from one that is to
// be cut into smaller datagrams, for eBPF programs that see no virtio-net header
// (fastpath/bpf). The kernel writes flags and offset of each fragment anew.
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
