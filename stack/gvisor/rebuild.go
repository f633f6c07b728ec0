package gvisor

import (
	"encoding/binary"
	"fmt"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"fragwall/packet"
	"fragwall/packet/verdict"
)

// Rebuild makes frames anew out of a whole and its fragments, and appends them to
// frames: one packet where it fits mtu, in bytes, which every fragment that came
// did, and otherwise fragments that are no larger than the largest that came, and
// fit mtu behind the first one's link layer. The link layer, the header and the
// IPv6 unfragmentable part are those of the first fragment; the payload is what
// gVisor put together.
//
// The reason is [verdict.FragmentECN] where the fragments can't have been of one
// datagram's making.
func (w Whole) Rebuild(frames []Frame, fragments []Fragment, mtu int) ([]Frame, verdict.Reason) {
	t, why := templateOf(fragments)
	if why != verdict.Passed {
		return frames, why
	}
	end := w.Size()
	t.room = end
	if mtu = t.parsed.PacketMTU(mtu); t.network(end, false) > mtu {
		t.room = (min(t.largest, mtu) - t.network(0, true)) &^ 7
	}
	payload := w.packet.Data().ToBuffer()
	defer payload.Release()
	for at := 0; at < end; at += t.room {
		frames = append(frames, t.frame(&payload, at))
	}
	return frames, verdict.Passed
}

// template is what the frames of a rebuilt datagram have in common.
type template struct {
	first   []byte // the first fragment's frame, up to its payload
	parsed  packet.Parsed
	largest int   // bytes of the largest fragment's packet
	room    int   // bytes of payload in each frame but the last
	ecn     uint8 // of the whole
	df      bool  // IPv4: routers may not fragment what is fragmented again
}

const (
	ecnMask = 0b11
	ecnCE   = 0b11
	flagMF  = header.IPv4FlagMoreFragments << 13
	flagDF  = header.IPv4FlagDontFragment << 13
)

// templateOf looks at all fragments: how large they are, what they say of
// congestion, and whether they may be fragmented.
func templateOf(fragments []Fragment) (template, verdict.Reason) {
	var t template
	first := fragments[0].Frame.Bytes()
	t.parsed.Decode(first)
	t.first = first[:t.parsed.Fragment.Payload]
	kind := t.parsed.Kind
	capable, incapable := false, false
	ce := false
	for i := range fragments {
		f := &fragments[i]
		b := f.Frame.Bytes()[f.Network:]
		size := int(f.Payload) - int(f.Network) + int(f.Length)
		ecn := trafficClass(b, kind) & ecnMask
		capable = capable || ecn != 0
		incapable = incapable || ecn == 0
		ce = ce || ecn == ecnCE
		// As Linux has it (net/ipv4/ip_fragment.c, max_df_size): DF counts if the
		// largest fragment had it, so that no small one makes a whole path of
		// larger ones unusable.
		df := kind == packet.IPv4 && binary.BigEndian.Uint16(b[6:])&flagDF != 0
		switch {
		case size > t.largest:
			t.largest, t.df = size, df
		case size == t.largest:
			t.df = t.df || df
		}
	}
	t.ecn = trafficClass(t.first[t.parsed.Network:], kind) & ecnMask
	switch {
	case capable && incapable:
		return t, verdict.FragmentECN
	case ce:
		t.ecn = ecnCE
	}
	return t, verdict.Passed
}

// trafficClass returns the DSCP and ECN bits of a packet.
func trafficClass(b []byte, kind packet.Kind) uint8 {
	if kind == packet.IPv4 {
		return b[1]
	}
	return b[0]<<4 | b[1]>>4
}

// network returns the length in bytes of a packet with the first fragment's
// headers and length bytes of payload, as a fragment or not.
func (t *template) network(length int, fragment bool) int {
	n := len(t.first) - t.parsed.Network + length
	if t.parsed.Kind == packet.IPv6 && !fragment {
		n -= header.IPv6FragmentHeaderSize
	}
	return n
}

// frame makes the frame with the payload from offset at on: as much as there
// is, up to t.room bytes.
func (t *template) frame(payload *buffer.Buffer, at int) Frame {
	end := int(payload.Size())
	length := min(t.room, end-at)
	more := at+length < end
	f := allocate(len(t.first) + length)
	f.write(t.first[:t.parsed.Network])
	if t.parsed.Kind == packet.IPv4 {
		f.write(t.ipv4(at, length, more))
	} else {
		f.write(t.ipv6(at, length, more))
	}
	headers := len(f.Bytes())
	f.memory.frame = f.memory.frame[:headers+length]
	if n, _ := payload.ReadAt(f.Bytes()[headers:], int64(at)); n != length {
		panic(fmt.Sprintf("gvisor: read %d of %d bytes of the reassembled datagram", n, length))
	}
	t.parsed.SetLength(f.Bytes())
	return f
}

// ipv4 returns the IPv4 header. What goes out whole may be fragmented again
// by a router, since nobody has tried whether it fits the path; what is
// fragmented again keeps DF.
func (t *template) ipv4(at, length int, more bool) []byte {
	b := append(header.IPv4{}, t.first[t.parsed.Network:]...)
	if at > 0 {
		b = copiedOptions(b)
	}
	field := uint16(at / 8)
	if more {
		field |= flagMF
	}
	if t.df && (more || at > 0) {
		field |= flagDF
	}
	b[0] = header.IPv4Version<<4 | uint8(len(b)/4)
	b[1] = b[1]&^ecnMask | t.ecn
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+length))
	binary.BigEndian.PutUint16(b[6:], field)
	b.SetChecksum(0)
	b.SetChecksum(^checksum.Checksum(b, 0))
	return b
}

// copiedOptions returns a header with those of its options alone that every
// fragment has to have (RFC 791 §3.1, the copied flag).
func copiedOptions(b header.IPv4) header.IPv4 {
	const (
		end, noOperation = 0, 1
		copied           = 0x80
	)
	out := append(header.IPv4{}, b[:header.IPv4MinimumSize]...)
	for options := b[header.IPv4MinimumSize:]; len(options) > 0 && options[0] != end; {
		n := 1
		if options[0] != noOperation {
			n = int(options[1]) // which decoding found to fit
		}
		if options[0]&copied != 0 {
			out = append(out, options[:n]...)
		}
		options = options[n:]
	}
	for len(out)%4 != 0 {
		out = append(out, end)
	}
	return out
}

// ipv6 returns the IPv6 header and the unfragmentable part, with a fragment
// header where the packet is a part of the datagram.
func (t *template) ipv6(at, length int, more bool) []byte {
	f := &t.parsed.Fragment
	b := append([]byte{}, t.first[t.parsed.Network:]...)
	fragmentHeader := b[len(b)-header.IPv6FragmentHeaderSize:]
	if at == 0 && !more {
		b[f.NextHeader-t.parsed.Network] = fragmentHeader[0]
		b = b[:len(b)-header.IPv6FragmentHeaderSize]
	} else {
		field := uint16(at)
		if more {
			field |= 1
		}
		binary.BigEndian.PutUint16(fragmentHeader[2:], field)
	}
	b[1] = b[1]&^(ecnMask<<4) | t.ecn<<4
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-header.IPv6MinimumSize+length))
	return b
}
